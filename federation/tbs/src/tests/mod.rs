//! Tests, by part.

mod batch;
mod blinding;
mod curve;
mod dkg;
mod encoding;
mod encryption;
mod engines;
mod lagrange;
mod presumed;

use std::collections::BTreeMap;

use crate::dkg::DkgOutput;

/// A federation of `n` with that many keys.
fn federation(n: usize, keys: usize) -> Vec<DkgOutput> {
    crate::dkg::testing::run(n, keys, &mut rand::thread_rng()).unwrap()
}

/// All sets of `size` of the guardians 0..n.
fn subsets(n: usize, size: usize) -> Vec<Vec<u16>> {
    let all = (0_u32..1 << n).filter(|set| set.count_ones() as usize == size);
    all.map(|set| (0..n as u16).filter(|i| (set >> i) & 1 == 1).collect()).collect()
}

/// What each guardian of a set makes, by guardian.
fn by_guardian<T>(set: &[u16], make: impl Fn(usize) -> T) -> BTreeMap<u16, T> {
    set.iter().map(|i| (*i, make(usize::from(*i)))).collect()
}

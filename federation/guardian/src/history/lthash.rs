//! A digest of a set of keys and values that can be brought up to date and that does not depend on how the set came
//! about: LtHash.
//!
//! Each pair is expanded to 1,024 numbers of 16 bits (SHA-256 in counter mode), and the sums modulo 2^16 are kept.
//! Finding two sets with equal sums is at least as hard as a short-integer-solution problem on lattices; with these
//! parameters it takes some 2^200 steps. Bellare and Micciancio, *A New Paradigm for Collision-Free Hashing*
//! (EUROCRYPT 1997); Lewi, Kim, Maykov and Weis, *Securing Update Propagation with Homomorphic Hashing* (eprint
//! 2019/227), whose LtHash16 has the same size.

use bitcoin::hashes::{Hash as _, HashEngine as _, sha256};
use federation_core::encoding::tagged_hash;

/// How many numbers.
const LANES: usize = 1024;
/// Lanes in one SHA-256.
const LANES_A_HASH: usize = 16;
/// Bytes of the stored form.
pub const SIZE: usize = 2 * LANES;

/// The sums. The empty set's are all zero.
#[derive(Clone, PartialEq, Eq)]
pub struct LtHash([u16; LANES]);

impl Default for LtHash {
    fn default() -> Self {
        Self([0; LANES])
    }
}

impl std::fmt::Debug for LtHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LtHash({})", hex::encode(self.digest()))
    }
}

impl LtHash {
    /// Puts a pair into the set. A set holds a key once: the caller takes the old pair out.
    pub fn insert(&mut self, key: &[u8], value: &[u8]) {
        self.mix(key, value, u16::wrapping_add);
    }

    /// Takes a pair out that is in the set.
    pub fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.mix(key, value, u16::wrapping_sub);
    }

    /// Adds another set's sums: of sets without a common key these are the union's, and a set of changes can be summed
    /// up in parts.
    pub fn merge(&mut self, other: &Self) {
        for (lane, other) in self.0.iter_mut().zip(other.0) {
            *lane = lane.wrapping_add(other);
        }
    }

    fn mix(&mut self, key: &[u8], value: &[u8], operation: fn(u16, u16) -> u16) {
        let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes();
        let seed = tagged_hash("cln-federation/state/v1", &[&length(key), key, &length(value), value]);
        for (counter, lanes) in (0u32..).zip(self.0.chunks_exact_mut(LANES_A_HASH)) {
            let mut engine = sha256::Hash::engine();
            engine.input(&seed);
            engine.input(&counter.to_be_bytes());
            let block = sha256::Hash::from_engine(engine).to_byte_array();
            for (lane, bytes) in lanes.iter_mut().zip(block.as_chunks::<2>().0) {
                *lane = operation(*lane, u16::from_be_bytes(*bytes));
            }
        }
    }

    /// What stands for the set: SHA-256 of the sums.
    pub fn digest(&self) -> [u8; 32] {
        sha256::Hash::hash(&self.to_bytes()).to_byte_array()
    }

    /// The stored form: [`SIZE`] bytes, each sum big-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|lane| lane.to_be_bytes()).collect()
    }

    /// Reads the stored form; `None` for another length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SIZE] = bytes.try_into().ok()?;
        let mut lanes = [0; LANES];
        for (lane, bytes) in lanes.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *lane = u16::from_be_bytes(*bytes);
        }
        Some(Self(lanes))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..5)
    }

    fn of<'a>(pairs: impl IntoIterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>) -> LtHash {
        let mut sums = LtHash::default();
        for (key, value) in pairs {
            sums.insert(key, value);
        }
        sums
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_order_and_the_way_there_do_not_matter(
            pairs in proptest::collection::btree_map(bytes(), bytes(), 0..12),
            others in proptest::collection::btree_map(bytes(), bytes(), 0..12),
            cut in 0usize..12,
        ) {
            let there = of(&pairs);
            prop_assert_eq!(&of(pairs.iter().rev()), &there);
            // In two parts.
            let mut parts = of(pairs.iter().take(cut));
            parts.merge(&of(pairs.iter().skip(cut)));
            prop_assert_eq!(&parts, &there);
            // From another set.
            let mut moved = of(&others);
            for (key, value) in &others {
                moved.remove(key, value);
            }
            prop_assert_eq!(&moved, &LtHash::default());
            moved.merge(&there);
            prop_assert_eq!(&moved, &there);
            prop_assert_eq!(moved.digest() == of(&others).digest(), pairs == others);
            prop_assert_eq!(LtHash::from_bytes(&there.to_bytes()), Some(there));
        }
    }

    #[test]
    fn lengths_are_part_of_what_is_hashed() {
        let one = |key: &[u8], value: &[u8]| of(&Pairs::from([(key.to_vec(), value.to_vec())])).digest();
        assert_ne!(one(b"ab", b"c"), one(b"a", b"bc"));
        assert_ne!(one(b"", b""), LtHash::default().digest());
        assert_eq!(LtHash::from_bytes(&[0; SIZE - 1]), None);
    }

    /// Other implementations can check themselves against this.
    #[test]
    fn a_fixed_example() {
        let sums = of(&Pairs::from([(b"key".to_vec(), b"value".to_vec())]));
        let seed = tagged_hash(
            "cln-federation/state/v1",
            &[&[0, 0, 0, 0, 0, 0, 0, 3], b"key", &[0, 0, 0, 0, 0, 0, 0, 5], b"value"],
        );
        let block = |counter: u32| sha256::Hash::hash(&[seed.as_slice(), &counter.to_be_bytes()].concat());
        assert_eq!(sums.to_bytes()[..32], *block(0).as_byte_array());
        assert_eq!(sums.to_bytes()[SIZE - 32..], *block(63).as_byte_array());
    }
}

//! Combining the shares of any T guardians, by small integers.
//!
//! The share of guardian i is the value of a polynomial of degree T − 1 at xᵢ = i + 1, and the key its value at 0:
//! Σ λᵢ·f(xᵢ) with λᵢ = Π_{j≠i} xⱼ / (xⱼ − xᵢ) over the set that takes part. These are small fractions. With D, the
//! least common denominator over all sets of that federation size, D·λᵢ is a small integer; so shares are divided by D
//! once, at key generation, and combined by D·λᵢ: at most 5 bits for 4 guardians, 16 for 7, 28 for 10, instead of the 255
//! of a fraction modulo the group order.

use std::sync::LazyLock;

use crate::curve::{Affine, Point};
use crate::error::TbsError;

/// The largest federation.
pub const MAX_GUARDIANS: usize = 20;

/// How many of `n` guardians sign or decrypt together: n − f with f = (n − 1) / 3 faulty ones.
pub fn threshold(n: usize) -> usize {
    n - n.saturating_sub(1) / 3
}

/// The largest federation with this threshold. (At most two sizes share one; it serves both.)
fn guardians(threshold: usize) -> Result<usize, TbsError> {
    (1..=MAX_GUARDIANS).rev().find(|n| self::threshold(*n) == threshold).ok_or(TbsError::Threshold(threshold))
}

/// How often the prime `p` divides `value` (which isn't zero).
fn valuation(p: i128, mut value: i128) -> i32 {
    let mut times = 0;
    while value % p == 0 {
        value /= p;
        times += 1;
    }
    times
}

/// D of the module's head, for the federations with this threshold.
///
/// For each prime p and each i, the denominator of λᵢ has as many p as the sum over j of v(xⱼ − xᵢ) − v(xⱼ); the worst set
/// is the one of the T − 1 largest summands.
pub(crate) fn common_denominator(threshold: usize) -> Result<i128, TbsError> {
    /// By size of the federation, from 0: it takes as long as a combination itself.
    static DENOMINATORS: LazyLock<Vec<i128>> =
        LazyLock::new(|| (0..=MAX_GUARDIANS).map(denominator).collect());
    DENOMINATORS.get(guardians(threshold)?).copied().ok_or(TbsError::Threshold(threshold))
}

fn denominator(guardians: usize) -> i128 {
    let (n, threshold) = (guardians as i128, threshold(guardians));
    let mut denominator = 1;
    for p in [2, 3, 5, 7, 11, 13, 17, 19] {
        let mut worst = 0;
        for i in 1..=n {
            let mut summands: Vec<i32> =
                (1..=n).filter(|j| *j != i).map(|j| valuation(p, j - i) - valuation(p, j)).collect();
            summands.sort_unstable_by(|a, b| b.cmp(a));
            worst = worst.max(summands.iter().take(threshold.saturating_sub(1)).sum());
        }
        for _ in 0..worst {
            denominator *= p;
        }
    }
    denominator
}

/// D·λᵢ for each of these guardians (0-based), of which there are exactly `threshold`.
pub(crate) fn coefficients(indices: &[u16], threshold: usize) -> Result<Vec<i128>, TbsError> {
    let n = guardians(threshold)?;
    let denominator = common_denominator(threshold)?;
    let mut coefficients = Vec::with_capacity(indices.len());
    for i in indices {
        if usize::from(*i) >= n {
            return Err(TbsError::Guardian(*i));
        }
        let x_i = i128::from(*i) + 1;
        // As a reduced fraction all along, so that 128 bits are ample for 20 guardians.
        let (mut above, mut below) = (denominator, 1);
        for j in indices.iter().filter(|j| *j != i) {
            let x_j = i128::from(*j) + 1;
            above *= x_j;
            below *= x_j - x_i;
            let common = gcd(above, below);
            above /= common;
            below /= common;
        }
        // D is a multiple of every denominator, so `below` is 1 or -1 here.
        coefficients.push(above * below);
    }
    Ok(coefficients)
}

fn gcd(a: i128, b: i128) -> i128 {
    let (mut a, mut b) = (a.abs(), b.abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Combines the first `threshold` of these shares, by guardian.
pub(crate) fn combine<'a, A: Affine>(
    shares: impl ExactSizeIterator<Item = (u16, &'a Point<A>)>,
    threshold: usize,
) -> Result<Point<A>, TbsError> {
    guardians(threshold)?;
    if shares.len() < threshold {
        return Err(TbsError::NotEnoughShares { have: shares.len(), need: threshold });
    }
    let (indices, points): (Vec<u16>, Vec<&Point<A>>) = shares.take(threshold).unzip();
    let terms: Vec<(i128, &Point<A>)> = coefficients(&indices, threshold)?.into_iter().zip(points).collect();
    Ok(Point::small_sum(&terms))
}

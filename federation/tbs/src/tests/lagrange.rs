//! The integers of combination.

use bls12_381::Scalar as Fr;

use crate::lagrange::{MAX_GUARDIANS, coefficients, common_denominator, threshold};
use crate::tests::subsets;

#[test]
fn thresholds() {
    let expected = [1, 2, 3, 3, 4, 5, 5, 6, 7, 7];
    assert!((1..=10).map(threshold).eq(expected));
}

#[test]
fn combination_is_by_small_integers() {
    for (n, bits) in [(1, 1), (4, 5), (7, 16), (10, 28)] {
        let t = threshold(n);
        let sets = subsets(n, t);
        let all = sets.iter().flat_map(|set| coefficients(set, t).unwrap());
        assert_eq!(all.map(|c| 128 - c.unsigned_abs().leading_zeros()).max(), Some(bits), "n = {n}");
    }
}

#[test]
fn coefficients_interpolate_at_zero_for_every_size() {
    for n in 1..=MAX_GUARDIANS {
        let t = threshold(n);
        let d = common_denominator(t).unwrap();
        // The first, the last and every other guardian: the sets with the largest fractions among them.
        let spread = (0..n as u16).step_by(2).chain((1..n as u16).step_by(2)).take(t).collect();
        let sets: [Vec<u16>; 3] = [(0..t as u16).collect(), ((n - t) as u16..n as u16).collect(), spread];
        for set in sets {
            let coefficients = coefficients(&set, t).unwrap();
            // Σ cᵢ·xᵢᵏ = D for k = 0 and 0 for every other power below T; modulo the order, so that nothing overflows.
            for k in 0..t {
                let mut sum = Fr::from(0);
                for (i, c) in set.iter().zip(&coefficients) {
                    let power = ff::Field::pow_vartime(&Fr::from(u64::from(*i) + 1), [k as u64]);
                    sum += signed(*c) * power;
                }
                assert_eq!(sum, signed(if k == 0 { d } else { 0 }), "n = {n}, power {k}");
            }
        }
    }
}

fn signed(value: i128) -> Fr {
    let two_to_64 = Fr::from(1 << 32) * Fr::from(1 << 32);
    let value_abs = value.unsigned_abs();
    let scalar = Fr::from((value_abs >> 64) as u64) * two_to_64 + Fr::from(value_abs as u64);
    if value < 0 { -scalar } else { scalar }
}

//! The engine in pure Rust, on `bls12_381`.

use bls12_381::hash_to_curve::HashToCurve;
use bls12_381::{Bls12, G1Affine, G1Projective, G2Prepared, Gt, MillerLoopResult, multi_miller_loop};

use super::{Engine, ExpandXmd, G1Of, G2Of, Point};

impl Engine for Bls12 {
    type Loop = MillerLoopResult;

    fn hash_to_curve(message: &[u8], dst: &[u8]) -> G1Projective {
        <G1Projective as HashToCurve<ExpandXmd>>::hash_to_curve(message, dst)
    }

    fn normalize(points: &[G1Projective]) -> Vec<G1Of<Self>> {
        let mut affine = vec![G1Affine::identity(); points.len()];
        G1Projective::batch_normalize(points, &mut affine);
        affine.into_iter().map(Point::new).collect()
    }

    fn msm_128(terms: &[(u128, &G1Of<Self>)]) -> Point<G1Affine> {
        Point::from_curve(pippenger(terms))
    }

    fn miller_loop(terms: &[(&G1Of<Self>, &G2Of<Self>)]) -> MillerLoopResult {
        let terms: Vec<(&G1Affine, &G2Prepared)> = terms
            .iter()
            .map(|(p, q)| (&p.affine, q.lines.get_or_init(|| G2Prepared::from(q.affine))))
            .collect();
        multi_miller_loop(&terms)
    }

    fn multiply_to_one(loops: Vec<MillerLoopResult>) -> bool {
        let product = loops.into_iter().reduce(|a, b| a + b).unwrap_or_default();
        product.final_exponentiation() == Gt::identity()
    }
}

/// Σ cᵢ·Pᵢ by Pippenger's algorithm: for each window of bits, points with the same digit are summed first.
fn pippenger(terms: &[(u128, &G1Of<Bls12>)]) -> G1Projective {
    // An addition a point and two a bucket and window: about log₂(n) − 2 bits are best.
    let window = terms.len().max(1).ilog2().saturating_sub(2).clamp(2, 12);
    let mut sum = G1Projective::identity();
    for shift in (0..u128::BITS.div_ceil(window)).rev().map(|number| number * window) {
        for _ in 0..window {
            sum = sum.double();
        }
        // (Digit 0 has a bucket too, which nobody reads.)
        let mut buckets = vec![G1Projective::identity(); 1 << window];
        for (scalar, point) in terms {
            let digit = (scalar >> shift) as usize & ((1 << window) - 1);
            if let Some(bucket) = buckets.get_mut(digit) {
                *bucket += point.affine;
            }
        }
        let mut running = G1Projective::identity();
        for bucket in buckets.iter().skip(1).rev() {
            running += bucket;
            sum += running;
        }
    }
    sum
}

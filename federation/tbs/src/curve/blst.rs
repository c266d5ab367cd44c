//! The fast engine, on `blst` through `blstrs`.
//!
//! Keys are not prepared here: blst has lines for one pairing at a time only, so that a product on prepared keys takes a
//! run of squarings for each, more than is saved. (`cargo bench -p federation-tbs` prints both.)

use blst::{MultiPoint, blst_fp12, blst_p1, blst_p1_affine, blst_p2_affine, p1_affines};
use blstrs::{Bls12, G1Affine, G1Projective};
use group::Group;

use super::{Engine, G1Of, G2Of, Point};

impl Engine for Bls12 {
    type Loop = blst_fp12;

    fn hash_to_curve(message: &[u8], dst: &[u8]) -> G1Projective {
        G1Projective::hash_to_curve(message, dst, &[])
    }

    fn normalize(points: &[G1Projective]) -> Vec<G1Of<Self>> {
        let points: Vec<blst_p1> = points.iter().map(|point| *point.as_ref()).collect();
        if points.is_empty() {
            return Vec::new();
        }
        p1_affines::from(&points).as_slice().iter().map(|point| Point::new(affine(point))).collect()
    }

    fn msm_128(terms: &[(u128, &G1Of<Self>)]) -> Point<G1Affine> {
        if terms.is_empty() {
            return Point::identity();
        }
        let points: Vec<blst_p1_affine> = terms.iter().map(|(_, point)| *point.affine.as_ref()).collect();
        let scalars: Vec<u8> = terms.iter().flat_map(|(scalar, _)| scalar.to_le_bytes()).collect();
        let mut sum = G1Projective::identity();
        *sum.as_mut() = points.as_slice().mult(&scalars, 128);
        Point::from_curve(sum)
    }

    fn miller_loop(terms: &[(&G1Of<Self>, &G2Of<Self>)]) -> blst_fp12 {
        // A pair with an identity contributes one; the shared loop would get it wrong.
        let (ps, qs): (Vec<blst_p1_affine>, Vec<blst_p2_affine>) = terms
            .iter()
            .filter(|(p, q)| !p.is_identity() && !q.is_identity())
            .map(|(p, q)| (*p.affine.as_ref(), *q.affine.as_ref()))
            .unzip();
        // (Its default is one.)
        if ps.is_empty() { blst_fp12::default() } else { blst_fp12::miller_loop_n(&qs, &ps) }
    }

    fn multiply_to_one(loops: Vec<blst_fp12>) -> bool {
        let product = loops.into_iter().reduce(|a, b| a * b).unwrap_or_default();
        product.final_exp() == blst_fp12::default()
    }
}

fn affine(point: &blst_p1_affine) -> G1Affine {
    let mut affine = G1Affine::default();
    *affine.as_mut() = *point;
    affine
}

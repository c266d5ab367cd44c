//! The curve on each engine alone: RFC 9380's vectors, products against pairings, the identity.

use crate::curve::scalar::Scalar;
use crate::curve::{Engine, Point};

/// RFC 9380, appendix J.9.1 (BLS12381G1_XMD:SHA-256_SSWU_RO_).
const RFC_DST: &[u8] = b"QUUX-V01-CS02-with-BLS12381G1_XMD:SHA-256_SSWU_RO_";

#[test]
fn hash_to_curve_gives_the_published_points() {
    let q128 = format!("q128_{}", "q".repeat(128));
    let a512 = format!("a512_{}", "a".repeat(512));
    let vectors = [
        (
            "",
            "052926add2207b76ca4fa57a8734416c8dc95e24501772c814278700eed6d1e4e8cf62d9c09db0fac349612b759e79a1",
            "08ba738453bfed09cb546dbb0783dbb3a5f1f566ed67bb6be0e8c67e2e81a4cc68ee29813bb7994998f3eae0c9c6a265",
        ),
        (
            "abc",
            "03567bc5ef9c690c2ab2ecdf6a96ef1c139cc0b2f284dca0a9a7943388a49a3aee664ba5379a7655d3c68900be2f6903",
            "0b9c15f3fe6e5cf4211f346271d7b01c8f3b28be689c8429c85b67af215533311f0b8dfaaa154fa6b88176c229f2885d",
        ),
        (
            "abcdef0123456789",
            "11e0b079dea29a68f0383ee94fed1b940995272407e3bb916bbf268c263ddd57a6a27200a784cbc248e84f357ce82d98",
            "03a87ae2caf14e8ee52e51fa2ed8eefe80f02457004ba4d486d6aa1f517c0889501dc7413753f9599b099ebcbbd2d709",
        ),
        (
            &q128,
            "15f68eaa693b95ccb85215dc65fa81038d69629f70aeee0d0f677cf22285e7bf58d7cb86eefe8f2e9bc3f8cb84fac488",
            "1807a1d50c29f430b8cafc4f8638dfeeadf51211e1602a5f184443076715f91bb90a48ba1e370edce6ae1062f5e6dd38",
        ),
        (
            &a512,
            "082aabae8b7dedb0e78aeb619ad3bfd9277a2f77ba7fad20ef6aabdc6c31d19ba5a6d12283553294c1825c4b3ca2dcfe",
            "05b84ae5a942248eea39e1d91030458c40153f3b654ab7872d779ad1e942856a20c438e8d99bc8abfbf74729ce1f7ac8",
        ),
    ];
    for (message, x, y) in vectors {
        let mut bytes = [0; 96];
        hex::decode_to_slice(format!("{x}{y}"), &mut bytes).unwrap();
        let fast = blstrs::Bls12::hash_to_curve(message.as_bytes(), RFC_DST);
        assert_eq!(fast.to_uncompressed(), bytes, "{message:?}");
        let portable = bls12_381::Bls12::hash_to_curve(message.as_bytes(), RFC_DST);
        assert_eq!(bls12_381::G1Affine::from(portable).to_uncompressed(), bytes, "{message:?}");
    }
}

/// Runs a test on each engine.
macro_rules! on_both {
    ($($test:ident)+) => {$(
        #[test]
        fn $test() {
            on::$test::<blstrs::Bls12>();
            on::$test::<bls12_381::Bls12>();
        }
    )+};
}

on_both! {
    hashing_many_is_hashing_each
    multi_scalar_products_are_sums_of_products
    pairings_with_the_identity_are_one
    pairings_are_bilinear
}

#[test]
fn lines_of_keys_are_kept() {
    use bls12_381::{Bls12, G2Affine};
    let key = Point::<G2Affine>::generator().mul(&Scalar::from_u128(7));
    let another_owner = key.clone();
    assert!(another_owner.lines.get().is_none());
    let message = Bls12::hash_to_g1(b"message", RFC_DST);
    let signature = message.mul(&Scalar::from_u128(7));
    assert!(Bls12::pairings_equal(&signature, Point::generator(), &message, &key));
    assert!(another_owner.lines.get().is_some() && Point::<G2Affine>::generator().lines.get().is_some());
}

mod on {
    use super::*;

    pub(super) fn hashing_many_is_hashing_each<E: Engine>() {
        let messages: Vec<[u8; 32]> = (0..40).map(|i| [i; 32]).collect();
        let each: Vec<_> = messages.iter().map(|m| E::hash_to_g1(m, RFC_DST)).collect();
        assert!(E::hash_all_to_g1(messages.iter().map(|m| m.as_slice()), RFC_DST) == each);
        assert!(E::hash_all_to_g1(std::iter::empty(), RFC_DST).is_empty());
    }

    pub(super) fn multi_scalar_products_are_sums_of_products<E: Engine>() {
        for n in [0_u128, 1, 2, 31, 32, 33, 100] {
            // Duplicates among the points, and extreme scalars.
            let points: Vec<_> = (0..n).map(|i| E::hash_to_g1(&[i as u8 / 2], RFC_DST)).collect();
            let scalars = (0..n)
                .map(|i| if i % 5 == 0 { u128::MAX } else { i.wrapping_mul(0x9e37_79b9_7f4a_7c15 << 60) });
            let terms: Vec<_> = scalars.zip(&points).collect();
            let mut sum = Point::identity();
            for (scalar, point) in &terms {
                sum = sum.add(&point.mul(&Scalar::from_u128(*scalar)));
            }
            assert!(E::msm_128(&terms) == sum, "{n}");
        }
    }

    pub(super) fn pairings_with_the_identity_are_one<E: Engine>() {
        let (p, q) = (E::hash_to_g1(b"p", RFC_DST), Point::generator());
        let (zero, identity) = (p.mul(&Scalar::zero()), Point::identity());
        assert!(zero.is_identity());
        assert!(E::pairing_product_is_one(&[]));
        assert!(E::pairing_product_is_one(&[(&zero, q), (&p, &identity)]));
        assert!(!E::pairing_product_is_one(&[(&zero, q), (&p, q)]));
        assert!(!E::pairings_equal(&p, q, &zero, q));
        assert!(E::pairings_equal(&zero, q, &p, &identity));
    }

    pub(super) fn pairings_are_bilinear<E: Engine>() {
        let (p, q) = (E::hash_to_g1(b"p", RFC_DST), Point::<E::G2Affine>::generator());
        let (a, b) = (Scalar::from_u128(0x1234_5678_9abc), Scalar::from_u128(u128::MAX));
        assert!(E::pairings_equal(&p.mul(&a), &q.mul(&b), &p.mul(&a.mul(&b)), q));
        assert!(E::pairings_equal(&p.mul(&a), q, &p, &q.mul(&a)));
        assert!(!E::pairings_equal(&p.mul(&a), q, &p, &q.mul(&b)));
    }
}

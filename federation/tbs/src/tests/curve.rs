//! The curve: RFC 9380's vectors, arithmetic against the engine's own, the integers of combination.

use blstrs::G1Affine;
use proptest::prelude::*;

use crate::curve::{
    G1, G2, Scalar, hash_all_to_g1, hash_to_g1, msm_128, pairing_product_is_one, pairings_equal,
};
use crate::lagrange::{MAX_GUARDIANS, coefficients, common_denominator, threshold};
use crate::tests::subsets;

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
        let expected = G1Affine::from_uncompressed(&bytes).unwrap();
        assert_eq!(
            hash_to_g1(message.as_bytes(), RFC_DST).to_bytes(),
            expected.to_compressed(),
            "{message:?}"
        );
    }
}

#[test]
fn hashing_many_is_hashing_each() {
    let messages: Vec<[u8; 32]> = (0..40).map(|i| [i; 32]).collect();
    let each: Vec<G1> = messages.iter().map(|m| hash_to_g1(m, RFC_DST)).collect();
    assert!(hash_all_to_g1(messages.iter().map(|m| m.as_slice()), RFC_DST) == each);
    assert!(hash_all_to_g1(std::iter::empty(), RFC_DST).is_empty());
}

#[test]
fn multi_scalar_products_are_sums_of_products() {
    for n in [0_u128, 1, 2, 31, 32, 33, 100] {
        // Duplicates among the points, and extreme scalars.
        let points: Vec<G1> = (0..n).map(|i| hash_to_g1(&[i as u8 / 2], RFC_DST)).collect();
        let scalars: Vec<u128> = (0..n)
            .map(|i| if i % 5 == 0 { u128::MAX } else { i.wrapping_mul(0x9e37_79b9_7f4a_7c15) })
            .collect();
        let sum = msm_128(scalars.iter().copied().zip(&points));
        let base = G2::generator();
        // Π e(cᵢ·Pᵢ, g2) · e(sum, −g2) = 1
        let products: Vec<G1> =
            points.iter().zip(&scalars).map(|(p, c)| p.mul(&Scalar::from_u128(*c))).collect();
        let minus = base.neg();
        let terms = products.iter().map(|p| (p, &base)).chain([(&sum, &minus)]);
        assert!(pairing_product_is_one(terms), "{n}");
    }
}

#[test]
fn pairings_with_the_identity_are_one() {
    let (p, q) = (hash_to_g1(b"p", RFC_DST), G2::generator());
    let (zero, identity) = (p.mul(&Scalar::zero()), G2::identity());
    assert!(zero.is_identity());
    assert!(pairing_product_is_one([(&zero, &q), (&p, &identity)].into_iter()));
    assert!(!pairing_product_is_one([(&zero, &q), (&p, &q)].into_iter()));
    assert!(!pairings_equal(&p, &q, &zero, &q));
}

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
                let mut sum = blstrs::Scalar::from(0);
                for (i, c) in set.iter().zip(&coefficients) {
                    let power = ff::Field::pow_vartime(&blstrs::Scalar::from(u64::from(*i) + 1), [k as u64]);
                    sum += signed(*c) * power;
                }
                assert_eq!(sum, signed(if k == 0 { d } else { 0 }), "n = {n}, power {k}");
            }
        }
    }
}

fn signed(value: i128) -> blstrs::Scalar {
    let two_to_64 = blstrs::Scalar::from(1 << 32) * blstrs::Scalar::from(1 << 32);
    let value_abs = value.unsigned_abs();
    let scalar =
        blstrs::Scalar::from((value_abs >> 64) as u64) * two_to_64 + blstrs::Scalar::from(value_abs as u64);
    if value < 0 { -scalar } else { scalar }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn scalars_compute_as_the_reference(wide in any::<[u8; 32]>(), high in any::<[u8; 32]>()) {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&wide);
        bytes[32..].copy_from_slice(&high);
        let ours = Scalar::from_bytes_wide(&bytes);
        let reference = bls12_381::Scalar::from_bytes_wide(&bytes);
        let big_endian = |scalar: bls12_381::Scalar| {
            let mut bytes = scalar.to_bytes();
            bytes.reverse();
            bytes
        };
        prop_assert_eq!(*ours.to_bytes(), big_endian(reference));
        prop_assert_eq!(*ours.invert().to_bytes(), big_endian(reference.invert().unwrap()));
        prop_assert_eq!(*ours.mul(&ours).add(&ours).to_bytes(), big_endian(reference * reference + reference));
    }
}

//! The two engines agree on everything, byte for byte and error for error.

use proptest::prelude::*;

use crate::curve::scalar::Scalar;
use crate::curve::{Affine, Engine, G1Of as G1, G2Of as G2, Point};

type Fast = blstrs::Bls12;
type Portable = bls12_381::Bls12;
type Fr<E> = Scalar<<E as pairing::Engine>::Fr>;

const DST: &[u8] = b"QUUX-V01-CS02-with-BLS12381G1_XMD:SHA-256_SSWU_RO_";
/// The field's prime, big-endian.
const PRIME: &str =
    "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab";
/// The group order, big-endian.
const ORDER: &str = "73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001";

/// The same computation on both engines, compared.
macro_rules! agree {
    ($function:ident($($argument:expr),*)) => {
        prop_assert_eq!($function::<Fast>($($argument),*), $function::<Portable>($($argument),*))
    };
}

/// What an engine says of bytes: the point's encoding or the error.
fn decode<A: Affine<Bytes = [u8; N]>, const N: usize>(bytes: &[u8; N]) -> String {
    match Point::<A>::from_bytes(bytes) {
        Ok(point) => hex::encode(point.to_bytes()),
        Err(error) => error.to_string(),
    }
}

fn decode_g1<E: Engine<G1Affine: Affine<Bytes = [u8; 48]>>>(bytes: &[u8; 48]) -> String {
    decode::<E::G1Affine, 48>(bytes)
}

fn decode_g2<E: Engine<G2Affine: Affine<Bytes = [u8; 96]>>>(bytes: &[u8; 96]) -> String {
    decode::<E::G2Affine, 96>(bytes)
}

fn g1<E: Engine>(seed: u8) -> G1<E> {
    E::hash_to_g1(&[seed], DST)
}

fn g2<E: Engine>(seed: u8) -> G2<E> {
    G2::<E>::generator().mul(&Fr::<E>::from_u128(u128::from(seed) + 2))
}

fn hash<E: Engine<G1Affine: Affine<Bytes = [u8; 48]>>>(message: &[u8], dst: &[u8]) -> [u8; 48] {
    E::hash_to_g1(message, dst).to_bytes()
}

/// Both groups' sums, differences, multiples, small combinations and polynomials, as bytes.
fn arithmetic<E>(seeds: [u8; 2], wide: &[u8; 64], small: [i64; 2], x: u64) -> Vec<Vec<u8>>
where
    E: Engine<G1Affine: Affine<Bytes = [u8; 48]>, G2Affine: Affine<Bytes = [u8; 96]>>,
{
    fn of<A: Affine>(
        a: &Point<A>,
        b: &Point<A>,
        c: &Scalar<A::Scalar>,
        n: [i64; 2],
        x: u64,
    ) -> Vec<Point<A>> {
        vec![
            a.add(b),
            a.add(&b.neg()),
            a.add(a),
            a.add(&a.neg()),
            a.add(&Point::identity()),
            a.mul(c),
            a.mul(&Scalar::zero()),
            Point::identity().mul(c),
            Point::small_sum(&[(i128::from(n[0]), a), (i128::from(n[1]), b), (-1, a)]),
            Point::horner(&[a.clone(), b.clone(), a.neg(), b.mul(c)], x),
        ]
    }
    let c = Fr::<E>::from_bytes_wide(wide);
    let in_g1 = of(&g1::<E>(seeds[0]), &g1::<E>(seeds[1]), &c, small, x);
    let in_g2 = of(&g2::<E>(seeds[0]), &g2::<E>(seeds[1]), &c, small, x);
    in_g1.iter().map(|p| p.to_bytes().to_vec()).chain(in_g2.iter().map(|p| p.to_bytes().to_vec())).collect()
}

/// What can be computed of two scalars, as bytes.
fn scalars<E: Engine>(wide: [&[u8; 64]; 2], small: u128, x: u64) -> Vec<[u8; 32]> {
    let [a, b] = wide.map(Fr::<E>::from_bytes_wide);
    let c = Fr::<E>::from_u128(small);
    let zero = Fr::<E>::zero();
    assert_eq!((zero.is_zero(), Fr::<E>::one().is_zero()), (true, false));
    let all = [
        a.add(&b),
        a.mul(&b),
        a.invert(),
        zero.invert(),
        Fr::<E>::one().add(&a),
        Fr::<E>::horner(&[a.clone(), b.clone(), c.clone()], x),
        Fr::<E>::from_bytes(&a.to_bytes()).unwrap(),
        a,
        b,
        c,
    ];
    all.iter().map(|scalar| *scalar.to_bytes()).collect()
}

fn decode_scalar<E: Engine>(bytes: &[u8; 32]) -> String {
    Fr::<E>::from_bytes(bytes).map_or_else(|error| error.to_string(), |s| hex::encode(s.to_bytes()))
}

fn msm<E: Engine<G1Affine: Affine<Bytes = [u8; 48]>>>(terms: &[(u128, u8, bool)]) -> [u8; 48] {
    let points: Vec<G1<E>> =
        terms.iter().map(|(_, seed, neg)| if *neg { g1::<E>(*seed).neg() } else { g1::<E>(*seed) }).collect();
    let terms: Vec<_> = terms.iter().map(|(scalar, _, _)| *scalar).zip(&points).collect();
    E::msm_128(&terms).to_bytes()
}

/// Pairs (a·P, b·Q), and the last one such that the product is one, moved by `error`.
fn pairing<E: Engine>(factors: &[(u64, u64)], error: u64) -> bool {
    let scalar = |n: u128| Fr::<E>::from_u128(n);
    let (p, q) = (g1::<E>(0), g2::<E>(0));
    let mut sum = scalar(u128::from(error));
    let mut pairs = Vec::new();
    for (a, b) in factors {
        let (a, b) = (scalar(u128::from(*a)), scalar(u128::from(*b)));
        sum = sum.add(&a.mul(&b));
        pairs.push((p.mul(&a), q.mul(&b)));
    }
    pairs.push((p.mul(&sum).neg(), q));
    E::pairing_product_is_one(&pairs.iter().map(|(p, q)| (p, q)).collect::<Vec<_>>())
}

fn number<const N: usize>(hex: &str, plus: i8) -> [u8; N] {
    let mut bytes = [0; N];
    hex::decode_to_slice(hex, &mut bytes).unwrap();
    bytes[N - 1] = bytes[N - 1].checked_add_signed(plus).unwrap();
    bytes
}

#[test]
fn the_edges_of_the_encodings() {
    let mut verdicts = std::collections::BTreeSet::new();
    let prime: [[u8; 48]; 3] = [-1, 0, 1].map(|plus| number(PRIME, plus));
    let small = |x: u8| {
        let mut bytes = [0; 48];
        bytes[47] = x;
        bytes
    };
    let xs: Vec<[u8; 48]> = (0..=255).map(small).chain(prime).chain([[0x1f; 48], [0xff; 48]]).collect();
    for x in &xs {
        for flags in 0..8 {
            let mut bytes = *x;
            bytes[0] = (bytes[0] & 0x1f) | (flags << 5);
            let verdict = decode_g1::<Fast>(&bytes);
            assert_eq!(verdict, decode_g1::<Portable>(&bytes), "{bytes:02x?}");
            verdicts.insert(verdict);
            // As either half of an x in the larger field.
            for (high, low) in [(bytes, small(0)), (bytes, small(1)), (bytes, prime[1])] {
                let mut both = [0; 96];
                both[..48].copy_from_slice(&high);
                both[48..].copy_from_slice(&low);
                let verdict = decode_g2::<Fast>(&both);
                assert_eq!(verdict, decode_g2::<Portable>(&both), "{both:02x?}");
                verdicts.insert(verdict);
            }
        }
    }
    // The identity, points off the curve and points outside the subgroup were all among them.
    let expected =
        ["the identity point", "a point outside the prime-order subgroup", "not a point of the curve"];
    for reason in expected {
        assert!(verdicts.iter().any(|verdict| verdict.starts_with(reason)), "{reason}");
    }
    let order: [[u8; 32]; 3] = [-1, 0, 1].map(|plus| number(ORDER, plus));
    for bytes in order.into_iter().chain([[0; 32], [0xff; 32]]) {
        assert_eq!(decode_scalar::<Fast>(&bytes), decode_scalar::<Portable>(&bytes));
    }
    assert!(Fr::<Portable>::from_bytes(&order[0]).is_ok() && Fr::<Portable>::from_bytes(&order[1]).is_err());
}

#[test]
fn generators_and_identities() {
    assert_eq!(G1::<Fast>::generator().to_bytes(), G1::<Portable>::generator().to_bytes());
    assert_eq!(G2::<Fast>::generator().to_bytes(), G2::<Portable>::generator().to_bytes());
    assert_eq!(G1::<Fast>::identity().to_bytes(), G1::<Portable>::identity().to_bytes());
    assert_eq!(G2::<Fast>::identity().to_bytes(), G2::<Portable>::identity().to_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Random bytes with any flags: half of the compressed ones are on the curve, none in the subgroup.
    #[test]
    fn on_random_bytes(mut in_g1 in any::<[u8; 48]>(), mut in_g2 in any::<[u8; 96]>(), flags in 0_u8..8) {
        in_g1[0] = (in_g1[0] & 0x1f) | (flags << 5);
        in_g2[0] = (in_g2[0] & 0x1f) | (flags << 5);
        agree!(decode_g1(&in_g1));
        agree!(decode_g2(&in_g2));
    }

    /// Valid points with some bits flipped: mostly off the curve or outside the subgroup, sometimes the negative.
    #[test]
    fn on_flipped_bits(seed in 0_u8..16, bits in prop::collection::vec(0_usize..768, 0..3)) {
        let (mut in_g1, mut in_g2) = (g1::<Fast>(seed).to_bytes(), g2::<Fast>(seed).to_bytes());
        for bit in bits {
            in_g1[bit % 384 / 8] ^= 1 << (bit % 8);
            in_g2[bit / 8] ^= 1 << (bit % 8);
        }
        agree!(decode_g1(&in_g1));
        agree!(decode_g2(&in_g2));
    }

    #[test]
    fn on_encodings_of_scalars(mut bytes in any::<[u8; 32]>(), high in prop::sample::select(vec![0, 0x73, 0x74, 0xff])) {
        agree!(decode_scalar(&bytes));
        bytes[0] = high;
        agree!(decode_scalar(&bytes));
    }

    #[test]
    fn on_scalars(a in any::<[u8; 64]>(), b in any::<[u8; 64]>(), small in any::<u128>(), x in any::<u64>()) {
        agree!(scalars([&a, &b], small, x));
        agree!(scalars([&[0; 64], &[0xff; 64]], small, x));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn on_hashes(
        message in prop::collection::vec(any::<u8>(), 0..300),
        dst in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        agree!(hash(&message, &dst));
    }

    #[test]
    fn on_points(
        seeds in any::<[u8; 2]>(),
        (low, high) in any::<([u8; 32], [u8; 32])>(),
        small in any::<[i64; 2]>(),
        x in any::<u64>(),
    ) {
        let wide: [u8; 64] = [low, high].concat().try_into().unwrap();
        agree!(arithmetic(seeds, &wide, small, x));
        // The same point twice, and a number that is a multiple of the order.
        agree!(arithmetic([seeds[0]; 2], &[0; 64], small, x));
    }

    #[test]
    fn on_multi_scalar_products(
        terms in prop::collection::vec(
            (prop_oneof![Just(0), Just(1), Just(u128::MAX), any::<u128>()], 0_u8..32, any::<bool>()),
            0..70,
        ),
    ) {
        agree!(msm(&terms));
    }

    #[test]
    fn on_pairings(
        factors in prop::collection::vec((any::<u64>(), any::<u64>()), 0..6),
        error in prop_oneof![Just(0), any::<u64>()],
    ) {
        agree!(pairing(&factors, error));
        prop_assert_eq!(pairing::<Fast>(&factors, error), error == 0);
    }
}

//! Encodings: one for each value, and nothing else accepted.

use borsh::{BorshDeserialize, BorshSerialize};
use proptest::prelude::*;

use crate::error::EncodingError;
use crate::{BlindedMessage, BlindingKey, PublicKey, SecretKeyShare, Signature, blind};

/// The group order, big-endian.
const ORDER: &str = "73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001";
/// The field's prime, big-endian.
const PRIME: &str =
    "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab";

fn g1_sample(seed: u8) -> BlindedMessage {
    blind(&[seed; 32], &BlindingKey::from_bytes_wide([seed.wrapping_add(1); 64]))
}

fn g2_sample(seed: u8) -> PublicKey {
    let share = SecretKeyShare::from_bytes(&[seed % 0x70 + 1; 32]).unwrap();
    PublicKey(share.public().0)
}

pub(super) fn infinity<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    bytes[0] = 0xc0;
    bytes
}

/// A point on the curve outside the subgroup: nearly every small x that is on the curve at all.
pub(super) fn outside_g1() -> [u8; 48] {
    (1..=255)
        .map(|x| {
            let mut bytes = [0; 48];
            (bytes[0], bytes[47]) = (0x80, x);
            bytes
        })
        .find(|bytes| {
            let point = bls12_381::G1Affine::from_compressed_unchecked(bytes);
            Option::<bls12_381::G1Affine>::from(point).is_some_and(|p| !bool::from(p.is_torsion_free()))
        })
        .unwrap()
}

pub(super) fn outside_g2() -> [u8; 96] {
    (1..=255)
        .map(|x| {
            let mut bytes = [0; 96];
            (bytes[0], bytes[95]) = (0x80, x);
            bytes
        })
        .find(|bytes| {
            let point = bls12_381::G2Affine::from_compressed_unchecked(bytes);
            Option::<bls12_381::G2Affine>::from(point).is_some_and(|p| !bool::from(p.is_torsion_free()))
        })
        .unwrap()
}

#[test]
fn bad_points_are_refused_with_their_reason() {
    assert_eq!(BlindedMessage::from_bytes(&infinity()), Err(EncodingError::Identity));
    assert_eq!(PublicKey::from_bytes(&infinity()), Err(EncodingError::Identity));
    assert_eq!(BlindedMessage::from_bytes(&outside_g1()), Err(EncodingError::NotInSubgroup));
    assert_eq!(PublicKey::from_bytes(&outside_g2()), Err(EncodingError::NotInSubgroup));
    // Uncompressed flag, x beyond the field (a second encoding of a small x), infinity with a sign.
    let valid = g1_sample(1).to_bytes();
    let mut uncompressed = valid;
    uncompressed[0] &= 0x7f;
    let mut beyond = [0; 48];
    hex::decode_to_slice(PRIME, &mut beyond).unwrap();
    beyond[0] |= 0x80;
    let mut signed_infinity: [u8; 48] = infinity();
    signed_infinity[0] |= 0x20;
    for bytes in [uncompressed, beyond, signed_infinity, [0; 48], [0xff; 48]] {
        assert_eq!(Signature::from_bytes(&bytes), Err(EncodingError::NotOnCurve), "{bytes:02x?}");
    }
}

#[test]
fn wrong_lengths_are_refused() {
    let bytes = g1_sample(1).to_bytes();
    for length in [0, 1, 47] {
        let expected = Err(EncodingError::Length { expected: 48, got: length });
        assert_eq!(BlindedMessage::try_from(&bytes[..length]), expected);
        assert!(borsh::from_slice::<BlindedMessage>(&bytes[..length]).is_err());
    }
    let long = [bytes.as_slice(), &[0]].concat();
    assert_eq!(
        BlindedMessage::try_from(long.as_slice()),
        Err(EncodingError::Length { expected: 48, got: 49 })
    );
    assert!(borsh::from_slice::<BlindedMessage>(&long).is_err());
    assert!("".parse::<PublicKey>().is_err());
    assert!(format!("{}0", g2_sample(1)).parse::<PublicKey>().is_err());
}

#[test]
fn scalars_are_canonical_and_not_zero() {
    let mut order = [0; 32];
    hex::decode_to_slice(ORDER, &mut order).unwrap();
    let mut below = order;
    below[31] -= 1;
    assert!(SecretKeyShare::from_bytes(&below).is_ok());
    for bytes in [order, [0; 32], [0xff; 32]] {
        assert_eq!(SecretKeyShare::from_bytes(&bytes), Err(EncodingError::Scalar));
        assert_eq!(BlindingKey::from_bytes(&bytes), Err(EncodingError::Scalar));
        assert!(borsh::from_slice::<SecretKeyShare>(&bytes).is_err());
    }
    // Zero bytes can't be undone: they don't become a key of zero.
    assert!(!BlindingKey::from_bytes_wide([0; 64]).0.is_zero());
}

#[test]
fn secrets_are_not_printed() {
    let share = SecretKeyShare::from_bytes(&[0x42; 32]).unwrap();
    assert_eq!(format!("{share:?}"), "SecretKeyShare(…)");
    assert_eq!(format!("{:?}", BlindingKey::from_bytes_wide([1; 64])), "BlindingKey(…)");
}

fn round_trip<T>(value: &T, bytes: &[u8])
where
    T: BorshSerialize + BorshDeserialize + serde::Serialize + serde::de::DeserializeOwned,
    T: PartialEq + std::fmt::Debug,
{
    assert_eq!(borsh::to_vec(value).unwrap(), bytes);
    assert_eq!(&borsh::from_slice::<T>(bytes).unwrap(), value);
    let json = serde_json::to_string(value).unwrap();
    assert_eq!(json, format!("\"{}\"", hex::encode(bytes)));
    assert_eq!(&serde_json::from_str::<T>(&json).unwrap(), value);
    assert!(serde_json::from_str::<T>(&json.to_uppercase()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn points_survive_their_encodings(seed in 0_u8..=254) {
        let point = g1_sample(seed);
        round_trip(&point, &point.to_bytes());
        let key = g2_sample(seed);
        round_trip(&key, &key.to_bytes());
    }

    #[test]
    fn secrets_survive_their_encoding(bytes in any::<[u8; 64]>()) {
        let key = BlindingKey::from_bytes_wide(bytes);
        prop_assert_eq!(&borsh::from_slice::<BlindingKey>(&borsh::to_vec(&key).unwrap()).unwrap(), &key);
        let share = SecretKeyShare::from_bytes(&key.to_bytes()).unwrap();
        prop_assert_eq!(borsh::to_vec(&share).unwrap(), share.to_bytes().to_vec());
    }
}

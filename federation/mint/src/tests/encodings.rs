//! Every encoding round-trips, and nothing that comes in makes anything panic.

use bitcoin::secp256k1::SecretKey;
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::FederationId;
use federation_core::encoding::{decode, encode};
use federation_core::transaction::MAX_PARTS;
use federation_core::{OutPoint, TxId};
use federation_tbs::{BlindedMessage, BlindingKey, Signature, blind, unblind};
use proptest::prelude::*;

use super::federation::{Federation, ID, config, denomination};
use crate::client::{ECash, MAX_ECASH_TEXT, Note};
use crate::{
    Denomination, MintConfig, MintError, MintParams, NoteInput, NoteOutput, PartialSignature,
    PartialSignatures, PointBytes,
};

fn round_trip<T: BorshSerialize + BorshDeserialize + PartialEq + std::fmt::Debug>(value: &T) {
    assert_eq!(&decode::<T>(&encode(value), usize::MAX).unwrap(), value);
}

/// Any point will do for an encoding.
fn point(seed: u8) -> BlindedMessage {
    blind(&[seed], &BlindingKey::from_bytes_wide([7; 64]))
}

fn signature(seed: u8) -> Signature {
    let message = encode(&point(seed));
    unblind(&decode(&message, 48).unwrap(), &BlindingKey::from_bytes_wide([8; 64]))
}

fn note(seed: u8, exponent: u8) -> Note {
    Note::new(denomination(exponent), signature(seed), SecretKey::from_slice(&[seed.max(1); 32]).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn bodies(seed in any::<u8>(), exponent in 0..64u8, index in any::<u16>(), txid in any::<[u8; 32]>()) {
        let input = NoteInput { denomination: denomination(exponent), signature: PointBytes(signature(seed).to_bytes()) };
        let output = NoteOutput { denomination: denomination(exponent), blinded_nonce: point(seed) };
        round_trip(&input);
        round_trip(&output);
        prop_assert_eq!(&serde_json::from_str::<NoteInput>(&serde_json::to_string(&input).unwrap()).unwrap(), &input);
        prop_assert_eq!(&serde_json::from_str::<NoteOutput>(&serde_json::to_string(&output).unwrap()).unwrap(), &output);
        let share = PointBytes(point(seed).to_bytes());
        prop_assert_eq!(encode(&share), encode(&point(seed)));
        prop_assert_eq!(serde_json::to_value(share).unwrap(), serde_json::to_value(point(seed)).unwrap());
        round_trip(&PartialSignatures(vec![PartialSignature { point: OutPoint { txid: TxId(txid), index }, share }]));
    }

    #[test]
    fn ecash(seeds in proptest::collection::btree_set(1..255u8, 1..6), exponent in 0..64u8) {
        let notes = seeds.into_iter().map(|seed| note(seed, exponent)).collect();
        let ecash = ECash { federation: FederationId([9; 32]), notes };
        let text = ecash.to_string();
        prop_assert!(text.starts_with("clnecash1"));
        prop_assert_eq!(&text.parse::<ECash>().unwrap(), &ecash);
        prop_assert_eq!(&text.to_uppercase().parse::<ECash>().unwrap(), &ecash);
        prop_assert_eq!(&format!(" {text}\n").parse::<ECash>().unwrap(), &ecash);
    }

    #[test]
    fn any_text_is_no_ecash(text in "(clnecash1)?\\PC{0,200}") {
        prop_assert!(text.parse::<ECash>().is_err());
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode::<NoteInput>(&bytes, 200);
        let _ = decode::<NoteOutput>(&bytes, 200);
        let _ = decode::<PartialSignatures>(&bytes, 200);
        let _ = decode::<Note>(&bytes, 200);
        let _ = decode::<ECash>(&bytes, 200);
        let _ = decode::<MintConfig>(&bytes, 200);
    }
}

#[test]
fn exponents_end_at_63() {
    assert_eq!(denomination(63).amount().msat(), 1 << 63);
    assert!(Denomination::new(64).is_err());
    assert!(decode::<Denomination>(&[64], 1).is_err());
    assert!(serde_json::from_str::<Denomination>("64").is_err());
    assert_eq!(serde_json::to_string(&denomination(5)).unwrap(), "5");
}

#[test]
fn the_configuration_in_both_encodings() {
    let config = config(MintParams::default());
    round_trip(&config);
    assert_eq!(serde_json::from_str::<MintConfig>(&serde_json::to_string(&config).unwrap()).unwrap(), config);
}

#[test]
fn ecash_is_bounded_and_says_what_is_wrong() {
    let ecash = |notes| ECash { federation: ID, notes };
    let full = ecash(
        (0..MAX_PARTS)
            .map(|n| {
                let mut key = [1; 32];
                key[..8].copy_from_slice(&(n as u64).to_be_bytes());
                Note::new(denomination(0), signature(0), SecretKey::from_slice(&key).unwrap())
            })
            .collect(),
    );
    let text = full.to_string();
    assert_eq!(text.len(), MAX_ECASH_TEXT);
    assert_eq!(text.parse::<ECash>().unwrap(), full);
    let mut typo = text.into_bytes();
    typo[5000] = if typo[5000] == b'q' { b'p' } else { b'q' };
    assert!(matches!(String::from_utf8(typo).unwrap().parse::<ECash>(), Err(MintError::Text(_))));

    let twice = ecash(vec![note(1, 0), note(1, 1)]).to_string();
    assert_eq!(twice.parse::<ECash>(), Err(MintError::DuplicateNote));
    assert_eq!(ecash(vec![]).to_string().parse::<ECash>(), Err(MintError::NoNotes));
    assert!(matches!("lnbc1xyz".parse::<ECash>(), Err(MintError::Text(_))));
}

#[tokio::test]
async fn ecash_is_checked_against_its_federation() {
    let mut federation = Federation::new(4, MintParams::default());
    let mut notes = federation.issue(&[0, 4]).await;
    let config = federation.config.clone();
    let ecash = ECash { federation: ID, notes: notes.clone() };
    assert_eq!(ecash.check(ID, &config).unwrap().msat(), 17);
    assert_eq!(ecash.check(FederationId([0; 32]), &config), Err(MintError::OtherFederation(ID)));
    notes[0].denomination = denomination(1);
    assert_eq!(
        ECash { federation: ID, notes: notes.clone() }.check(ID, &config),
        Err(MintError::BadNotes(1))
    );
    notes[0].denomination = denomination(10);
    let unknown = Err(MintError::UnknownDenomination(denomination(10)));
    assert_eq!(ECash { federation: ID, notes }.check(ID, &config), unknown);
}

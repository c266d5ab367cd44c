//! Everything here that reads bytes or texts from strangers: garbage and damage never panic, and what is read is written the
//! same way again, so that nothing has two encodings.

use bitcoin::Network;
use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use borsh::{BorshDeserialize, BorshSerialize};
use proptest::prelude::*;

use crate::config::{ConsensusConfig, GuardianKeys, ModuleConfig};
use crate::encoding::{decode, encode};
use crate::invite::InviteCode;
use crate::{ConsensusItem, FederationId, Input, ModuleId, OutPoint, Output, PeerId, Transaction};

fn key() -> Keypair {
    Keypair::from_secret_key(SECP256K1, &SecretKey::from_slice(&[7; 32]).unwrap())
}

fn transaction(body: Vec<u8>) -> Transaction {
    let key = key();
    let input = Input { module: ModuleId(0), key: key.x_only_public_key().0, body: body.clone() };
    Transaction::sign(FederationId([1; 32]), vec![input], vec![Output { module: ModuleId(1), body }], &[key])
}

fn config() -> ConsensusConfig {
    let keys = GuardianKeys { identity: key().x_only_public_key().0, certificate: [2; 32] };
    let module = ModuleConfig { kind: "mint".to_owned(), config: vec![1, 2, 3] };
    ConsensusConfig {
        version: 1,
        name: "test".to_owned(),
        network: Network::Regtest,
        guardians: (0..3).map(|peer| (PeerId(peer), keys.clone())).collect(),
        coin_keys: vec![4; 20],
        modules: [(ModuleId(0), module.clone()), (ModuleId(1), module)].into(),
    }
}

fn invite() -> InviteCode {
    InviteCode {
        federation: FederationId([3; 32]),
        api_urls: vec!["http://a".to_owned(), "http://b".to_owned()],
    }
}

/// Read or refused, and never read in two ways.
fn canonical<T: BorshSerialize + BorshDeserialize>(bytes: &[u8]) -> Result<bool, TestCaseError> {
    match decode::<T>(bytes, 10_000) {
        Ok(value) => {
            prop_assert_eq!(encode(&value), bytes);
            Ok(true)
        }
        Err(_) => Ok(false),
    }
}

fn any_of_them(bytes: &[u8]) -> Result<(), TestCaseError> {
    canonical::<Transaction>(bytes)?;
    canonical::<ConsensusConfig>(bytes)?;
    canonical::<ConsensusItem>(bytes)?;
    canonical::<InviteCode>(bytes)?;
    canonical::<OutPoint>(bytes)?;
    if let Ok(transaction) = Transaction::from_bytes(bytes) {
        prop_assert_eq!(encode(&transaction), bytes);
        // Whatever it is, it can be looked at.
        let _ = (transaction.hash(), transaction.check_signatures(FederationId([1; 32])));
    }
    Ok(())
}

fn damaged(mut bytes: Vec<u8>, place: prop::sample::Index, byte: u8, cut: usize, more: &[u8]) -> Vec<u8> {
    let place = place.index(bytes.len());
    bytes[place] = byte;
    bytes.truncate(bytes.len().saturating_sub(cut));
    bytes.extend_from_slice(more);
    bytes
}

#[test]
fn a_map_out_of_order_is_refused() {
    let pairs: Vec<(u16, u8)> = vec![(1, 7), (0, 7)];
    assert!(decode::<std::collections::BTreeMap<u16, u8>>(&encode(&pairs), 100).is_err());
    let pairs: Vec<(u16, u8)> = vec![(1, 7), (1, 7)];
    assert!(decode::<std::collections::BTreeMap<u16, u8>>(&encode(&pairs), 100).is_err());
}

#[test]
fn what_is_right_is_read() {
    assert!(canonical::<Transaction>(&encode(&transaction(vec![1]))).unwrap());
    assert!(canonical::<ConsensusConfig>(&encode(&config())).unwrap());
    assert!(canonical::<InviteCode>(&encode(&invite())).unwrap());
}

proptest! {
    #[test]
    fn garbage(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        any_of_them(&bytes)?;
    }

    #[test]
    fn damage(
        which in 0..3, place: prop::sample::Index, byte: u8, cut in prop_oneof![3 => Just(0usize), 1 => 0usize..20],
        more in prop_oneof![3 => Just(vec![]), 1 => proptest::collection::vec(any::<u8>(), 0..5)],
        body in proptest::collection::vec(any::<u8>(), 0..50),
    ) {
        let bytes = match which {
            0 => encode(&transaction(body)),
            1 => encode(&config()),
            _ => encode(&invite()),
        };
        any_of_them(&damaged(bytes, place, byte, cut, &more))?;
    }

    #[test]
    fn invite_texts(text in "(clnfed1)?[ -~]{0,120}") {
        if let Ok(invite) = text.parse::<InviteCode>() {
            prop_assert_eq!(invite.to_string(), text.trim().to_lowercase());
        }
    }

    #[test]
    fn a_damaged_invite_is_noticed(place: prop::sample::Index, letter in "[ -~]") {
        let text = invite().to_string();
        let place = place.index(text.len());
        let mut damaged = text.clone();
        damaged.replace_range(place..=place, &letter);
        prop_assert!(damaged == text || damaged.parse::<InviteCode>().is_err(), "{}", damaged);
    }

    #[test]
    fn transactions_in_json(text in "[ -~]{0,200}", cut: prop::sample::Index, letter in "[ -~]") {
        let _ = serde_json::from_str::<Transaction>(&text);
        let mut json = serde_json::to_string(&transaction(vec![1, 2])).unwrap();
        let place = cut.index(json.len());
        json.replace_range(place..=place, &letter);
        if let Ok(transaction) = serde_json::from_str::<Transaction>(&json) {
            let again = serde_json::to_string(&transaction).unwrap();
            prop_assert_eq!(serde_json::from_str::<Transaction>(&again).unwrap(), transaction);
        }
    }

    #[test]
    fn ids_of_any_text(text in "[ -~]{0,80}") {
        if let Ok(id) = text.parse::<crate::TxId>() {
            prop_assert_eq!(id.to_string(), text.to_lowercase());
        }
    }
}

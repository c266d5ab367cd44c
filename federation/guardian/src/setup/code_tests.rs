//! Setup codes from strangers: read or refused, and what is read is written the same way.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bitcoin::Network;
use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::secp256k1::{SECP256K1, SecretKey};
use federation_core::config::{Endpoint, GuardianKeys};
use federation_core::encoding::encode;
use proptest::prelude::*;

use super::code::{FederationParams, SetupCode};

fn code() -> SetupCode {
    SetupCode {
        endpoint: Endpoint {
            name: "alice".to_owned(),
            api_url: "http://127.0.0.1:1".to_owned(),
            link_address: "127.0.0.1:2".to_owned(),
        },
        keys: GuardianKeys {
            identity: SecretKey::from_slice(&[3; 32]).unwrap().x_only_public_key(SECP256K1).0,
            certificate: [1; 32],
        },
        network: Network::Regtest,
        federation: Some(FederationParams::new("test", 4, Network::Regtest)),
    }
}

/// A text whose checksum is right, whatever is in it.
fn sealed(bytes: &[u8]) -> String {
    let sum = sha256::Hash::hash(bytes).to_byte_array();
    format!("clnguardian1-{}", URL_SAFE_NO_PAD.encode([bytes, &sum[..4]].concat()))
}

fn canonical(text: &str) -> Result<(), TestCaseError> {
    if let Ok(code) = text.parse::<SetupCode>() {
        prop_assert_eq!(code.to_string(), text.trim());
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_text(text in "(clnguardian1-)?[ -~]{0,200}") {
        canonical(&text)?;
    }

    #[test]
    fn any_bytes_with_a_right_checksum(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        canonical(&sealed(&bytes))?;
    }

    #[test]
    fn a_damaged_code_with_a_right_checksum(place: prop::sample::Index, byte: u8, cut in 0usize..40) {
        let mut bytes = encode(&code());
        let place = place.index(bytes.len());
        bytes[place] = byte;
        bytes.truncate(bytes.len() - cut);
        canonical(&sealed(&bytes))?;
    }

    #[test]
    fn damage_without_a_new_checksum_is_noticed(place: prop::sample::Index, letter in "[A-Za-z0-9_-]") {
        let text = code().to_string();
        let place = place.index(text.len());
        let mut damaged = text.clone();
        damaged.replace_range(place..=place, &letter);
        prop_assert!(damaged == text || damaged.parse::<SetupCode>().is_err(), "{}", damaged);
    }
}

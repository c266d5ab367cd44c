//! The twelve words, and what is derived from them.

use bip39::Mnemonic;
use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use federation_core::FederationId;
use hkdf::Hkdf;
use rand::RngCore as _;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{ClientError, Result};

/// Twelve BIP-39 words, the backup of a wallet; wiped when dropped.
#[derive(Clone)]
pub struct Words(Zeroizing<String>);

impl Words {
    /// Twelve fresh words: 128 bits from the system.
    ///
    /// # Errors
    /// Never in practice: only if the word list refused the entropy's length.
    pub fn generate() -> Result<Self> {
        let mut entropy = Zeroizing::new([0; 16]);
        rand::rngs::OsRng.fill_bytes(entropy.as_mut());
        let mnemonic = Mnemonic::from_entropy(entropy.as_ref()).map_err(wrong)?;
        Ok(Self(Zeroizing::new(mnemonic.to_string())))
    }

    /// Words typed by a person, or read from a file.
    ///
    /// # Errors
    /// [`ClientError::Words`]: an unknown word, a wrong number of them, or a wrong checksum.
    pub fn parse(text: &str) -> Result<Self> {
        let text = Zeroizing::new(text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase());
        let mnemonic = Mnemonic::parse_normalized(&text).map_err(wrong)?;
        Ok(Self(Zeroizing::new(mnemonic.to_string())))
    }

    /// The words, separated by spaces. For the user's eyes only.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The BIP-39 seed, without a passphrase.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn seed(&self) -> Result<Zeroizing<[u8; 64]>> {
        let mnemonic = Mnemonic::parse_normalized(&self.0).map_err(wrong)?;
        Ok(Zeroizing::new(mnemonic.to_seed_normalized("")))
    }
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Words(…)")
    }
}

fn wrong(error: bip39::Error) -> ClientError {
    ClientError::Words(format!("these are not the words of a wallet: {error}. Check spelling and order"))
}

/// A key for a purpose of the program's own, by HKDF-SHA256 (RFC 5869): apart from those of the modules by its salt, and for
/// each federation.
pub(crate) fn derive_key(
    seed: &[u8; 64],
    federation: FederationId,
    purpose: &str,
    index: u64,
) -> Result<Keypair> {
    let hkdf = Hkdf::<Sha256>::new(Some(b"cln-federation/client"), seed);
    // All but one in 2^128 are keys.
    for attempt in 0..4u8 {
        let mut bytes = Zeroizing::new([0; 32]);
        let info = [purpose.as_bytes(), &[0], &federation.0, &index.to_be_bytes(), &[attempt]];
        hkdf.expand_multi_info(&info, bytes.as_mut())
            .map_err(|error| ClientError::Internal(error.to_string()))?;
        if let Ok(key) = SecretKey::from_slice(bytes.as_ref()) {
            return Ok(Keypair::from_secret_key(SECP256K1, &key));
        }
    }
    Err(ClientError::Internal("no key could be derived".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip_and_typos_are_found() {
        let words = Words::generate().unwrap();
        assert_eq!(words.as_str().split(' ').count(), 12);
        let typed = format!("  {} ", words.as_str().to_uppercase().replace(' ', "\n "));
        assert_eq!(*Words::parse(&typed).unwrap().seed().unwrap(), *words.seed().unwrap());
        assert!(Words::parse("abandon abandon").is_err());
        assert!(Words::parse(&"zoo ".repeat(12)).is_err());
    }

    #[test]
    fn the_seed_is_bip39s() {
        // The first vector of BIP-39's reference, with an empty passphrase.
        let words = Words::parse(&("abandon ".repeat(11) + "about")).unwrap();
        assert!(hex::encode(*words.seed().unwrap()).starts_with("5eb00bbddcf069084889a8ab9155568165f5c453"));
    }

    #[test]
    fn keys_differ_by_purpose_federation_and_index() {
        let seed = [7; 64];
        let key = |federation, purpose, index| {
            derive_key(&seed, FederationId([federation; 32]), purpose, index).unwrap().secret_bytes()
        };
        let all = [key(0, "a", 0), key(1, "a", 0), key(0, "b", 0), key(0, "a", 1)];
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    }
}

//! The words that all of the gateway's keys come from.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use bip39::Mnemonic;
use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use federation_core::encoding::tagged_hash;
use rand::RngCore as _;
use zeroize::Zeroizing;

use crate::GatewayError;

/// Twelve words: the wallets' seed, and the source of the gateway's own key.
pub(crate) struct GatewayWords {
    mnemonic: Mnemonic,
}

impl GatewayWords {
    /// Words given by the caller.
    pub(crate) fn parse(text: &str) -> Result<Self, GatewayError> {
        let mnemonic =
            Mnemonic::parse(text.trim()).map_err(|error| GatewayError::Words(error.to_string()))?;
        Ok(Self { mnemonic })
    }

    /// Reads `words` in a directory; makes it, readable by its owner only, if it does not exist.
    pub(crate) fn load_or_create(dir: &Path) -> Result<Self, GatewayError> {
        let path = dir.join("words");
        let explain = |source| GatewayError::File { path: path.clone(), source };
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&Zeroizing::new(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut entropy = Zeroizing::new([0; 16]);
                rand::thread_rng().fill_bytes(entropy.as_mut());
                let mnemonic = Mnemonic::from_entropy(entropy.as_ref())
                    .map_err(|error| GatewayError::Words(error.to_string()))?;
                let text = Zeroizing::new(format!("{mnemonic}\n"));
                // Written whole under another name first: a torn file would be words lost.
                let new = dir.join("words.new");
                let mut file = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(&new)
                    .map_err(explain)?;
                file.write_all(text.as_bytes()).map_err(explain)?;
                file.sync_all().map_err(explain)?;
                std::fs::rename(&new, &path).map_err(explain)?;
                std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(explain)?;
                Ok(Self { mnemonic })
            }
            Err(error) => Err(explain(error)),
        }
    }

    /// As text, for the wallets.
    pub(crate) fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(self.mnemonic.to_string())
    }

    /// The gateway's BIP-340 key, one for all federations: what it signs names the federation.
    pub(crate) fn key(&self) -> Result<Keypair, GatewayError> {
        let seed = Zeroizing::new(self.mnemonic.to_seed(""));
        let secret = Zeroizing::new(tagged_hash("cln-federation/gateway-key", &[seed.as_ref()]));
        let key = SecretKey::from_slice(secret.as_ref())
            .map_err(|_| GatewayError::Words("they give no key, which has a chance of 2⁻¹²⁸".to_owned()))?;
        Ok(Keypair::from_secret_key(SECP256K1, &key))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn fresh_words_are_private_and_give_the_same_key_again() {
        let dir = tempfile::tempdir().unwrap();
        let key = GatewayWords::load_or_create(dir.path()).unwrap().key().unwrap();
        let again = GatewayWords::load_or_create(dir.path()).unwrap();
        assert_eq!(again.key().unwrap(), key);
        assert_eq!(again.text().split_whitespace().count(), 12);
        let mode = std::fs::metadata(dir.path().join("words")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn wrong_words_are_refused_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("words"), "not words").unwrap();
        assert!(matches!(GatewayWords::load_or_create(dir.path()), Err(GatewayError::Words(_))));
    }
}

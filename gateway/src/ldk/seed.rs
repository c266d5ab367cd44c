//! The seed file, and the two keys that come from it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use bip39::Mnemonic;
use bitcoin::Network;
use bitcoin::bip32::{ChildNumber, Xpriv};
use bitcoin::secp256k1::Secp256k1;
use rand::RngCore as _;
use zeroize::Zeroizing;

use super::error::LdkError;

/// Hardened index of LDK's own seed below the master key.
const LDK_INDEX: u32 = 535;

/// What the node derives its keys from.
pub(super) struct Keys {
    /// LDK's seed: channels and node id.
    pub ldk_seed: Zeroizing<[u8; 32]>,
    /// BIP 32 master key of the on-chain wallet (BIP 84 below it).
    pub wallet: Xpriv,
}

/// Reads the seed file; makes one with a fresh mnemonic of 24 words if there is none.
pub(super) fn load_or_create(path: &Path, network: Network) -> Result<Keys, LdkError> {
    let file_error = |source| LdkError::File { path: path.to_path_buf(), source };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut entropy = Zeroizing::new([0; 32]);
            rand::thread_rng().fill_bytes(entropy.as_mut());
            let mnemonic = Mnemonic::from_entropy(entropy.as_ref()).map_err(|e| bad(path, e))?;
            let text = Zeroizing::new(format!("{mnemonic}\n"));
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(file_error)?;
            file.write_all(text.as_bytes()).map_err(file_error)?;
            file.sync_all().map_err(file_error)?;
            sync_parent(path).map_err(file_error)?;
            text
        }
        Err(error) => return Err(file_error(error)),
    };
    derive(path, text.trim(), network)
}

fn derive(path: &Path, text: &str, network: Network) -> Result<Keys, LdkError> {
    let seed = if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        Zeroizing::new(hex::decode(text).map_err(|e| bad(path, e))?)
    } else {
        let mnemonic = Mnemonic::parse(text).map_err(|e| bad(path, e))?;
        Zeroizing::new(mnemonic.to_seed("").to_vec())
    };
    let wallet = Xpriv::new_master(network, &seed).map_err(|e| bad(path, e))?;
    let index = ChildNumber::from_hardened_idx(LDK_INDEX).map_err(|e| bad(path, e))?;
    let ldk = wallet.derive_priv(&Secp256k1::new(), &[index]).map_err(|e| bad(path, e))?;
    Ok(Keys { ldk_seed: Zeroizing::new(ldk.private_key.secret_bytes()), wallet })
}

fn bad(path: &Path, reason: impl std::fmt::Display) -> LdkError {
    LdkError::Seed { path: path.to_path_buf(), reason: reason.to_string() }
}

/// A new file's name is durable only when its directory is.
pub(super) fn sync_parent(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => std::fs::File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_fresh_seed_is_private_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed");
        let first = load_or_create(&path, Network::Regtest).unwrap();
        let again = load_or_create(&path, Network::Regtest).unwrap();
        assert_eq!(first.ldk_seed, again.ldk_seed);
        assert_eq!(first.wallet, again.wallet);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let words = std::fs::read_to_string(&path).unwrap();
        assert_eq!(words.split_whitespace().count(), 24);
    }

    #[test]
    fn hex_works_and_nonsense_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed");
        std::fs::write(&path, "07".repeat(32)).unwrap();
        load_or_create(&path, Network::Regtest).unwrap();
        std::fs::write(&path, "not a seed").unwrap();
        assert!(matches!(load_or_create(&path, Network::Regtest), Err(LdkError::Seed { .. })));
    }
}

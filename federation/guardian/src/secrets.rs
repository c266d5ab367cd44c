//! Secrets at rest: what is stored of a guardian's keys is encrypted with a key from outside.
//!
//! In the plugin the key comes from lightningd's `makesecret`; in `guardiand` from a passphrase by
//! scrypt. ChaCha20-Poly1305 with a random 192-bit nonce (XChaCha20); layout: nonce ‖ ciphertext.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use federation_core::ModuleId;
use federation_core::encoding::{decode, encode};
use rand::RngCore;
use rand::rngs::OsRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::GuardianError;

const NONCE: usize = 24;
const CONTEXT: &[u8] = b"cln-federation/secrets/v1";
const MAX_SEALED: usize = 16 << 20;

/// The key that secrets at rest are encrypted with.
#[derive(Clone)]
pub struct SealingKey(Zeroizing<[u8; 32]>);

impl SealingKey {
    /// A key of 32 random bytes, such as `makesecret` gives.
    pub fn new(key: Zeroizing<[u8; 32]>) -> Self {
        Self(key)
    }

    /// A key from a passphrase: scrypt with N = 2^15, r = 8, p = 1; some 0.1 s and 32 MB. The salt is
    /// stored beside what is encrypted.
    pub fn from_passphrase(passphrase: &str, salt: &[u8; 16]) -> Result<Self, GuardianError> {
        let parameters =
            scrypt::Params::new(15, 8, 1, 32).map_err(|e| GuardianError::Config(e.to_string()))?;
        let mut key = Zeroizing::new([0; 32]);
        scrypt::scrypt(passphrase.as_bytes(), salt, &parameters, key.as_mut_slice())
            .map_err(|e| GuardianError::Config(e.to_string()))?;
        Ok(Self(key))
    }

    /// Encrypts a value.
    pub fn seal<T: BorshSerialize>(&self, value: &T) -> Result<Vec<u8>, GuardianError> {
        let plain = Zeroizing::new(encode(value));
        let mut nonce = [0; NONCE];
        OsRng.fill_bytes(&mut nonce);
        let cipher = XChaCha20Poly1305::new(self.0.as_slice().into());
        let sealed = cipher
            .encrypt(XNonce::from_slice(&nonce), Payload { msg: &plain, aad: CONTEXT })
            .map_err(|_| GuardianError::WrongKey)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Decrypts what [`seal`](Self::seal) encrypted with the same key.
    pub fn open<T: BorshDeserialize>(&self, sealed: &[u8]) -> Result<T, GuardianError> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>().ok_or(GuardianError::WrongKey)?;
        let cipher = XChaCha20Poly1305::new(self.0.as_slice().into());
        let plain = cipher
            .decrypt(XNonce::from_slice(nonce), Payload { msg: sealed, aad: CONTEXT })
            .map_err(|_| GuardianError::WrongKey)?;
        decode(&Zeroizing::new(plain), MAX_SEALED).map_err(|error| GuardianError::Config(error.to_string()))
    }
}

/// What a guardian alone knows.
#[derive(Clone, BorshSerialize, BorshDeserialize, Zeroize, ZeroizeOnDrop)]
pub struct GuardianSecrets {
    /// The secret of the identity key (BIP-340).
    pub identity: [u8; 32],
    /// The TLS identity for links, as `federation-consensus` encodes it.
    pub link_identity: Vec<u8>,
    /// The own share of the coin keys, as `federation-consensus` encodes it.
    pub coin_keys: Vec<u8>,
    /// Each module's own secret, by module.
    #[zeroize(skip)]
    pub modules: BTreeMap<ModuleId, Vec<u8>>,
}

impl std::fmt::Debug for GuardianSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GuardianSecrets(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_with_the_right_key_only() {
        let key = SealingKey::from_passphrase("correct horse", &[1; 16]).unwrap();
        let sealed = key.seal(&7u64).unwrap();
        assert_eq!(key.open::<u64>(&sealed).unwrap(), 7);
        let other = SealingKey::from_passphrase("battery staple", &[1; 16]).unwrap();
        assert!(matches!(other.open::<u64>(&sealed), Err(GuardianError::WrongKey)));
        let mut damaged = sealed;
        damaged[30] ^= 1;
        assert!(matches!(key.open::<u64>(&damaged), Err(GuardianError::WrongKey)));
        assert!(matches!(key.open::<u64>(&[0; 3]), Err(GuardianError::WrongKey)));
    }
}

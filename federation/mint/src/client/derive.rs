//! Everything of a note that must be secret, from the wallet's seed (RFC 5869, HKDF-SHA256).

use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use federation_core::FederationId;
use federation_tbs::BlindingKey;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// Derives the secrets of the notes of one federation: `HKDF(salt = tag, ikm = seed)`, expanded with
/// `federation id ‖ number (u64, big-endian) ‖ purpose`.
///
/// Numbers must never be used twice for different requests: a blinded nonce is signed once only.
pub struct Deriver {
    hkdf: Hkdf<Sha256>,
    federation: FederationId,
}

/// The secrets of one note.
pub struct NoteSecret {
    /// The nonce key: whoever has it can spend the note.
    pub key: SecretKey,
    /// What hides the nonce from the mint.
    pub blinding: BlindingKey,
}

impl Drop for NoteSecret {
    fn drop(&mut self) {
        self.key.non_secure_erase();
    }
}

impl NoteSecret {
    /// The nonce key with its public side.
    pub fn keypair(&self) -> Keypair {
        Keypair::from_secret_key(SECP256K1, &self.key)
    }
}

impl Deriver {
    /// For the wallet with this seed (64 bytes as BIP-39 makes them) in this federation.
    pub fn new(seed: &[u8; 64], federation: FederationId) -> Self {
        Self { hkdf: Hkdf::new(Some(b"cln-federation/mint/v1"), seed), federation }
    }

    #[expect(clippy::expect_used, reason = "HKDF's only error is an output of over 8160 bytes; these are 64")]
    fn expand(&self, index: u64, purpose: &[u8]) -> Zeroizing<[u8; 64]> {
        let mut bytes = Zeroizing::new([0; 64]);
        self.hkdf
            .expand_multi_info(&[&self.federation.0, &index.to_be_bytes(), purpose], bytes.as_mut())
            .expect("64 bytes");
        bytes
    }

    /// The secrets of note number `index`.
    pub fn note(&self, index: u64) -> NoteSecret {
        let blinding = BlindingKey::from_bytes_wide(*self.expand(index, b"blinding"));
        // A 256-bit number is no secret key with probability 2^-128; then the second half, then another expansion.
        for attempt in 0u64.. {
            let bytes = self.expand(index, &[b"nonce".as_slice(), &attempt.to_be_bytes()].concat());
            let (halves, _) = bytes.as_chunks::<32>();
            if let Some(key) = halves.iter().find_map(|half| SecretKey::from_slice(half).ok()) {
                return NoteSecret { key, blinding };
            }
        }
        unreachable!("2^64 hashes in a row above the order of the group")
    }
}

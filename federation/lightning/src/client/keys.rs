//! Keys and preimages from the wallet's seed: lost data is found again by counting indices up.

use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use federation_core::FederationId;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::LightningError;
use crate::Preimage;

/// Derives this module's secrets by HKDF-SHA-256 (RFC 5869), apart for each federation.
pub struct LightningKeys {
    seed: Zeroizing<[u8; 64]>,
    federation: FederationId,
}

/// The secrets of one incoming contract.
pub struct IncomingSecrets {
    /// Takes the money.
    pub key: Keypair,
    /// What the payer pays for.
    pub preimage: Preimage,
}

impl LightningKeys {
    /// From a BIP-39 seed.
    pub fn new(seed: &[u8; 64], federation: FederationId) -> Self {
        Self { seed: Zeroizing::new(*seed), federation }
    }

    fn bytes(&self, purpose: &str, index: u64, attempt: u8) -> Result<Zeroizing<[u8; 32]>, LightningError> {
        let mut bytes = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(b"cln-federation/lightning"), self.seed.as_ref())
            .expand_multi_info(
                &[purpose.as_bytes(), &[0], &self.federation.0, &index.to_be_bytes(), &[attempt]],
                bytes.as_mut(),
            )
            .map_err(|_| LightningError::Derivation)?;
        Ok(bytes)
    }

    fn key(&self, purpose: &str, index: u64) -> Result<Keypair, LightningError> {
        // All but one in 2¹²⁸ are keys.
        for attempt in 0..2 {
            if let Ok(key) = SecretKey::from_slice(self.bytes(purpose, index, attempt)?.as_ref()) {
                return Ok(Keypair::from_secret_key(SECP256K1, &key));
            }
        }
        Err(LightningError::Derivation)
    }

    /// The user's key of an outgoing contract. An index serves one contract.
    pub fn outgoing(&self, index: u64) -> Result<Keypair, LightningError> {
        self.key("outgoing", index)
    }

    /// The user's key and preimage of an incoming contract. An index serves one contract.
    pub fn incoming(&self, index: u64) -> Result<IncomingSecrets, LightningError> {
        let preimage = Preimage(*self.bytes("preimage", index, 0)?);
        Ok(IncomingSecrets { key: self.key("incoming", index)?, preimage })
    }

    /// A gateway's key in this federation: all contracts with it name this one.
    pub fn gateway(&self) -> Result<Keypair, LightningError> {
        self.key("gateway", 0)
    }
}

//! A wallet's backup, as guardians keep it: sealed bytes under a key that only the wallet's words give.
//!
//! Each guardian keeps backups for itself: they are no part of what the federation agrees on. A wallet hands the same one to
//! all of them, and takes the newest one that its own key has signed, so one guardian that has it is enough, and one that
//! serves an old one or none hides nothing that another one has.
//!
//! - A write is signed with the key that it is kept under, over federation, version and content: nobody else can replace it.
//! - A version replaces lower ones only: nobody can put an old one back.
//! - A key has to be worth some work ([`WORK_BITS`]) before anything is kept under it, so that to fill a guardian's room with
//!   keys costs something. It is done once for a key.

use bitcoin::hashes::{Hash as _, HashEngine as _, sha256};
use bitcoin::secp256k1::schnorr::Signature;
use bitcoin::secp256k1::{Keypair, Message, SECP256K1, XOnlyPublicKey};
use serde::{Deserialize, Serialize};

use crate::FederationId;
use crate::encoding::tagged_hash;

/// The most that is kept under a key, in bytes.
pub const MAX_SEALED: usize = 64 << 10;
/// Leading zero bits that the hash of a key and its work must have: a million hashes, some tenths of a second of one core.
pub const WORK_BITS: u32 = 20;
const TAG: &str = "cln-federation/backup";
const WORK_TAG: &str = "cln-federation/backup-work";

/// The body of `POST /v1/backups`, and the answer to `GET /v1/backups/{key}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// The BIP-340 key that it is kept under.
    pub key: XOnlyPublicKey,
    /// Grows with each write.
    pub version: u64,
    /// What makes the key worth keeping something for: see [`is_worked`].
    pub work: u64,
    /// What only the wallet can read.
    #[serde(with = "hex::serde")]
    pub sealed: Vec<u8>,
    /// The key's signature of all of it but the work.
    pub signature: Signature,
}

impl Backup {
    /// Signs.
    pub fn sign(federation: FederationId, key: &Keypair, version: u64, work: u64, sealed: Vec<u8>) -> Self {
        let public = key.x_only_public_key().0;
        let message = Message::from_digest(message(federation, &public, version, &sealed));
        Self { key: public, version, work, sealed, signature: SECP256K1.sign_schnorr(&message, key) }
    }

    /// Whether its own key has signed it, for this federation.
    pub fn is_signed(&self, federation: FederationId) -> bool {
        let message = message(federation, &self.key, self.version, &self.sealed);
        let message = Message::from_digest(message);
        SECP256K1.verify_schnorr(&self.signature, &message, &self.key).is_ok()
    }

    /// Whether the work for its key is done.
    pub fn is_worked(&self, federation: FederationId) -> bool {
        is_worked(federation, &self.key, self.work)
    }
}

/// The hash of federation, key, version (big-endian) and content.
fn message(federation: FederationId, key: &XOnlyPublicKey, version: u64, sealed: &[u8]) -> [u8; 32] {
    tagged_hash(TAG, &[&federation.0, &key.serialize(), &version.to_be_bytes(), sealed])
}

/// Whether the tagged hash (`cln-federation/backup-work`) of federation, key and `work` (big-endian) begins with
/// [`WORK_BITS`] zeros.
pub fn is_worked(federation: FederationId, key: &XOnlyPublicKey, work: u64) -> bool {
    is_enough(engine(federation, key), work)
}

/// Does the work for a key. Takes a core for some tenths of a second: not for an async thread.
pub fn do_work(federation: FederationId, key: &XOnlyPublicKey) -> u64 {
    let engine = engine(federation, key);
    (0..u64::MAX).find(|work| is_enough(engine.clone(), *work)).unwrap_or_default()
}

/// All but the last eight bytes: two whole blocks, hashed once for all tries.
fn engine(federation: FederationId, key: &XOnlyPublicKey) -> sha256::HashEngine {
    let tag = sha256::Hash::hash(WORK_TAG.as_bytes());
    let mut engine = sha256::Hash::engine();
    for part in [tag.as_byte_array(), tag.as_byte_array(), &federation.0, &key.serialize()] {
        engine.input(part);
    }
    engine
}

fn is_enough(mut engine: sha256::HashEngine, work: u64) -> bool {
    engine.input(&work.to_be_bytes());
    let hash = sha256::Hash::from_engine(engine).to_byte_array();
    let [a, b, c, d, ..] = hash;
    u32::from_be_bytes([a, b, c, d]).leading_zeros() >= WORK_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Keypair {
        Keypair::from_seckey_slice(SECP256K1, &[byte; 32]).unwrap()
    }

    #[test]
    fn nothing_of_it_can_be_changed() {
        let federation = FederationId([1; 32]);
        let backup = Backup::sign(federation, &key(1), 7, 0, vec![1, 2, 3]);
        assert!(backup.is_signed(federation) && !backup.is_signed(FederationId([2; 32])));
        let changed = [
            Backup { version: 8, ..backup.clone() },
            Backup { sealed: vec![1, 2, 4], ..backup.clone() },
            Backup { sealed: vec![1, 2], ..backup.clone() },
            Backup { key: key(2).x_only_public_key().0, ..backup.clone() },
        ];
        assert!(changed.iter().all(|changed| !changed.is_signed(federation)));
        let text = serde_json::to_string(&backup).unwrap();
        assert_eq!(serde_json::from_str::<Backup>(&text).unwrap(), backup);
    }

    #[test]
    fn work_is_of_one_key_in_one_federation() {
        let (federation, one) = (FederationId([1; 32]), key(1).x_only_public_key().0);
        let work = do_work(federation, &one);
        assert!(is_worked(federation, &one, work));
        let hash = |federation: FederationId| {
            tagged_hash(WORK_TAG, &[&federation.0, &one.serialize(), &work.to_be_bytes()])
        };
        assert!(hash(federation)[0] == 0);
        // Others need another one, all but one in 2^WORK_BITS of them.
        let others = (2..100).filter(|byte| is_worked(federation, &key(*byte).x_only_public_key().0, work));
        assert!(others.count() < 5);
        assert_ne!(hash(federation), hash(FederationId([2; 32])));
    }
}

//! What guardians sign: an epoch's header.
//!
//! Each guardian signs the header of every epoch that it has committed. f + 1 signatures of one header, of which at
//! least one is an honest guardian's, make it final for everyone outside; n - f signatures are what
//! a state snapshot is trusted by.

use std::collections::BTreeMap;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::wire::{Malformed, Reader};
use crate::{MAX_NODES, NodeId};

/// A signature of a header's hash.
pub type Signature = [u8; 64];

/// Signatures of one header, by guardian.
pub type Signatures = BTreeMap<NodeId, Signature>;

/// An epoch in short: what was in it, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The epoch.
    pub epoch: u64,
    /// The hash of the header before; [`Header::GENESIS`] in epoch 0.
    pub previous: [u8; 32],
    /// The Merkle root of the contributions, [`Batch::items_root`](crate::Batch::items_root).
    pub items: [u8; 32],
    /// The digest of the state after the epoch. What it is made of is for those who apply the batches to say.
    pub state: [u8; 32],
}

impl Header {
    /// What stands before epoch 0.
    pub const GENESIS: [u8; 32] = [0; 32];
    /// Bytes of an encoded header.
    pub const SIZE: usize = 8 + 3 * 32;

    /// What is signed: SHA-256 over a domain tag and the encoding.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::new().chain_update("cln-federation/header/v1").chain_update(self.encode()).finalize().into()
    }

    /// `epoch · previous · items · state`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::SIZE);
        self.put(&mut out);
        out
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.epoch.to_be_bytes());
        for hash in [&self.previous, &self.items, &self.state] {
            out.extend_from_slice(hash);
        }
    }

    pub(crate) fn take(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            epoch: reader.u64()?,
            previous: reader.array()?,
            items: reader.array()?,
            state: reader.array()?,
        })
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`Malformed`] for any other length.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let header = Self::take(&mut reader)?;
        reader.end()?;
        Ok(header)
    }
}

/// `count u16 · (guardian u16 · signature)…`
pub(crate) fn put_signatures(out: &mut Vec<u8>, signatures: &Signatures) {
    out.extend_from_slice(&u16::try_from(signatures.len()).unwrap_or(0).to_be_bytes());
    for (node, signature) in signatures {
        out.extend_from_slice(&node.to_be_bytes());
        out.extend_from_slice(signature);
    }
}

pub(crate) fn take_signatures(reader: &mut Reader) -> Result<Signatures, Malformed> {
    let count = reader.u16()?;
    if count > MAX_NODES {
        return Err(Malformed);
    }
    let mut signatures = Signatures::new();
    for _ in 0..count {
        let node = reader.u16()?;
        if signatures.last_key_value().is_some_and(|(last, _)| *last >= node) {
            return Err(Malformed);
        }
        signatures.insert(node, reader.array()?);
    }
    Ok(signatures)
}

/// The guardians' keys for headers. What is signed has to cover the federation as well as the hash.
pub trait HeaderKeys: Send + Sync + 'static {
    /// This guardian's signature of a header's hash.
    fn sign(&self, hash: &[u8; 32]) -> Signature;

    /// Whether `signature` is `node`'s of this hash.
    fn verify(&self, node: NodeId, hash: &[u8; 32], signature: &Signature) -> bool;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn one_encoding(epoch: u64, previous: [u8; 32], items: [u8; 32], state: [u8; 32]) {
            let header = Header { epoch, previous, items, state };
            let bytes = header.encode();
            prop_assert_eq!(bytes.len(), Header::SIZE);
            prop_assert_eq!(Header::decode(bytes.clone().into()), Ok(header));
            prop_assert!(Header::decode(bytes[1..].to_vec().into()).is_err());
            let other = Header { epoch: epoch ^ 1, ..header };
            prop_assert_ne!(header.hash(), other.hash());
        }
    }
}

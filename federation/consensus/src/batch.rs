//! What an epoch outputs.

use std::collections::BTreeMap;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::NodeId;
use crate::engine::MerkleTree;
use crate::wire::{Malformed, Reader, put_bytes};

/// One epoch's output: the same on every honest guardian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The epoch, from 0, without gaps.
    pub epoch: u64,
    /// The proposals that are in, by proposer; at least n - f.
    pub contributions: BTreeMap<NodeId, Bytes>,
}

impl Batch {
    /// The one encoding of this batch. Guardians keep it as their history and hand it to laggards,
    /// who compare its [hash](Self::hash).
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let size = self.contributions.values().map(|c| c.len() + 6).sum::<usize>() + 10;
        let mut out = Vec::with_capacity(size);
        out.extend_from_slice(&self.epoch.to_be_bytes());
        let count = u16::try_from(self.contributions.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        for (proposer, contribution) in &self.contributions {
            out.extend_from_slice(&proposer.to_be_bytes());
            put_bytes(&mut out, contribution);
        }
        out.into()
    }

    /// Reads what [`encode`](Self::encode) wrote. Contributions are slices of `bytes`.
    ///
    /// # Errors
    /// [`Malformed`] for anything but the one encoding: proposers out of order, bytes left over.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let epoch = reader.u64()?;
        let count = reader.u16()?;
        let mut contributions = BTreeMap::new();
        for _ in 0..count {
            let proposer = reader.u16()?;
            if contributions.last_key_value().is_some_and(|(last, _)| *last >= proposer) {
                return Err(Malformed);
            }
            contributions.insert(proposer, reader.bytes()?);
        }
        reader.end()?;
        Ok(Self { epoch, contributions })
    }

    /// The Merkle root over the contributions' hashes with their proposers, for [`Header`](crate::Header).
    #[must_use]
    pub fn items_root(&self) -> [u8; 32] {
        let leaves: Vec<Bytes> = self
            .contributions
            .iter()
            .map(|(proposer, contribution)| {
                let mut leaf = proposer.to_be_bytes().to_vec();
                leaf.extend_from_slice(&Sha256::digest(contribution));
                leaf.into()
            })
            .collect();
        let count = u16::try_from(leaves.len()).unwrap_or(u16::MAX);
        let root = MerkleTree::new(&leaves).root();
        Sha256::new().chain_update(count.to_be_bytes()).chain_update(root).finalize().into()
    }

    /// SHA-256 of an encoded batch.
    #[must_use]
    pub fn hash(encoded: &[u8]) -> [u8; 32] {
        Sha256::digest(encoded).into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn one_encoding(epoch: u64, contributions in proptest::collection::btree_map(0u16..20, proptest::collection::vec(any::<u8>(), 0..50), 0..20)) {
            let contributions = contributions.into_iter().map(|(k, v)| (k, Bytes::from(v))).collect();
            let batch = Batch { epoch, contributions };
            let encoded = batch.encode();
            prop_assert_eq!(Batch::decode(encoded.clone()), Ok(batch));
            let mut longer = encoded.to_vec();
            longer.push(0);
            prop_assert!(Batch::decode(longer.into()).is_err());
        }

        #[test]
        fn garbage_is_refused_or_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            if let Ok(batch) = Batch::decode(bytes.clone()) {
                prop_assert_eq!(batch.encode(), bytes);
            }
        }
    }
}

//! SHA-256 Merkle trees over the shards of one proposal.
//!
//! Leaves and inner nodes are hashed in different domains, and a leaf's index is part of it, so
//! that no inner node passes as a leaf and no shard passes in another's place. The tree is padded
//! to a power of two with a constant.

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// A node of the tree.
pub type Hash = [u8; 32];

const EMPTY: Hash = [0; 32];

/// The hash of a shard in its place.
pub(super) fn leaf(index: u16, shard: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(index.to_be_bytes()).chain_update(shard).finalize().into()
}

fn node(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// How many hashes a proof for one of `leaves` shards has.
#[must_use]
pub const fn depth(leaves: u16) -> usize {
    leaves.next_power_of_two().trailing_zeros() as usize
}

/// The levels of a tree, leaves first, root last.
#[derive(Debug)]
pub struct MerkleTree {
    levels: Vec<Vec<Hash>>,
}

impl MerkleTree {
    /// Hashes `shards`, of which there are at most 65,535.
    #[must_use]
    pub fn new(shards: &[Bytes]) -> Self {
        Self::of_leaves((0u16..).zip(shards).map(|(i, s)| leaf(i, s)).collect())
    }

    /// The tree over shards whose hashes are known.
    pub(super) fn of_leaves(mut level: Vec<Hash>) -> Self {
        level.resize(level.len().next_power_of_two(), EMPTY);
        let mut levels = vec![level];
        while let Some(last) = levels.last().filter(|l| l.len() > 1) {
            let next =
                last.chunks_exact(2).filter_map(|pair| Some(node(pair.first()?, pair.last()?))).collect();
            levels.push(next);
        }
        Self { levels }
    }

    /// The commitment to all shards.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.levels.last().and_then(|l| l.first()).copied().unwrap_or(EMPTY)
    }

    /// The siblings on the way from leaf `index` to the root.
    #[must_use]
    pub fn proof(&self, index: u16) -> Vec<Hash> {
        let inner = self.levels.len().saturating_sub(1);
        self.levels
            .iter()
            .take(inner)
            .enumerate()
            .filter_map(|(level, hashes)| hashes.get((index as usize >> level) ^ 1).copied())
            .collect()
    }
}

/// The hash of `shard`, if it is leaf `index` of a tree of `leaves` shards with this root.
#[must_use]
pub fn verify(root: &Hash, leaves: u16, index: u16, shard: &[u8], proof: &[Hash]) -> Option<Hash> {
    if index >= leaves || proof.len() != depth(leaves) {
        return None;
    }
    let bottom = leaf(index, shard);
    let top = proof.iter().enumerate().fold(bottom, |hash, (level, sibling)| {
        if (index >> level) & 1 == 0 { node(&hash, sibling) } else { node(sibling, &hash) }
    });
    (top == *root).then_some(bottom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_hold_only_in_their_place() {
        for n in 1u16..=20 {
            let shards: Vec<Bytes> = (0..n).map(|i| Bytes::from(vec![i as u8; 7])).collect();
            let tree = MerkleTree::new(&shards);
            for i in 0..n {
                let proof = tree.proof(i);
                let holds = |place, shard: &[u8]| verify(&tree.root(), n, place, shard, &proof);
                assert_eq!(holds(i, &shards[i as usize]), Some(leaf(i, &shards[i as usize])));
                assert_eq!(holds(i, b"other"), None);
                assert_eq!(holds((i + 1) % (n + 1), &shards[i as usize]), None);
                assert_eq!(holds(i + 64, &shards[i as usize]), None);
            }
        }
    }
}

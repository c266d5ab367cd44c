//! What a guardian proposes for an epoch.

use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::ConsensusItem;
use federation_core::encoding::{DecodeError, decode, encode};

/// The largest contribution, in bytes.
pub const MAX_CONTRIBUTION: usize = 1 << 20;
/// How much of a contribution may be transactions; the rest is for the modules' items.
pub const MAX_TRANSACTIONS: usize = MAX_CONTRIBUTION / 2;

/// The modules' items and some transactions of the pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Contribution {
    /// What the guardian says for itself.
    pub items: Vec<ConsensusItem>,
    /// Encoded transactions.
    pub transactions: Vec<Vec<u8>>,
}

impl Contribution {
    /// The bytes for consensus.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a guardian's contribution.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode(bytes, MAX_CONTRIBUTION)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.transactions.is_empty()
    }
}

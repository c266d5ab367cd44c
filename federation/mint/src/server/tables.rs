//! What the mint stores.

use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::db::Table;
use federation_core::{OutPoint, PeerId};

use crate::{Denomination, PointBytes};

/// Nonces of notes that were spent.
pub const SPENT: Table<[u8; 32], ()> = Table::new(1, "spent notes");
/// Blinded nonces that were ever accepted: for restoring a wallet, and so that none is signed twice.
pub const ISSUED: Table<PointBytes, Issued> = Table::new(2, "issued notes");
/// Outputs that wait for their signature.
pub const PENDING: Table<OutPoint, Pending> = Table::new(3, "pending outputs");
/// Partial signatures of pending outputs.
pub const SHARES: Table<(OutPoint, PeerId), ShareState> = Table::new(4, "partial signatures");
/// Signatures ([`federation_tbs::BlindedSignature`]) of outputs.
pub const OUTCOMES: Table<OutPoint, PointBytes> = Table::new(5, "signatures");
/// How many notes of each denomination were issued and spent.
pub const COUNTS: Table<Denomination, Counts> = Table::new(6, "counts of notes");
/// The same as sums of all denominations.
pub const TOTALS: Table<(), Totals> = Table::new(7, "totals");
/// How many wrong partial signatures each guardian has sent.
pub const FAULTS: Table<PeerId, u64> = Table::new(8, "wrong partial signatures");

/// An issued note, as its blinded nonce finds it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Issued {
    /// The output.
    pub point: OutPoint,
    /// What it is worth.
    pub denomination: Denomination,
}

/// An output that waits.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Pending {
    /// What it is worth.
    pub denomination: Denomination,
    /// What is to be signed; its point was checked when the output was accepted.
    pub blinded_nonce: PointBytes,
}

/// A guardian's part in a pending output.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ShareState {
    /// What it signed.
    Sent(PointBytes),
    /// It sent a wrong one, and gets no second try: the others are enough.
    Wrong,
}

/// Numbers of notes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Counts {
    /// Ever issued.
    pub issued: u64,
    /// Ever spent.
    pub spent: u64,
}

/// Sums in msat. Money goes round more than once, so 64 bits might not do for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Totals {
    /// Ever issued.
    pub issued: u128,
    /// Ever spent.
    pub spent: u128,
}

impl Totals {
    /// What is in circulation.
    pub fn outstanding(&self) -> u128 {
        // A spend that would take more than was issued is refused.
        self.issued.saturating_sub(self.spent)
    }
}

//! What a wallet keeps on disk.
//!
//! Money is in exactly one of these: [`NOTES`] (can be spent), [`RESERVED`] (spent by a transaction that is not decided, be it one that
//! an earlier life of the wallet handed in),
//! [`SENT`] (handed out), in an unfinished transaction's outputs ([`UNFINISHED`]), or found with the guardians and not looked
//! at yet ([`FOUND`]). Each move is one commit.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::db::Table;
use federation_core::{Amount, PeerId, Transaction, TxId};
use federation_mint::Denomination;
use federation_tbs::Signature;

use crate::backup::Written;
use crate::ops::Operation;
use crate::restore::{Found, Scan};

/// The caller's name of an operation; also its transaction's idempotency key.
pub type OpId = [u8; 32];

/// The federation that this wallet belongs to.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Joined {
    /// The canonical encoding of the consensus configuration, whose hash is the federation's id.
    pub consensus: Vec<u8>,
    /// Base URLs of the guardians' APIs.
    pub urls: BTreeMap<PeerId, String>,
}

/// A note of our own. Its secrets derive from the seed and the index.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Held {
    /// Its number in this wallet.
    pub index: u64,
    /// What it is worth.
    pub denomination: Denomination,
    /// The federation's signature of its nonce.
    pub signature: Signature,
}

/// What a note that is being issued is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Destination {
    /// The balance.
    Keep,
    /// To be handed out by this operation: nobody else may take it.
    Send(OpId),
}

/// A note that a transaction asks for.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Issue {
    /// Which output of the transaction.
    pub output: u16,
    /// Its number in this wallet.
    pub index: u64,
    /// What it is worth.
    pub denomination: Denomination,
    /// Where it goes.
    pub destination: Destination,
}

/// Where a transaction stands, as far as this wallet knows for sure.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum TxState {
    /// Written down; maybe submitted.
    Pending,
    /// Agreed on; the notes it asked for are on their way.
    Accepted,
    /// All its notes are here.
    Done,
    /// Refused; the notes that it would have spent are free again.
    Rejected {
        /// The stable code.
        code: String,
        /// The reason.
        reason: String,
    },
}

/// A transaction of this wallet. Never deleted: a refused one could still be handed in by somebody who saw it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TxRecord {
    /// Its id.
    pub txid: TxId,
    /// The signed transaction, ready to be submitted again and again.
    pub transaction: Transaction,
    /// The notes that it asks for.
    pub issues: Vec<Issue>,
    /// Where it stands.
    pub state: TxState,
    /// What it loses: fees of the federation, and what is too little for a note.
    pub fees: Amount,
}

/// What is left of a transaction that a wallet had under way when it was lost.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Remembered {
    /// Its id.
    pub txid: TxId,
    /// The numbers of the notes that it spends, while it is not decided.
    pub spends: Vec<u64>,
    /// The numbers of the notes that it asks for.
    pub asks: Vec<u64>,
}

/// Counters of derived keys.
pub mod counter {
    /// Notes.
    pub const NOTES: u8 = 0;
    /// Outgoing contracts.
    pub const OUTGOING: u8 = 1;
    /// Incoming contracts.
    pub const INCOMING: u8 = 2;
    /// Deposit addresses.
    pub const DEPOSITS: u8 = 3;
    /// One past the highest number of a note that was surely issued. Numbers are handed out within
    /// [`GAP`](crate::restore::GAP) of it only, so that a restore finds them all.
    pub const ISSUED: u8 = 4;
    /// One past the highest number of a deposit address that was paid to; see
    /// [`DEPOSIT_GAP`](crate::restore::DEPOSIT_GAP).
    pub const PAID: u8 = 5;
}

/// The federation.
pub const JOINED: Table<(), Joined> = Table::new(1, "federation");
/// The next number that was never used, by [`counter`].
pub const NEXT: Table<u8, u64> = Table::new(2, "counters");
/// Notes that can be spent, by nonce.
pub const NOTES: Table<[u8; 32], Held> = Table::new(3, "notes");
/// Notes that a transaction spends, by operation and nonce.
pub const RESERVED: Table<(OpId, [u8; 32]), Held> = Table::new(4, "reserved notes");
/// Notes that were handed out, by operation and nonce.
pub const SENT: Table<(OpId, [u8; 32]), Held> = Table::new(5, "sent notes");
/// Transactions, by operation.
pub const TRANSACTIONS: Table<OpId, TxRecord> = Table::new(6, "transactions");
/// Transactions that are pending or accepted.
pub const UNFINISHED: Table<OpId, ()> = Table::new(7, "unfinished transactions");
/// What the user asked for.
pub const OPERATIONS: Table<OpId, Operation> = Table::new(8, "operations");
/// Operations by the time of their beginning (milliseconds since 1970).
pub const HISTORY: Table<(u64, OpId), ()> = Table::new(9, "history");
/// Operations that go on by themselves.
pub const OPEN: Table<OpId, ()> = Table::new(10, "open operations");
/// Deposit addresses by the index of their key.
pub const ADDRESSES: Table<u32, String> = Table::new(11, "deposit addresses");
/// The newest attempt to pay an invoice, by payment hash.
pub const PAYMENTS: Table<[u8; 32], OpId> = Table::new(12, "payments");
/// Numbers of notes whose transactions were refused, above [`counter::ISSUED`] when they were: used again only where fresh ones
/// would go beyond the gap.
pub const BURNT: Table<u64, ()> = Table::new(13, "numbers of refused notes");
/// The secret keys of inputs that are no notes of ours, of unfinished transactions: to sign again with.
pub const KEYS: Table<OpId, Vec<[u8; 32]>> = Table::new(14, "keys of inputs");
/// How the last backup went.
pub const BACKUP: Table<(), Written> = Table::new(17, "backup");
/// There when something has happened that no backup has: a mark that differs each time.
pub const BACKUP_DUE: Table<(), u64> = Table::new(18, "backup due");
/// The transactions of operations that came back with a backup, where these can't go on without.
pub const RESTORED: Table<OpId, Remembered> = Table::new(19, "restored transactions");
/// How far a restore has come; there is one as long as it is not finished, and no wallet until then.
pub const RESTORE: Table<(), Scan> = Table::new(15, "restore");
/// Notes that the guardians have shown us, by number, on their way into [`NOTES`].
pub const FOUND: Table<u64, Found> = Table::new(16, "found notes");

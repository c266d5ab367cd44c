//! How a guardian's database is divided.
//!
//! | first byte | holds | agreed on |
//! |---|---|---|
//! | 0 | the next epoch, transactions | yes |
//! | 1, then the module id | what modules keep | yes |
//! | 2 | setup, pool, wallets' backups, sums of the state digest: this guardian's own | no |
//! | 3, then the module id | what modules keep for themselves | no |
//! | 4 | batches, headers and signatures of past epochs; rejected transactions | no |
//!
//! "Agreed on" means: a function of the agreed batches and nothing else, so that every guardian has the same keys and
//! values after the same epoch. These are what the state digest covers and what a snapshot holds. The history itself is not: it
//! is pruned by each guardian for itself, and who has signed is known to one sooner than to another.

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use federation_consensus::NodeId;
use federation_consensus::header::Signature;
use federation_core::db::{
    Changes, Database, DbError, Namespaced, NamespacedReader, Pair, Reader, Table, Writer,
};
use federation_core::{ModuleId, TxId};

const AGREED: u8 = 0;
const MODULE: u8 = 1;
const LOCAL: u8 = 2;
const MODULE_LOCAL: u8 = 3;
const HISTORY: u8 = 4;

/// The next epoch: all before it are in the database.
pub const NEXT_EPOCH: Table<(), u64> = Table::new(1, "next epoch");
/// Accepted transactions.
pub const TRANSACTIONS: Table<TxId, Decided> = Table::new(3, "transactions");

/// The batches of past epochs, as consensus encodes them, by epoch and piece; see [`crate::history::batches`].
pub const BATCHES: Table<(u64, u8), Vec<u8>> = Table::new(9, "batches");
/// The headers of past epochs, as consensus encodes them.
pub const HEADERS: Table<u64, Vec<u8>> = Table::new(2, "headers");
/// Their signatures, as far as they are known here.
pub const SIGNATURES: Table<u64, Vec<(NodeId, Signature)>> = Table::new(3, "signatures of headers");
/// The oldest epoch whose batch is kept, if not 0.
pub const FIRST_BATCH: Table<(), u64> = Table::new(4, "first batch");
/// The oldest epoch whose header is kept, if not 0; of the older ones only those of snapshots are.
pub const FIRST_HEADER: Table<(), u64> = Table::new(5, "first header");
/// Transactions that were rejected, and why; forgotten some time after the batch of their epoch. No part of the state: rejections cost
/// nothing, so nobody may fill it with them, and a newer version may word a reason better.
pub const REJECTED: Table<TxId, Decided> = Table::new(6, "rejected transactions");
/// Which of them each epoch rejected.
pub const REJECTIONS: Table<u64, Vec<TxId>> = Table::new(7, "rejections");
/// The oldest epoch whose rejections are kept, if not 0.
pub const FIRST_REJECTIONS: Table<(), u64> = Table::new(8, "first rejections");

/// The setup's state, encrypted.
pub const SETUP: Table<(), Vec<u8>> = Table::new(1, "setup");
/// Transactions handed in here and not yet decided, by their hash.
pub const POOL: Table<[u8; 32], Vec<u8>> = Table::new(2, "pool");

/// Wallets' backups, by their keys; see [`crate::backups`].
pub const BACKUPS: Table<[u8; 32], crate::backups::Kept> = Table::new(20, "backups");
/// Their keys by the day of the last write (since 1970).
pub const BACKUPS_BY_DAY: Table<(u64, [u8; 32]), ()> = Table::new(21, "days of backups");
/// How many there are.
pub const BACKUP_COUNT: Table<(), u64> = Table::new(22, "number of backups");

/// The sums that the state digest is made of, see [`crate::history::lthash`].
pub const SUMS: Table<(), Vec<u8>> = Table::new(10, "state digest");
/// Set when this guardian's state has turned out to differ from the others'.
pub const DIVERGED: Table<(), Divergence> = Table::new(11, "divergence");
/// Set while the state is to be had from other guardians.
pub const RESTORE: Table<(), Restore> = Table::new(12, "restore");

/// A state that differs from the others'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Divergence {
    /// The epoch after which it was found out.
    pub epoch: u64,
    /// The hash of the own header.
    pub own: [u8; 32],
    /// The hash that f + 1 others have signed.
    pub others: [u8; 32],
}

/// How far the restoring of a lost state has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Restore {
    /// The other guardians are to be asked for a snapshot.
    Wanted,
    /// A snapshot is being written: what is in the database is neither the old state nor the new one.
    Writing,
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Decided {
    /// In this epoch, with outputs of these modules.
    Accepted {
        /// The epoch.
        epoch: u64,
        /// The module of each output.
        outputs: Vec<ModuleId>,
    },
    /// Refused by a rule. The same transaction may be handed in again when the reason is gone.
    Rejected {
        /// The epoch.
        epoch: u64,
        /// The stable code.
        code: String,
        /// The reason for a person.
        reason: String,
    },
}

fn module_prefix(tag: u8, module: ModuleId) -> Vec<u8> {
    let [high, low] = module.0.to_be_bytes();
    vec![tag, high, low]
}

/// The agreed tables of this file, for writing.
pub fn agreed(db: &mut dyn Writer) -> Namespaced<'_> {
    Namespaced::new(db, vec![AGREED])
}

/// The agreed tables of this file, for reading.
pub fn agreed_reader(db: Arc<dyn Reader>) -> NamespacedReader {
    NamespacedReader::new(db, vec![AGREED])
}

/// The whole key of an entry of a module's part.
pub fn module_key(module: ModuleId, key: &[u8]) -> Vec<u8> {
    [module_prefix(MODULE, module).as_slice(), key].concat()
}

/// The whole key of an entry of an agreed table.
pub fn agreed_key(key: &[u8]) -> Vec<u8> {
    [&[AGREED], key].concat()
}

/// The whole key of a transaction.
pub fn transaction_key(txid: &TxId) -> Vec<u8> {
    agreed_key(&TRANSACTIONS.key(txid))
}

/// A module's part, for writing.
pub fn module(db: &mut dyn Writer, module: ModuleId) -> Namespaced<'_> {
    Namespaced::new(db, module_prefix(MODULE, module))
}

/// A module's part, for reading.
pub fn module_reader(db: Arc<dyn Reader>, module: ModuleId) -> NamespacedReader {
    NamespacedReader::new(db, module_prefix(MODULE, module))
}

/// Whether a key is part of the agreed state.
pub fn is_agreed(key: &[u8]) -> bool {
    matches!(key.first(), Some(&(AGREED | MODULE)))
}

/// The prefixes of all agreed keys, in order.
pub const AGREED_PREFIXES: [[u8; 1]; 2] = [[AGREED], [MODULE]];
/// The prefixes of all that comes from the federation: the agreed keys, and the history.
pub const FEDERATION_PREFIXES: [[u8; 1]; 3] = [[AGREED], [MODULE], [HISTORY]];

/// The history of past epochs, for writing.
pub fn history(db: &mut dyn Writer) -> Namespaced<'_> {
    Namespaced::new(db, vec![HISTORY])
}

/// The history of past epochs, for reading.
pub fn history_reader(db: Arc<dyn Reader>) -> NamespacedReader {
    NamespacedReader::new(db, vec![HISTORY])
}

/// This guardian's own tables, for writing.
pub fn local(db: &mut dyn Writer) -> Namespaced<'_> {
    Namespaced::new(db, vec![LOCAL])
}

/// This guardian's own tables, for reading.
pub fn local_reader(db: Arc<dyn Reader>) -> NamespacedReader {
    NamespacedReader::new(db, vec![LOCAL])
}

/// What a module keeps for itself, outside of consensus.
pub fn module_local(db: Arc<dyn Database>, module: ModuleId) -> Arc<dyn Database> {
    Arc::new(Part { inner: db, prefix: module_prefix(MODULE_LOCAL, module) })
}

/// A database that is a part of another.
struct Part {
    inner: Arc<dyn Database>,
    prefix: Vec<u8>,
}

impl Part {
    fn reader(&self) -> NamespacedReader {
        NamespacedReader::new(Arc::clone(&self.inner) as Arc<dyn Reader>, self.prefix.clone())
    }
}

#[async_trait::async_trait]
impl Reader for Part {
    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        self.reader().get(key).await
    }
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, DbError> {
        self.reader().get_many(keys).await
    }
    async fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, DbError> {
        self.reader().scan(prefix, after, limit).await
    }
}

#[async_trait::async_trait]
impl Database for Part {
    async fn commit(&self, changes: Changes) -> Result<(), DbError> {
        let changes = changes
            .into_iter()
            .map(|(key, value)| ([self.prefix.as_slice(), &key].concat(), value))
            .collect();
        self.inner.commit(changes).await
    }

    async fn view(&self) -> Result<Arc<dyn Reader>, DbError> {
        Ok(Arc::new(NamespacedReader::new(self.inner.view().await?, self.prefix.clone())))
    }
}

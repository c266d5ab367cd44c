//! How a guardian's database is divided.
//!
//! | first byte | holds | agreed on |
//! |---|---|---|
//! | 0 | epochs, transactions: the tables below | yes |
//! | 1, then the module id | what modules keep | yes |
//! | 2 | setup, pool: this guardian's own | no |
//! | 3, then the module id | what modules keep for themselves | no |

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::db::{
    Changes, Database, DbError, Namespaced, NamespacedReader, Pair, Reader, Table, Writer,
};
use federation_core::{ModuleId, TxId};

const AGREED: u8 = 0;
const MODULE: u8 = 1;
const LOCAL: u8 = 2;
const MODULE_LOCAL: u8 = 3;

/// The next epoch: all before it are in the database.
pub const NEXT_EPOCH: Table<(), u64> = Table::new(1, "next epoch");
/// The batches of past epochs, as consensus encodes them.
pub const HISTORY: Table<u64, Vec<u8>> = Table::new(2, "history");
/// What became of transactions.
pub const TRANSACTIONS: Table<TxId, Decided> = Table::new(3, "transactions");

/// The setup's state, encrypted.
pub const SETUP: Table<(), Vec<u8>> = Table::new(1, "setup");
/// Transactions handed in here and not yet decided, by their hash.
pub const POOL: Table<[u8; 32], Vec<u8>> = Table::new(2, "pool");

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

/// A module's part, for writing.
pub fn module(db: &mut dyn Writer, module: ModuleId) -> Namespaced<'_> {
    Namespaced::new(db, module_prefix(MODULE, module))
}

/// A module's part, for reading.
pub fn module_reader(db: Arc<dyn Reader>, module: ModuleId) -> NamespacedReader {
    NamespacedReader::new(db, module_prefix(MODULE, module))
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

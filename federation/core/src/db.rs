//! What a module sees of the store: reading, writing into the epoch's batch, and typed tables.
//!
//! The store itself is in `federation-store`; this file holds only its shape, so that modules do
//! not depend on an engine.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use async_trait::async_trait;
use borsh::{BorshDeserialize, BorshSerialize};

use crate::encoding::{decode, encode};
use crate::{FederationId, ModuleId, OutPoint, PeerId, TxId};

/// A key and its value, as stored.
pub type Pair = (Vec<u8>, Vec<u8>);
/// What one commit changes: `None` deletes the key.
pub type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// The largest value a table reads back. Larger ones are never written.
const MAX_VALUE: usize = 64 << 20;

/// What goes wrong in a store. The process that meets one stops cleanly: its state on disk is that of
/// the last commit.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The engine failed: disk full, connection lost, file damaged.
    #[error("the database failed: {0}")]
    Engine(String),
    /// A stored value is not what this version writes.
    #[error("the database holds a value that cannot be read ({table}): {reason}")]
    Corrupt {
        /// Which table.
        table: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The database was written by a newer version.
    #[error(
        "the database has schema version {found}, this program knows up to {known}: install the newer version"
    )]
    TooNew {
        /// The version that was found.
        found: u32,
        /// The newest version that this program knows.
        known: u32,
    },
}

/// Reads keys and values.
#[async_trait]
pub trait Reader: Send + Sync {
    /// The value of a key.
    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DbError>;
    /// The values of many keys with one query, in the order asked.
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, DbError>;
    /// At most `limit` pairs whose keys start with `prefix` and are greater than `after`, in ascending
    /// order of keys.
    async fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, DbError>;
}

/// Reads and writes; writes show up in later reads at once and on disk with the batch's commit.
pub trait Writer: Reader {
    /// Sets a key.
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>);
    /// Removes a key.
    fn delete(&mut self, key: Vec<u8>);
}

/// A store: committed state, and atomic commits.
#[async_trait]
pub trait Database: Reader + 'static {
    /// Makes all changes, or none; durable when it returns.
    async fn commit(&self, changes: Changes) -> Result<(), DbError>;

    /// What is committed now, as long as this value lives and whatever is committed meanwhile. It keeps the engine from
    /// tidying up, so it should not live for hours.
    async fn view(&self) -> Result<Arc<dyn Reader>, DbError>;
}

/// A part of the store that belongs to one module or one purpose: every key gets a prefix.
pub struct Namespaced<'a> {
    inner: &'a mut dyn Writer,
    prefix: Vec<u8>,
}

impl<'a> Namespaced<'a> {
    /// The keys of `inner` under `prefix`.
    pub fn new(inner: &'a mut dyn Writer, prefix: Vec<u8>) -> Self {
        Self { inner, prefix }
    }
}

/// The same for readers that live as long as they are needed, such as API routes.
#[derive(Clone)]
pub struct NamespacedReader {
    inner: Arc<dyn Reader>,
    prefix: Vec<u8>,
}

impl NamespacedReader {
    /// The keys of `inner` under `prefix`.
    pub fn new(inner: Arc<dyn Reader>, prefix: Vec<u8>) -> Self {
        Self { inner, prefix }
    }
}

async fn get_prefixed(inner: &dyn Reader, prefix: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
    inner.get(&[prefix, key].concat()).await
}

async fn get_many_prefixed(
    inner: &dyn Reader,
    prefix: &[u8],
    keys: &[Vec<u8>],
) -> Result<Vec<Option<Vec<u8>>>, DbError> {
    let keys: Vec<_> = keys.iter().map(|key| [prefix, key].concat()).collect();
    inner.get_many(&keys).await
}

async fn scan_prefixed(
    inner: &dyn Reader,
    namespace: &[u8],
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Pair>, DbError> {
    let after = after.map(|key| [namespace, key].concat());
    let pairs = inner.scan(&[namespace, prefix].concat(), after.as_deref(), limit).await?;
    Ok(pairs
        .into_iter()
        .map(|(key, value)| (key.get(namespace.len()..).unwrap_or_default().to_vec(), value))
        .collect())
}

#[async_trait]
impl Reader for Namespaced<'_> {
    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        get_prefixed(&*self.inner, &self.prefix, key).await
    }
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, DbError> {
        get_many_prefixed(&*self.inner, &self.prefix, keys).await
    }
    async fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, DbError> {
        scan_prefixed(&*self.inner, &self.prefix, prefix, after, limit).await
    }
}

impl Writer for Namespaced<'_> {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.inner.put([self.prefix.as_slice(), &key].concat(), value);
    }
    fn delete(&mut self, key: Vec<u8>) {
        self.inner.delete([self.prefix.as_slice(), &key].concat());
    }
}

#[async_trait]
impl Reader for NamespacedReader {
    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        get_prefixed(&*self.inner, &self.prefix, key).await
    }
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, DbError> {
        get_many_prefixed(&*self.inner, &self.prefix, keys).await
    }
    async fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, DbError> {
        scan_prefixed(&*self.inner, &self.prefix, prefix, after, limit).await
    }
}

/// What can be the key of a [`Table`]. The bytes sort as the values do.
pub trait TableKey: Sized {
    /// Appends the key's bytes.
    fn write(&self, out: &mut Vec<u8>);
    /// Takes a key from the front of `bytes`.
    fn read(bytes: &mut &[u8]) -> Option<Self>;
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = bytes.split_first_chunk::<N>()?;
    *bytes = tail;
    Some(*head)
}

macro_rules! integer_key {
    ($($int:ty),*) => {$(
        impl TableKey for $int {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
            fn read(bytes: &mut &[u8]) -> Option<Self> {
                take(bytes).map(<$int>::from_be_bytes)
            }
        }
    )*};
}
integer_key!(u8, u16, u32, u64);

macro_rules! newtype_key {
    ($($name:ident($inner:ty)),*) => {$(
        impl TableKey for $name {
            fn write(&self, out: &mut Vec<u8>) {
                self.0.write(out);
            }
            fn read(bytes: &mut &[u8]) -> Option<Self> {
                <$inner>::read(bytes).map($name)
            }
        }
    )*};
}
newtype_key!(PeerId(u16), ModuleId(u16), TxId([u8; 32]), FederationId([u8; 32]));

impl<const N: usize> TableKey for [u8; N] {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        take(bytes)
    }
}

impl TableKey for () {
    fn write(&self, _: &mut Vec<u8>) {}
    fn read(_: &mut &[u8]) -> Option<Self> {
        Some(())
    }
}

impl<A: TableKey, B: TableKey> TableKey for (A, B) {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        self.1.write(out);
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some((A::read(bytes)?, B::read(bytes)?))
    }
}

impl TableKey for OutPoint {
    fn write(&self, out: &mut Vec<u8>) {
        self.txid.write(out);
        self.index.write(out);
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some(OutPoint { txid: TxId::read(bytes)?, index: u16::read(bytes)? })
    }
}

/// A typed table: `const NOTES: Table<[u8; 32], Note> = Table::new(1, "spent notes");`
///
/// Keys go through [`TableKey`], values through borsh. Use `()` as the key of a single value.
pub struct Table<K, V> {
    tag: u8,
    name: &'static str,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: TableKey, V: BorshSerialize + BorshDeserialize> Table<K, V> {
    /// The table whose keys start with `tag`, unique within its namespace.
    pub const fn new(tag: u8, name: &'static str) -> Self {
        Self { tag, name, types: PhantomData }
    }

    /// The stored key of an entry, within the table's namespace.
    pub fn key(&self, key: &K) -> Vec<u8> {
        let mut out = vec![self.tag];
        key.write(&mut out);
        out
    }

    fn value(&self, bytes: &[u8]) -> Result<V, DbError> {
        decode(bytes, MAX_VALUE).map_err(|error| self.corrupt(error.to_string()))
    }

    fn corrupt(&self, reason: String) -> DbError {
        DbError::Corrupt { table: self.name.to_owned(), reason }
    }

    /// The value of a key.
    pub async fn get(&self, db: &dyn Reader, key: &K) -> Result<Option<V>, DbError> {
        db.get(&self.key(key)).await?.map(|bytes| self.value(&bytes)).transpose()
    }

    /// The values of many keys with one query, in the order asked.
    pub async fn get_many(&self, db: &dyn Reader, keys: &[K]) -> Result<Vec<Option<V>>, DbError> {
        let keys: Vec<_> = keys.iter().map(|key| self.key(key)).collect();
        let values = db.get_many(&keys).await?;
        values.into_iter().map(|v| v.map(|bytes| self.value(&bytes)).transpose()).collect()
    }

    /// Whether there is a value.
    pub async fn contains(&self, db: &dyn Reader, key: &K) -> Result<bool, DbError> {
        Ok(db.get(&self.key(key)).await?.is_some())
    }

    /// Sets a value.
    pub fn put(&self, db: &mut dyn Writer, key: &K, value: &V) {
        db.put(self.key(key), encode(value));
    }

    /// Removes a value.
    pub fn delete(&self, db: &mut dyn Writer, key: &K) {
        db.delete(self.key(key));
    }

    /// At most `limit` entries whose keys start with the parts in `prefix` and come after `after`.
    pub async fn scan<P: TableKey>(
        &self,
        db: &dyn Reader,
        prefix: &P,
        after: Option<&K>,
        limit: usize,
    ) -> Result<Vec<(K, V)>, DbError> {
        let mut start = vec![self.tag];
        prefix.write(&mut start);
        let after = after.map(|key| self.key(key));
        let pairs = db.scan(&start, after.as_deref(), limit).await?;
        pairs
            .into_iter()
            .map(|(key, value)| {
                let mut rest = key.get(1..).unwrap_or_default();
                let key = K::read(&mut rest).filter(|_| rest.is_empty());
                let key = key.ok_or_else(|| self.corrupt("a key has the wrong length".to_owned()))?;
                Ok((key, self.value(&value)?))
            })
            .collect()
    }

    /// All entries, in pages. For tables that are known to be small.
    pub async fn all(&self, db: &dyn Reader) -> Result<Vec<(K, V)>, DbError> {
        self.all_under(db, &()).await
    }

    /// All entries whose keys start with `prefix`, in pages. For parts that are known to be small.
    pub async fn all_under<P: TableKey>(&self, db: &dyn Reader, prefix: &P) -> Result<Vec<(K, V)>, DbError> {
        const PAGE: usize = 1000;
        let mut entries: Vec<(K, V)> = Vec::new();
        loop {
            let page = self.scan(db, prefix, entries.last().map(|(key, _)| key), PAGE).await?;
            let done = page.len() < PAGE;
            entries.extend(page);
            if done {
                return Ok(entries);
            }
        }
    }
}

//! Transactions that were handed in here and are not decided yet.
//!
//! An entry is durable before `proposed` is answered, and stays until its epoch is committed. The
//! pool is bounded; what is over the bound is refused, never dropped later.

use std::collections::BTreeMap;
use std::sync::Arc;

use federation_core::db::{Database, DbError};
use federation_core::encoding::encode;
use federation_core::{FederationId, Transaction, TxId};
use federation_store::WriteBatch;
use rand::seq::SliceRandom;
use tokio::sync::{Mutex, Notify};

use super::contribution::MAX_TRANSACTIONS;
use crate::state::{self, POOL};

/// The most transactions that wait.
const MAX_ENTRIES: usize = 10_000;
/// The most bytes that wait.
const MAX_BYTES: usize = 64 << 20;

/// One transaction in the pool.
struct Entry {
    txid: TxId,
    bytes: Arc<[u8]>,
}

#[derive(Default)]
struct Entries {
    by_hash: BTreeMap<[u8; 32], Entry>,
    /// How many entries share a transaction id (the same transaction with other signatures).
    ids: BTreeMap<TxId, usize>,
    bytes: usize,
}

/// The pending pool.
pub struct Pool {
    db: Arc<dyn Database>,
    entries: Mutex<Entries>,
    /// Notified when there is something new to propose.
    pub work: Arc<Notify>,
}

/// The pool has no room.
#[derive(Debug)]
pub struct Full;

impl Pool {
    /// Reads what was left at the last stop.
    pub async fn open(
        db: Arc<dyn Database>,
        federation: FederationId,
        work: Arc<Notify>,
    ) -> Result<Self, DbError> {
        let mut entries = Entries::default();
        for (hash, bytes) in POOL.all(&state::local_reader(Arc::clone(&db) as _)).await? {
            if let Ok(transaction) = Transaction::from_bytes(&bytes) {
                entries.insert(hash, transaction.txid(federation), bytes.into());
            }
        }
        Ok(Self { db, entries: Mutex::new(entries), work })
    }

    /// Keeps a transaction until it is decided; durable when it returns.
    pub async fn add(&self, txid: TxId, transaction: &Transaction) -> Result<Result<(), Full>, DbError> {
        let hash = transaction.hash();
        let bytes = encode(transaction);
        {
            let entries = self.entries.lock().await;
            if entries.by_hash.contains_key(&hash) {
                return Ok(Ok(()));
            }
            if entries.by_hash.len() >= MAX_ENTRIES || entries.bytes.saturating_add(bytes.len()) > MAX_BYTES {
                return Ok(Err(Full));
            }
        }
        let mut batch = WriteBatch::new(Arc::clone(&self.db));
        POOL.put(&mut state::local(&mut batch), &hash, &bytes);
        batch.commit().await?;
        self.entries.lock().await.insert(hash, txid, bytes.into());
        self.work.notify_one();
        Ok(Ok(()))
    }

    /// Whether a transaction is waiting.
    pub async fn contains(&self, txid: &TxId) -> bool {
        self.entries.lock().await.ids.contains_key(txid)
    }

    /// How many wait.
    pub async fn waiting(&self) -> usize {
        self.entries.lock().await.by_hash.len()
    }

    /// A fair draw that fits into a contribution: all when there are few, else a random part, so that
    /// no client's transactions stand behind another's.
    pub async fn draw(&self) -> Vec<Vec<u8>> {
        let entries = self.entries.lock().await;
        let mut waiting: Vec<_> = entries.by_hash.values().map(|entry| Arc::clone(&entry.bytes)).collect();
        drop(entries);
        waiting.shuffle(&mut rand::thread_rng());
        let mut room = MAX_TRANSACTIONS;
        let mut drawn = Vec::new();
        for bytes in waiting {
            // Four bytes of length go with each in the encoding.
            if let Some(left) = room.checked_sub(bytes.len().saturating_add(4)) {
                room = left;
                drawn.push(bytes.to_vec());
            }
        }
        drawn
    }

    /// Takes decided transactions out, in the epoch's own commit.
    pub fn forget(&self, batch: &mut WriteBatch, hashes: &[[u8; 32]]) {
        let mut local = state::local(batch);
        for hash in hashes {
            POOL.delete(&mut local, hash);
        }
    }

    /// The same in memory, after the commit.
    pub async fn forgotten(&self, hashes: &[[u8; 32]]) {
        let mut entries = self.entries.lock().await;
        for hash in hashes {
            entries.remove(hash);
        }
    }
}

impl Entries {
    fn insert(&mut self, hash: [u8; 32], txid: TxId, bytes: Arc<[u8]>) {
        let size = bytes.len();
        if self.by_hash.insert(hash, Entry { txid, bytes }).is_none() {
            self.bytes = self.bytes.saturating_add(size);
            let count = self.ids.entry(txid).or_default();
            *count = count.saturating_add(1);
        }
    }

    fn remove(&mut self, hash: &[u8; 32]) {
        if let Some(entry) = self.by_hash.remove(hash) {
            self.bytes = self.bytes.saturating_sub(entry.bytes.len());
            if let Some(count) = self.ids.get_mut(&entry.txid) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.ids.remove(&entry.txid);
                }
            }
        }
    }
}

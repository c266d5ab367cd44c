//! Transactions that were handed in here and are not decided yet.
//!
//! An entry is durable before `proposed` is answered, and stays until its epoch is committed. The
//! pool is bounded; what is over a bound is refused, never dropped later. Submissions that come while the disk is
//! busy are made durable together, in one commit. [`entries`](super::entries) says what may come in and who is drawn.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use federation_core::db::{Database, DbError};
use federation_core::encoding::encode;
use federation_core::{FederationId, Transaction, TxId};
use federation_store::WriteBatch;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::contribution::{MAX_TRANSACTION_COUNT, MAX_TRANSACTIONS};
pub use super::entries::NoRoom;
use super::entries::{Candidate, Entries, MAX_BYTES, MAX_ENTRIES, Reserved};
use crate::state::{self, POOL};

/// The most submissions of one commit.
const GROUP: usize = 256;

/// The pending pool.
pub struct Pool {
    entries: Arc<Mutex<Entries>>,
    writes: mpsc::UnboundedSender<Write>,
    failed: watch::Receiver<Option<String>>,
}

/// A submission on its way to the disk.
struct Write {
    /// `None`: the same transaction is on its way already, in front of this.
    entry: Option<([u8; 32], Arc<[u8]>)>,
    done: oneshot::Sender<Result<(), String>>,
}

/// How full the pool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many transactions wait.
    pub entries: usize,
    /// How many of them are durable, so that they can be proposed.
    pub ready: usize,
    /// Their bytes.
    pub bytes: usize,
    /// How long the oldest has waited.
    pub oldest: Duration,
}

impl Waiting {
    /// Whether it holds as much as a contribution takes.
    pub fn fills_a_contribution(&self) -> bool {
        self.bytes >= MAX_TRANSACTIONS || self.entries >= MAX_TRANSACTION_COUNT
    }

    /// Whether submissions are going to be refused soon: nine tenths of a bound are used.
    pub fn nearly_full(&self) -> bool {
        self.entries >= MAX_ENTRIES / 10 * 9 || self.bytes >= MAX_BYTES / 10 * 9
    }
}

fn lock(entries: &Mutex<Entries>) -> MutexGuard<'_, Entries> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// Reads what was left at the last stop. `work` is notified when there is something new to propose.
    pub async fn open(
        db: Arc<dyn Database>,
        federation: FederationId,
        work: Arc<Notify>,
    ) -> Result<Self, DbError> {
        let mut entries = Entries::default();
        for (hash, bytes) in POOL.all(&state::local_reader(Arc::clone(&db) as _)).await? {
            if let Ok(transaction) = Transaction::from_bytes(&bytes) {
                let txid = transaction.txid(federation);
                entries.restore(Candidate::new(hash, txid, bytes.into(), &transaction.inputs));
            }
        }
        let entries = Arc::new(Mutex::new(entries));
        let (writes, queue) = mpsc::unbounded_channel();
        let (failure, failed) = watch::channel(None);
        let writer = Writer { db, entries: Arc::clone(&entries), work };
        tokio::spawn(async move {
            if let Err(error) = writer.run(queue).await {
                failure.send_replace(Some(error));
            }
        });
        Ok(Self { entries, writes, failed })
    }

    /// Keeps a transaction until it is decided; durable when it returns.
    pub async fn add(&self, txid: TxId, transaction: &Transaction) -> Result<Result<(), NoRoom>, DbError> {
        let hash = transaction.hash();
        let bytes: Arc<[u8]> = encode(transaction).into();
        let candidate = Candidate::new(hash, txid, Arc::clone(&bytes), &transaction.inputs);
        let (done, durable) = oneshot::channel();
        {
            // The queue has the order of the reservations: who comes second waits behind the first.
            let mut entries = lock(&self.entries);
            let entry = match entries.reserve(candidate) {
                Ok(Reserved::Durable) => return Ok(Ok(())),
                Ok(Reserved::New) => Some((hash, bytes)),
                Ok(Reserved::Soon) => None,
                Err(no_room) => return Ok(Err(no_room)),
            };
            self.writes.send(Write { entry, done }).map_err(|_| closed())?;
        }
        durable.await.map_err(|_| closed())?.map_err(DbError::Engine)?;
        Ok(Ok(()))
    }

    /// Whether a transaction is waiting.
    pub fn contains(&self, txid: &TxId) -> bool {
        lock(&self.entries).contains(txid)
    }

    /// How full it is.
    pub fn waiting(&self) -> Waiting {
        let entries = lock(&self.entries);
        Waiting {
            entries: entries.len(),
            ready: entries.ready(),
            bytes: entries.bytes(),
            oldest: entries.oldest(),
        }
    }

    /// A fair draw that fits into a contribution.
    pub fn draw(&self) -> Vec<Arc<[u8]>> {
        lock(&self.entries).draw(&mut rand::thread_rng(), MAX_TRANSACTIONS, MAX_TRANSACTION_COUNT)
    }

    /// How many of these are in the pool.
    pub fn count(&self, hashes: &[[u8; 32]]) -> usize {
        let entries = lock(&self.entries);
        hashes.iter().filter(|hash| entries.has(hash)).count()
    }

    /// Takes decided transactions out, in the epoch's own commit.
    pub fn forget(&self, batch: &mut WriteBatch, hashes: &[[u8; 32]]) {
        let entries = lock(&self.entries);
        let mut local = state::local(batch);
        for hash in hashes.iter().filter(|hash| entries.has(hash)) {
            POOL.delete(&mut local, hash);
        }
    }

    /// The same in memory, after the commit.
    pub fn forgotten(&self, hashes: &[[u8; 32]]) {
        let mut entries = lock(&self.entries);
        for hash in hashes {
            entries.remove(hash);
        }
    }

    /// Resolves when the pool can't be written any more, with the reason: the guardian has to stop.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "its writer ended".to_owned(),
        }
    }
}

fn closed() -> DbError {
    DbError::Engine("the pool is closed: the guardian stops".to_owned())
}

/// Makes submissions durable. A task of its own: a client that hangs up must not cut off the commit of others.
struct Writer {
    db: Arc<dyn Database>,
    entries: Arc<Mutex<Entries>>,
    work: Arc<Notify>,
}

impl Writer {
    async fn run(self, mut queue: mpsc::UnboundedReceiver<Write>) -> Result<(), String> {
        let mut group = Vec::new();
        while queue.recv_many(&mut group, GROUP).await > 0 {
            let result = self.write(&group).await.map_err(|error| error.to_string());
            for write in group.drain(..) {
                // Nobody may be waiting any more: it is kept all the same.
                let _ = write.done.send(result.clone());
            }
            result?;
        }
        Ok(())
    }

    async fn write(&self, group: &[Write]) -> Result<(), DbError> {
        let new = || group.iter().filter_map(|write| write.entry.as_ref());
        let mut batch = WriteBatch::new(Arc::clone(&self.db));
        for (hash, bytes) in new() {
            POOL.put(&mut state::local(&mut batch), hash, &bytes.to_vec());
        }
        batch.commit().await?;
        let gone = lock(&self.entries).durable(new().map(|(hash, _)| *hash));
        self.work.notify_one();
        // Decided while they were on their way here: another guardian had them, too.
        let mut batch = WriteBatch::new(Arc::clone(&self.db));
        for hash in gone {
            POOL.delete(&mut state::local(&mut batch), &hash);
        }
        batch.commit().await
    }
}

//! Headers, their signatures and the batches of past epochs, in the database.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use federation_consensus::header::{Header, Signatures};
use federation_consensus::runner::History;
use federation_core::db::{Database, DbError, NamespacedReader, Reader};
use federation_store::WriteBatch;

use super::{batches, digest};
use crate::running::next_epoch;
use crate::state::{self, DIVERGED, Divergence, FIRST_BATCH, HEADERS, SIGNATURES};

/// How long signatures wait for the next epoch's commit before they get one of their own.
const LAZY: Duration = Duration::from_millis(500);

/// What this guardian keeps of past epochs.
pub struct Archive {
    db: Arc<dyn Database>,
    /// Signatures that are not stored yet, and since when the oldest waits. They may be lost: the others have them.
    waiting: Mutex<(BTreeMap<u64, Signatures>, Option<Instant>)>,
    diverged: Mutex<Option<Divergence>>,
}

impl Archive {
    /// What a database has.
    pub async fn open(db: Arc<dyn Database>) -> Result<Self, DbError> {
        let diverged = DIVERGED.get(&state::local_reader(Arc::clone(&db) as _), &()).await?;
        Ok(Self { db, waiting: Mutex::default(), diverged: Mutex::new(diverged) })
    }

    fn reader(&self) -> NamespacedReader {
        state::history_reader(Arc::clone(&self.db) as Arc<dyn Reader>)
    }

    fn waiting(&self) -> MutexGuard<'_, (BTreeMap<u64, Signatures>, Option<Instant>)> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an applied epoch's batch and header into its commit, as the last thing: the digest is of all that was written
    /// before.
    pub async fn append(
        &self,
        db: &mut WriteBatch,
        epoch: u64,
        items: [u8; 32],
        batch: &Bytes,
    ) -> Result<Header, DbError> {
        let state = digest::update(db).await?;
        let previous = match epoch.checked_sub(1) {
            None => Header::GENESIS,
            Some(before) => header(&state::history(db), before).await?.ok_or_else(|| missing(before))?.hash(),
        };
        let header = Header { epoch, previous, items, state };
        let mut history = state::history(db);
        batches::put(&mut history, epoch, batch);
        HEADERS.put(&mut history, &epoch, &header.encode());
        Ok(header)
    }

    /// Remembers signatures for the next commit.
    pub fn signed(&self, epoch: u64, signatures: Signatures) {
        let mut waiting = self.waiting();
        waiting.0.entry(epoch).or_default().extend(signatures);
        waiting.1.get_or_insert_with(Instant::now);
    }

    /// Resolves when signatures have waited long enough for an epoch that does not come.
    pub async fn idle(&self) {
        let since = self.waiting().1;
        match since {
            Some(since) => tokio::time::sleep(LAZY.saturating_sub(since.elapsed())).await,
            None => std::future::pending().await,
        }
    }

    /// Stores waiting signatures in a commit of their own.
    pub async fn store_signatures(&self) -> Result<(), DbError> {
        let mut db = WriteBatch::new(Arc::clone(&self.db));
        self.put_signatures(&mut db);
        db.commit().await
    }

    /// Puts waiting signatures into a commit. Not before it is certain that there will be one.
    pub fn put_signatures(&self, db: &mut WriteBatch) {
        let (waiting, _) = std::mem::take(&mut *self.waiting());
        let mut history = state::history(db);
        for (epoch, signatures) in waiting {
            put_signatures(&mut history, epoch, &signatures);
        }
    }

    /// Why this guardian's state can't be trusted, if it can't.
    pub fn divergence(&self) -> Option<Divergence> {
        *self.diverged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers for ever that the others have come to another state.
    pub async fn diverged(&self, found: Divergence) -> Result<(), DbError> {
        tracing::error!(
            epoch = found.epoch,
            own = hex::encode(found.own),
            others = hex::encode(found.others),
            "{}",
            alarm(&found)
        );
        *self.diverged.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        let mut db = WriteBatch::new(Arc::clone(&self.db));
        DIVERGED.put(&mut state::local(&mut db), &(), &found);
        db.commit().await
    }

    /// The header of a past epoch and its signatures.
    pub async fn signed_header(&self, epoch: u64) -> Result<Option<(Header, Signatures)>, DbError> {
        let db = self.reader();
        let Some(header) = header(&db, epoch).await? else { return Ok(None) };
        let mut signatures = signatures(&db, epoch).await?;
        if let Some(waiting) = self.waiting().0.get(&epoch) {
            signatures.extend(waiting);
        }
        Ok(Some((header, signatures)))
    }
}

/// What an operator reads of a divergence.
pub fn alarm(found: &Divergence) -> String {
    format!(
        "after epoch {} this guardian's state differs from what f + 1 others have signed: it signs and proposes nothing \
         and takes no transactions any more. Keep its data folder for those who look into it, and restore the \
         guardian from its backup into a new one",
        found.epoch
    )
}

fn missing(epoch: u64) -> DbError {
    DbError::Corrupt {
        table: "headers".to_owned(),
        reason: format!("the header of epoch {epoch} is missing"),
    }
}

/// Sets what is known of who signed a header.
pub(super) fn put_signatures(
    history: &mut federation_core::db::Namespaced<'_>,
    epoch: u64,
    signatures: &Signatures,
) {
    let signatures = signatures.iter().map(|(node, signature)| (*node, *signature)).collect();
    SIGNATURES.put(history, &epoch, &signatures);
}

async fn header(history: &dyn Reader, epoch: u64) -> Result<Option<Header>, DbError> {
    let Some(bytes) = HEADERS.get(history, &epoch).await? else { return Ok(None) };
    let corrupt =
        |_| DbError::Corrupt { table: "headers".to_owned(), reason: format!("that of epoch {epoch}") };
    Header::decode(bytes.into()).map(Some).map_err(corrupt)
}

async fn signatures(history: &dyn Reader, epoch: u64) -> Result<Signatures, DbError> {
    Ok(SIGNATURES.get(history, &epoch).await?.unwrap_or_default().into_iter().collect())
}

fn other(error: DbError) -> io::Error {
    io::Error::other(error)
}

#[async_trait::async_trait]
impl History for Archive {
    async fn next_epoch(&self) -> io::Result<u64> {
        next_epoch(&self.db).await.map_err(other)
    }

    async fn header(&self, epoch: u64) -> io::Result<Option<(Header, Signatures)>> {
        self.signed_header(epoch).await.map_err(other)
    }

    async fn batch(&self, epoch: u64) -> io::Result<Option<Bytes>> {
        batches::get(&self.reader(), epoch).await.map_err(other)
    }

    async fn first_epoch(&self) -> io::Result<u64> {
        Ok(FIRST_BATCH.get(&self.reader(), &()).await.map_err(other)?.unwrap_or_default())
    }

    async fn diverged(&self) -> io::Result<Option<u64>> {
        Ok(self.divergence().map(|found| found.epoch))
    }
}

//! Own partial signatures for those who wait for them, an epoch before the outcome.
//!
//! They are made when the epoch that accepts their outputs is committed, all in one batch, and answered from memory: waiting costs
//! one look into the database, at the beginning. The proposal that follows says the same, out of the [`Signer`](super::signer::Signer)'s
//! memory: nothing is signed twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use federation_core::api::{ApiError, ApiRequest};
use federation_core::db::{DbError, Reader};
use federation_core::transaction::MAX_PARTS;
use federation_core::{OutPoint, TxId};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Mint;
use super::tables::{OUTCOMES, PENDING};
use crate::PointBytes;
use crate::types::MAX_PARTIAL_SIGNATURES;

/// The most finished outputs that are kept for a commit.
const CAPACITY: usize = 16_384;

/// What this guardian can say of the outputs of a transaction, by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Signed {
    /// Its own partial signatures of those that are pending.
    pub shares: BTreeMap<u16, PointBytes>,
    /// The signatures of the others.
    pub outcomes: BTreeMap<u16, PointBytes>,
}

/// What a commit has brought.
#[derive(Default)]
struct Commit {
    number: u64,
    signed: HashMap<TxId, Signed>,
    /// Which transactions it says everything about.
    covers: Covers,
}

/// A bounded part of what may be a lot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Covers {
    #[default]
    Nothing,
    /// Those before this one.
    Before(TxId),
    All,
}

impl Covers {
    fn has(self, txid: &TxId) -> bool {
        match self {
            Self::Nothing => false,
            Self::Before(end) => *txid < end,
            Self::All => true,
        }
    }
}

/// Tells those who wait.
#[derive(Default)]
pub(super) struct Early {
    commits: watch::Sender<Arc<Commit>>,
    /// Finished in epochs that are not committed yet.
    finished: Mutex<Vec<(OutPoint, PointBytes)>>,
}

impl Early {
    /// An output has its signature as soon as this is committed.
    pub fn finished(&self, point: OutPoint, signature: PointBytes) {
        let mut finished = self.in_commit();
        if finished.len() < CAPACITY {
            finished.push((point, signature));
        }
    }

    /// What was applied is applied again, and may come out differently.
    pub fn forget_all(&self) {
        self.in_commit().clear();
    }

    fn in_commit(&self) -> MutexGuard<'_, Vec<(OutPoint, PointBytes)>> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mint {
    /// Signs what was accepted, if anybody waits, and tells them.
    pub(super) async fn tell_early(&self, db: &dyn Reader) -> Result<(), DbError> {
        let finished = std::mem::take(&mut *self.early.in_commit());
        let mut signed: HashMap<TxId, Signed> = HashMap::new();
        let mut covers = if finished.len() < CAPACITY { Covers::All } else { Covers::Nothing };
        // (Who comes after this finds in the database what is committed by now.)
        if self.early.commits.receiver_count() > 0 {
            for (point, signature) in finished {
                signed.entry(point.txid).or_default().outcomes.insert(point.index, signature);
            }
            let pending = PENDING.scan(db, &(), None, MAX_PARTIAL_SIGNATURES).await?;
            if pending.len() >= MAX_PARTIAL_SIGNATURES && covers == Covers::All {
                // The last may have more outputs than were read.
                covers = pending.last().map_or(covers, |(point, _)| Covers::Before(point.txid));
            }
            for (point, share) in self.signer.sign(pending).await? {
                let share = PointBytes(share.to_bytes());
                signed.entry(point.txid).or_default().shares.insert(point.index, share);
            }
        }
        self.early.commits.send_modify(|commit| {
            *commit = Arc::new(Commit { number: commit.number.wrapping_add(1), signed, covers });
        });
        Ok(())
    }

    /// What is known of a transaction's outputs, as soon as it is accepted; `None`: not until the deadline.
    pub(super) async fn wait_early(
        &self,
        request: &ApiRequest,
        txid: TxId,
        deadline: Instant,
    ) -> Result<Option<Signed>, ApiError> {
        // Before the database is asked, so that no commit is missed.
        let mut commits = self.early.commits.subscribe();
        let mut last = commits.borrow_and_update().number;
        loop {
            if let Some(signed) = self.signed(request, txid).await? {
                return Ok(Some(signed));
            }
            loop {
                if !matches!(timeout_at(deadline, commits.changed()).await, Ok(Ok(()))) {
                    return Ok(None);
                }
                let commit = Arc::clone(&commits.borrow_and_update());
                let missed = commit.number != last.wrapping_add(1);
                last = commit.number;
                if missed || !commit.covers.has(&txid) {
                    break;
                }
                if let Some(signed) = commit.signed.get(&txid) {
                    return Ok(Some(signed.clone()));
                }
            }
        }
    }

    /// Out of the database.
    async fn signed(&self, request: &ApiRequest, txid: TxId) -> Result<Option<Signed>, ApiError> {
        let pending = PENDING.scan(&request.db, &txid, None, MAX_PARTS).await?;
        let outcomes = OUTCOMES.scan(&request.db, &txid, None, MAX_PARTS).await?;
        if pending.is_empty() && outcomes.is_empty() {
            return Ok(None);
        }
        let shares = self.signer.sign(pending).await?.into_iter();
        Ok(Some(Signed {
            shares: shares.map(|(point, share)| (point.index, PointBytes(share.to_bytes()))).collect(),
            outcomes: outcomes.into_iter().map(|(point, outcome)| (point.index, outcome)).collect(),
        }))
    }
}

//! Agreed epochs become committed state: one commit for all that are here.
//!
//! Mostly that is one. A guardian that is behind has many, and most of what an epoch costs it once a commit: checking
//! signatures in batches, reading, waiting for the disk.

use std::sync::Arc;

use federation_consensus::Batch;
use federation_consensus::header::Header;
use federation_core::PeerId;
use federation_core::module::{Epoch, Trust};
use federation_store::WriteBatch;

use super::ahead::Said;
use super::apply::{Applied, Applier};
use super::arrivals::Agreed;
use super::pool::Pool;
use crate::error::GuardianError;
use crate::history::snapshot::store::Snapshots;
use crate::history::{Archive, prune};
use crate::running::Running;
use crate::state::{self, NEXT_EPOCH};

/// An epoch that is committed.
pub struct Committed {
    /// Its number.
    pub number: u64,
    /// How many transactions it accepted. What is refused, or wrongly signed, costs its sender nothing: an epoch of that
    /// is worth nothing.
    pub accepted: usize,
    /// How many of those that it decided waited here.
    pub own: usize,
}

/// Applies epochs in one commit, and tells everybody. Meanwhile those that follow are verified.
///
/// # Errors
/// The guardian stops then; what was committed before stays.
pub async fn commit(
    running: &Running,
    epochs: Vec<Agreed>,
    following: impl Iterator<Item = &Agreed>,
) -> Result<Vec<Committed>, GuardianError> {
    let applier = &running.applier;
    let following: Vec<&Agreed> = following.collect();
    let (now, later) =
        (applier.presumer.trust_now(&epochs), applier.presumer.trust(following.iter().copied()));
    let here = note(applier, &epochs, now);
    let following = applier.note(following.iter().map(|agreed| &agreed.batch), later);
    let (committed, looked) =
        tokio::join!(apply_all(running, &epochs, here, now), applier.verify_ahead(following));
    looked?;
    if let Some(committed) = committed? {
        return Ok(committed);
    }
    let first = epochs.first().map_or(0, |agreed| agreed.batch.epoch);
    tracing::warn!(first, "what n - f guardians have signed does not follow unverified: it is verified");
    applier.deceived(first);
    let here = note(applier, &epochs, Trust::Nobody);
    Ok(apply_all(running, &epochs, here, Trust::Nobody).await?.unwrap_or_default())
}

fn note(applier: &Applier, epochs: &[Agreed], trust: Trust) -> Option<Said> {
    // One epoch that comes alone, and is verified, gains nothing by it.
    let gains = epochs.len() > 1 || trust == Trust::Signed;
    gains.then(|| applier.note(epochs.iter().map(|agreed| &agreed.batch), trust))
}

/// `None`, and nothing is done, if their headers aren't those that are proven, and not all was verified.
async fn apply_all(
    running: &Running,
    agreed: &[Agreed],
    said: Option<Said>,
    trust: Trust,
) -> Result<Option<Vec<Committed>>, GuardianError> {
    let mut db = WriteBatch::new(Arc::clone(&running.db));
    if let Some(said) = said {
        running.applier.look_ahead(&db, said).await?;
    }
    let below = running.snapshots.tidy().await;
    let parts = Parts {
        applier: &running.applier,
        pool: &running.pool,
        archive: &running.archive,
        snapshots: &running.snapshots,
    };
    let mut expected = *running.epochs.borrow();
    let batches = agreed.iter().map(|agreed| agreed.batch.clone()).collect();
    let epochs = parts.stage(&mut db, batches, &mut expected, below, trust).await?;
    if trust == Trust::Signed && !as_proven(&epochs, agreed) {
        return Ok(None);
    }
    db.commit().await?;
    if let Some((header, _)) = epochs.last().filter(|(header, _)| running.snapshots.due(header.epoch)) {
        // Before the next commit: the view is of the state after this epoch.
        running.snapshots.take(*header, running.db.view().await?);
    }
    tell(running, epochs, expected).await.map(Some)
}

/// Whether what came of epochs is what was signed.
pub(super) fn as_proven(epochs: &[(Header, Applied)], agreed: &[Agreed]) -> bool {
    let headers = epochs.iter().map(|(header, _)| Some(*header));
    headers.eq(agreed.iter().map(|agreed| agreed.proven))
}

/// What epochs are applied with.
pub(super) struct Parts<'a> {
    pub applier: &'a Applier,
    pub pool: &'a Pool,
    pub archive: &'a Archive,
    pub snapshots: &'a Snapshots,
}

impl Parts<'_> {
    /// Applies epochs to `db`, from `expected` on; the batches of epochs before `below` may be forgotten.
    pub async fn stage(
        &self,
        db: &mut WriteBatch,
        batches: Vec<Batch>,
        expected: &mut u64,
        below: u64,
        trust: Trust,
    ) -> Result<Vec<(Header, Applied)>, GuardianError> {
        let mut epochs = Vec::with_capacity(batches.len());
        for batch in batches {
            if batch.epoch != *expected {
                let came = batch.epoch;
                return Err(GuardianError::Consensus(format!("epoch {came} came, but {expected} is next")));
            }
            *expected = expected.saturating_add(1);
            epochs.push(self.apply(db, batch, below, trust).await?);
            db.next_stage();
        }
        Ok(epochs)
    }

    async fn apply(
        &self,
        db: &mut WriteBatch,
        batch: Batch,
        below: u64,
        trust: Trust,
    ) -> Result<(Header, Applied), GuardianError> {
        let epoch = batch.epoch;
        let encoded = batch.encode();
        let items = batch.items_root();
        let contributions = batch.contributions.into_iter().map(|(peer, bytes)| (PeerId(peer), bytes));
        let applied = self.applier.apply(db, epoch, Batch::hash(&encoded), contributions, trust).await?;
        NEXT_EPOCH.put(&mut state::agreed(db), &(), &epoch.saturating_add(1));
        self.pool.forget(db, &applied.decided);
        prune::step(db, epoch, below, |epoch| self.snapshots.is_milestone(epoch)).await?;
        let header = self.archive.append(db, epoch, items, &encoded).await?;
        Ok((header, applied))
    }
}

/// What follows from a commit.
async fn tell(
    running: &Running,
    epochs: Vec<(Header, Applied)>,
    next: u64,
) -> Result<Vec<Committed>, GuardianError> {
    let mut committed = Vec::with_capacity(epochs.len());
    for (header, applied) in &epochs {
        let epoch = header.epoch;
        running.faults.add(epoch, &applied.faults);
        let own = running.pool.count(&applied.decided);
        running.pool.forgotten(&applied.decided);
        running.applier.forget(&applied.decided);
        running.health.applied(epoch, applied.accepted, applied.rejected);
        tracing::debug!(epoch, accepted = applied.accepted, rejected = applied.rejected, "epoch applied");
        committed.push(Committed { number: epoch, accepted: applied.accepted, own });
    }
    running.epochs.send_replace(next);
    if let Some((header, applied)) = epochs.last() {
        let epoch = Epoch { number: header.epoch, version: applied.version };
        for (id, module) in running.modules.iter() {
            module.committed(&running.module_reader(*id), epoch).await?;
        }
    }
    for (header, _) in epochs {
        running
            .consensus
            .committed(header)
            .await
            .map_err(|error| GuardianError::Consensus(error.to_string()))?;
    }
    Ok(committed)
}

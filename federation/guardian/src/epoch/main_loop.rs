//! The main loop: an agreed batch in, one commit, the next proposal out.

use std::sync::Arc;

use bytes::Bytes;
use federation_consensus::Batch;
use federation_consensus::runner::{ConsensusEvent, ConsensusHandle};
use federation_core::db::DbError;
use federation_core::{PeerId, module};
use federation_store::WriteBatch;
use tokio::sync::{Notify, mpsc, watch};

use super::contribution::{Contribution, MAX_CONTRIBUTION, MAX_ITEM_COUNT};
use crate::error::GuardianError;
use crate::running::Running;
use crate::state::{self, HISTORY, NEXT_EPOCH};

/// What this guardian has proposed, and what others wait for.
#[derive(Default)]
struct Proposed {
    /// The last epoch that was proposed for: one proposal an epoch.
    last: Option<u64>,
    /// The last epoch that a peer has opened.
    wanted: Option<u64>,
}

/// Drives a running guardian.
pub struct MainLoop {
    /// What the API shares.
    pub running: Arc<Running>,
    /// Consensus.
    pub consensus: ConsensusHandle,
    /// What consensus says.
    pub events: mpsc::UnboundedReceiver<ConsensusEvent>,
    /// Notified when pool or modules have something new.
    pub work: Arc<Notify>,
}

impl MainLoop {
    /// Runs until `stop`, or until something fails: then the whole guardian stops with the reason, and a
    /// restart goes on from the last commit.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), GuardianError> {
        let mut proposed = Proposed::default();
        self.propose(&mut proposed).await?;
        loop {
            tokio::select! {
                biased;
                () = async { drop(stop.wait_for(|stop| *stop).await) } => return Ok(()),
                event = self.events.recv() => match event {
                    Some(ConsensusEvent::Batch(batch)) => self.apply(batch).await?,
                    Some(ConsensusEvent::ProposalWanted { epoch }) => {
                        // It may be ahead of the batch that is still to be applied.
                        proposed.wanted = proposed.wanted.max(Some(epoch));
                    }
                    Some(ConsensusEvent::Failed(reason)) => return Err(GuardianError::Consensus(reason)),
                    None => return Err(GuardianError::Consensus("its engine ended: see the log".to_owned())),
                },
                () = self.work.notified() => {}
            }
            self.propose(&mut proposed).await?;
        }
    }

    /// Proposes for the next epoch, if there is something worth one or others wait for it.
    async fn propose(&self, proposed: &mut Proposed) -> Result<(), GuardianError> {
        let epoch = *self.running.epochs.borrow();
        if proposed.last == Some(epoch) {
            return Ok(());
        }
        let (contribution, opens) = self.contribution().await?;
        if !opens && proposed.wanted != Some(epoch) {
            return Ok(());
        }
        proposed.last = Some(epoch);
        self.consensus
            .propose(epoch, Bytes::from(contribution.to_bytes()))
            .await
            .map_err(|error| GuardianError::Consensus(error.to_string()))
    }

    /// What this guardian has to say, and whether it is worth an epoch.
    async fn contribution(&self) -> Result<(Contribution, bool), DbError> {
        let transactions: Vec<_> = self.running.pool.draw().iter().map(|bytes| bytes.to_vec()).collect();
        let mut opens = !transactions.is_empty();
        let mut contribution = Contribution { items: Vec::new(), transactions };
        let used = |bytes: &Vec<u8>| bytes.len().saturating_add(16);
        let mut room = MAX_CONTRIBUTION
            .saturating_sub(contribution.transactions.iter().map(used).sum())
            .saturating_sub(1024);
        for (id, found) in self.running.modules.iter() {
            let proposal = found.propose(&self.running.module_reader(*id)).await?;
            opens |= proposal.opens_epoch;
            for body in proposal.items {
                // What does not fit waits for the next epoch: modules propose again what is not applied.
                let fits = contribution.items.len() < MAX_ITEM_COUNT && body.len() <= module::MAX_ITEM;
                if let Some(left) = room.checked_sub(used(&body)).filter(|_| fits) {
                    room = left;
                    contribution.items.push(module::item(*id, body));
                }
            }
        }
        Ok((contribution, opens))
    }

    /// Applies a batch in one commit.
    async fn apply(&self, batch: Batch) -> Result<(), GuardianError> {
        let running = &self.running;
        let epoch = batch.epoch;
        let expected = *running.epochs.borrow();
        if epoch != expected {
            return Err(GuardianError::Consensus(format!("epoch {epoch} came, but {expected} is next")));
        }
        let encoded = batch.encode();
        let contributions = batch.contributions.into_iter().map(|(peer, bytes)| (PeerId(peer), bytes));
        let mut db = WriteBatch::new(Arc::clone(&running.db));
        let applied = running.applier.apply(&mut db, epoch, Batch::hash(&encoded), contributions).await?;
        HISTORY.put(&mut state::agreed(&mut db), &epoch, &encoded.to_vec());
        let next = epoch.saturating_add(1);
        NEXT_EPOCH.put(&mut state::agreed(&mut db), &(), &next);
        running.pool.forget(&mut db, &applied.decided);
        db.commit().await?;
        for (peer, what) in &applied.faults {
            running.count_fault(*peer, what);
        }
        running.pool.forgotten(&applied.decided);
        running.verifier.forget(&applied.decided);
        running.epochs.send_replace(next);
        tracing::debug!(epoch, accepted = applied.accepted, rejected = applied.rejected, "epoch applied");
        for (id, module) in running.modules.iter() {
            module
                .committed(&running.module_reader(*id), federation_core::module::Epoch { number: epoch })
                .await?;
        }
        self.consensus.committed(epoch).await.map_err(|error| GuardianError::Consensus(error.to_string()))
    }
}

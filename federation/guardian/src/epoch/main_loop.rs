//! The main loop: agreed batches in, one commit, the next proposal out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use federation_consensus::runner::ConsensusEvent;
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use super::arrivals::Arrivals;
use super::commit::commit;
use super::propose::{Next, Proposer, Sources};
use crate::error::GuardianError;
use crate::health;
use crate::running::Running;
use crate::state::Divergence;
use crate::status;

/// How long the end waits for consensus to let go of its journal.
const CONSENSUS_STOP: Duration = Duration::from_secs(10);

/// Why a main loop ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was stopped.
    Stopped,
    /// The other guardians have forgotten what it needs next: it needs a snapshot.
    Pruned {
        /// The first epoch that can be had.
        first: u64,
    },
}

/// Drives a running guardian.
pub struct MainLoop {
    /// What the API shares.
    pub running: Arc<Running>,
    /// What consensus says.
    pub arrivals: Arrivals,
    /// Notified when pool or modules have something new.
    pub work: Arc<Notify>,
}

impl MainLoop {
    /// Runs until `stop`, or until something fails: then the whole guardian stops with the reason, and a
    /// restart goes on from the last commit.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<Ended, GuardianError> {
        let result = self.drive(&mut stop).await;
        // Others hold handles, too: it must not go on without this.
        if tokio::time::timeout(CONSENSUS_STOP, self.running.consensus.shutdown()).await.is_err() {
            tracing::warn!("consensus is still busy with its journal: the disk is slow");
        }
        result
    }

    async fn drive(&mut self, stop: &mut watch::Receiver<bool>) -> Result<Ended, GuardianError> {
        let mut proposer = Proposer::default();
        let running = Arc::clone(&self.running);
        let mut samples = tokio::time::interval(health::INTERVAL);
        samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while let Some(event) = self.arrivals.event() {
                if let Some(ended) = self.on_event(event, &mut proposer).await? {
                    return Ok(ended);
                }
            }
            if *stop.borrow() {
                return Ok(Ended::Stopped);
            }
            // Epochs that are here already come first: it makes no sense to propose for what is over.
            let epochs = self.arrivals.group(|epoch| running.snapshots.due(epoch));
            if !epochs.is_empty() {
                for epoch in commit(&running, epochs, self.arrivals.following()).await? {
                    let left = running.pool.waiting().ready;
                    proposer.committed(epoch.number, epoch.accepted, epoch.own, left);
                }
                continue;
            }
            let wait = self.propose(&mut proposer).await?;
            tokio::select! {
                biased;
                () = async { drop(stop.wait_for(|stop| *stop).await) } => return Ok(Ended::Stopped),
                reason = running.pool.failed() => return Err(GuardianError::Pool(reason)),
                more = self.arrivals.wait() => if !more {
                    return Err(GuardianError::Consensus("its engine ended: see the log".to_owned()));
                },
                () = self.work.notified() => {}
                () = running.archive.idle() => running.archive.store_signatures().await?,
                _ = samples.tick() => {
                    running.health.sample(&status::sample(&running.consensus.status()), Instant::now());
                }
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
    }

    async fn on_event(
        &self,
        event: ConsensusEvent,
        proposer: &mut Proposer,
    ) -> Result<Option<Ended>, GuardianError> {
        match event {
            ConsensusEvent::Batch { batch, .. } => {
                let epoch = batch.epoch;
                return Err(GuardianError::Consensus(format!("epoch {epoch} came as an event")));
            }
            ConsensusEvent::ProposalWanted { epoch } => proposer.wanted(epoch),
            ConsensusEvent::Signatures { epoch, signatures } => {
                self.running.archive.signed(epoch, signatures);
            }
            ConsensusEvent::Diverged { epoch, own, others } => {
                self.running.archive.diverged(Divergence { epoch, own, others }).await?;
            }
            ConsensusEvent::HistoryPruned { first } => return Ok(Some(Ended::Pruned { first })),
            ConsensusEvent::Failed(reason) => return Err(GuardianError::Consensus(reason)),
        }
        Ok(None)
    }

    /// Proposes for the next epoch, if it is time; else says when to ask again at the latest.
    async fn propose(&self, proposer: &mut Proposer) -> Result<Option<Duration>, GuardianError> {
        let running = &self.running;
        let epoch = *running.epochs.borrow();
        let sources = Sources {
            me: running.me,
            db: &running.db,
            pool: &running.pool,
            modules: &running.modules,
            versions: running.applier.versions(),
        };
        // Of a state that differs from the others' nothing is worth saying.
        let next = match running.archive.divergence() {
            Some(_) => proposer.join(epoch),
            None => proposer.next(epoch, sources).await?,
        };
        match next {
            Next::Wait(time) => Ok(time),
            Next::Propose(contribution) => {
                running.health.proposed(epoch);
                let value = Bytes::from(contribution.to_bytes());
                running
                    .consensus
                    .propose(epoch, value)
                    .await
                    .map_err(|error| GuardianError::Consensus(error.to_string()))?;
                Ok(None)
            }
        }
    }
}

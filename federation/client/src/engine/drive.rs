//! Brings a transaction to its end, whatever happens on the way.

use std::time::Duration;

use federation_core::rest::{TransactionResponse, TransactionStatus};
use federation_core::{OutPoint, TxId};

use super::early::First;
use super::finish::Finished;
use crate::api::{Request, Submission};
use crate::client::Client;
use crate::restore::{REUSED, Renumbered};
use crate::store::{OpId, TRANSACTIONS, TxRecord, TxState};
use crate::{ClientError, Result};

/// How long one question to a guardian is held back.
pub(super) const WAIT: Duration = Duration::from_secs(15);
/// The pause after a failure, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(20));
/// The pause after a refusal that only says "too early".
const TOO_EARLY: Duration = Duration::from_secs(1);
/// How often a transaction that f + 1 guardians refuse is asked for again because somebody says that it is on its way.
const PATIENCE: u32 = 20;

/// What a step came to.
enum Step {
    /// Nothing is left to do.
    Finished,
    /// Go on at once.
    Again,
    /// Go on after a moment.
    Later,
    /// Hand it in again when the federation may have moved on.
    TooEarly,
}

impl Client {
    /// Drives a transaction in the background, unless that is under way.
    pub(crate) fn spawn_driver(&self, op: OpId) {
        if !self.inner.drivers.enter(op) {
            return;
        }
        let client = self.for_task();
        self.spawn(async move {
            client.drive(op).await;
            client.inner.drivers.leave(&op);
        });
    }

    async fn drive(&self, op: OpId) {
        let (mut pause, longest) = PAUSE;
        let mut refused = 0;
        loop {
            match self.step(op, &mut refused).await {
                Ok(Step::Finished) => {
                    self.inner.troubles.clear(&op);
                    return;
                }
                Ok(Step::Again) => {
                    self.inner.troubles.clear(&op);
                    pause = PAUSE.0;
                }
                Ok(Step::Later) => tokio::time::sleep(PAUSE.0).await,
                Ok(Step::TooEarly) => tokio::time::sleep(TOO_EARLY).await,
                Err(error) => {
                    tracing::debug!("transaction of {}: {error}", hex::encode(op));
                    self.inner.troubles.add(op, error);
                    self.touch();
                    self.rest(pause).await;
                    pause = pause.saturating_mul(2).min(longest);
                }
            }
        }
    }

    async fn step(&self, op: OpId, refused: &mut u32) -> Result<Step> {
        let Some(record) = TRANSACTIONS.get(self.db(), &op).await? else { return Ok(Step::Finished) };
        match &record.state {
            TxState::Done | TxState::Rejected { .. } => Ok(Step::Finished),
            TxState::Pending => self.submit(op, record, refused).await,
            TxState::Accepted => self.collect(op, record).await,
        }
    }

    async fn submit(&self, op: OpId, record: TxRecord, refused: &mut u32) -> Result<Step> {
        if let Submission::Refused { code, reason } = self.inner.api.submit(&record.transaction).await? {
            if is_passing(&code) {
                return Ok(Step::TooEarly);
            }
            *refused = refused.saturating_add(1);
            // An earlier submission, before a crash or a lost answer, may be on its way all the same.
            if *refused < PATIENCE && self.is_on_its_way(record.txid).await {
                return Ok(Step::Later);
            }
            if self.inner.api.decision(record.txid, Duration::ZERO).await.is_ok_and(is_accepted) {
                self.commit_accepted(op, record).await?;
                return Ok(Step::Again);
            }
            return self.refused(op, record, code, reason).await;
        }
        // Notes prove themselves by their signatures; whatever else comes out needs f + 1 guardians' word.
        let only_notes = record.issues.len() == record.transaction.outputs.len();
        let (api, txid) = (self.inner.api.clone(), record.txid);
        let told = async move { api.follow(txid, only_notes, WAIT).await };
        let response = match self.early_or(&record, told).await {
            First::Notes(notes) => {
                self.commit_done(op, record, notes).await?;
                return Ok(Step::Finished);
            }
            First::Told(response) => response?,
        };
        let Some(response) = response else {
            // Who took it may keep it to himself: next time another one gets it.
            self.inner.api.move_on();
            return Ok(Step::Again);
        };
        match &response.status {
            TransactionStatus::Proposed => Ok(Step::Later),
            TransactionStatus::Accepted { .. } if only_notes => {
                match self.finished(&record, &response).await? {
                    Finished::All(notes) => {
                        self.commit_done(op, record, notes).await?;
                        Ok(Step::Finished)
                    }
                    // Maybe a lie: what f + 1 say counts.
                    Finished::NotYet | Finished::Wrong => self.confirm(op, record, None).await,
                }
            }
            TransactionStatus::Accepted { .. } => self.confirm(op, record, None).await,
            TransactionStatus::Rejected { reason, .. } => {
                let reason = reason.clone();
                self.confirm(op, record, Some(reason)).await
            }
        }
    }

    /// Takes what f + 1 guardians say for the truth.
    async fn confirm(&self, op: OpId, record: TxRecord, reason: Option<String>) -> Result<Step> {
        match self.inner.api.decision(record.txid, WAIT).await {
            Ok(TransactionStatus::Accepted { .. }) => {
                self.commit_accepted(op, record).await?;
                Ok(Step::Again)
            }
            Ok(TransactionStatus::Rejected { code, .. }) if is_passing(&code) => Ok(Step::TooEarly),
            Ok(TransactionStatus::Rejected { code, .. }) => {
                let reason = reason.unwrap_or_else(|| code.clone());
                self.refused(op, record, code, reason).await
            }
            // Some have applied the epoch and some have not yet.
            Ok(TransactionStatus::Proposed) | Err(ClientError::Disagreement(_)) => Ok(Step::Later),
            Err(error) => Err(error),
        }
    }

    /// Refused for good, unless other notes can be asked for.
    async fn refused(&self, op: OpId, record: TxRecord, code: String, reason: String) -> Result<Step> {
        if code == REUSED {
            match self.renumber(op, record.clone()).await? {
                Renumbered::Done => return Ok(Step::Again),
                Renumbered::NotUsed => return Ok(Step::TooEarly),
                Renumbered::Impossible => {}
            }
        }
        self.commit_rejected(op, record, code, reason).await?;
        Ok(Step::Finished)
    }

    /// Gets the notes of an accepted transaction.
    async fn collect(&self, op: OpId, record: TxRecord) -> Result<Step> {
        let Some(first) = record.issues.first() else {
            self.commit_done(op, record, Vec::new()).await?;
            return Ok(Step::Finished);
        };
        // All notes of an epoch are signed together: the first one stands for all.
        let point = OutPoint { txid: record.txid, index: first.output };
        let (api, txid) = (self.inner.api.clone(), record.txid);
        let told = async move {
            api.wait_ready(point, WAIT).await?;
            api.follow(txid, false, WAIT).await
        };
        let response = match self.early_or(&record, told).await {
            First::Notes(notes) => {
                self.commit_done(op, record, notes).await?;
                return Ok(Step::Finished);
            }
            First::Told(response) => response?,
        };
        let Some(response) = response else { return Ok(Step::Later) };
        match self.finished(&record, &response).await? {
            Finished::All(notes) => {
                self.commit_done(op, record, notes).await?;
                Ok(Step::Finished)
            }
            Finished::NotYet => Ok(Step::Later),
            Finished::Wrong => self.collect_from_anyone(op, record).await,
        }
    }

    /// A guardian gave wrong signatures: one of the others has the right ones.
    async fn collect_from_anyone(&self, op: OpId, record: TxRecord) -> Result<Step> {
        tracing::warn!("a guardian gave wrong signatures of notes; asking the others");
        let request = Request::get(format!("/v1/transactions/{}", record.txid));
        for answer in self.inner.api.all(&request, Duration::ZERO).await.into_values() {
            let Ok(Ok(response)) = answer.map(serde_json::from_value::<TransactionResponse>) else {
                continue;
            };
            if let Finished::All(notes) = self.finished(&record, &response).await? {
                self.commit_done(op, record, notes).await?;
                return Ok(Step::Finished);
            }
        }
        Err(ClientError::Disagreement(format!("the notes of transaction {}", record.txid)))
    }

    /// Whether any guardian says that it has the transaction.
    async fn is_on_its_way(&self, txid: TxId) -> bool {
        let request = Request::get(format!("/v1/transactions/{txid}"));
        self.inner.api.all(&request, Duration::ZERO).await.into_values().any(|answer| {
            let status = answer.map(serde_json::from_value::<TransactionResponse>);
            matches!(status, Ok(Ok(TransactionResponse { status: TransactionStatus::Proposed, .. })))
        })
    }
}

/// Whether a refusal only says "too early". Nothing forbids that such a transaction is accepted later, by whoever hands it in
/// again; its notes would be nobody's if the wallet had given it up. So it stays the only one, and is handed in again.
fn is_passing(code: &str) -> bool {
    matches!(code, "not_decrypted" | "not_expired" | "not_final")
}

fn is_accepted(status: TransactionStatus) -> bool {
    matches!(status, TransactionStatus::Accepted { .. })
}

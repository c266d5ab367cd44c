//! Submitting transactions and following them.

use std::time::Duration;

use federation_core::rest::{MAX_WAIT_SECONDS, OutputStatus, TransactionResponse, TransactionStatus};
use federation_core::{OutPoint, PeerId, Transaction, TxId};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::quorum::{Refusals, Step};
use super::{CallError, FederationApi, Request};
use crate::{ClientError, Result};

/// What came of handing a transaction in.
#[derive(Clone, Debug, PartialEq)]
pub enum Submission {
    /// A guardian has it.
    Taken {
        /// Which one.
        by: PeerId,
        /// What it says about it.
        response: TransactionResponse,
    },
    /// f + 1 guardians will not take it.
    Refused {
        /// The stable code.
        code: String,
        /// The reason.
        reason: String,
    },
}

fn parse<T: DeserializeOwned>(value: Value) -> Option<T> {
    serde_json::from_value(value).ok()
}

fn seconds(wait: Duration) -> u64 {
    wait.as_secs().min(MAX_WAIT_SECONDS)
}

/// What of a status must be the same for two guardians: reasons are words.
fn decision(response: TransactionResponse) -> TransactionStatus {
    match response.status {
        TransactionStatus::Rejected { code, .. } => {
            TransactionStatus::Rejected { code, reason: String::new() }
        }
        status => status,
    }
}

impl FederationApi {
    /// Hands a transaction in, to one guardian after another until one takes it.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`]: nobody took it, and fewer than f + 1 said no. Submit again.
    pub async fn submit(&self, transaction: &Transaction) -> Result<Submission> {
        let body =
            serde_json::to_value(transaction).map_err(|error| ClientError::Internal(error.to_string()))?;
        let request = Request::post("/v1/transactions", body);
        let mut tally = Refusals::new(self.max_faulty());
        let found = self
            .gather(&request, Duration::ZERO, 1, |by, answer| {
                match answer.map(parse::<TransactionResponse>) {
                    Ok(Some(response)) => Step::Done(Ok(Submission::Taken { by, response })),
                    Ok(None) => Step::More,
                    Err(error) => tally.add(error),
                }
            })
            .await;
        match found {
            Some(Err(ClientError::Refused { code, detail })) => {
                Ok(Submission::Refused { code, reason: detail })
            }
            Some(result) => result,
            None => Err(tally.unreachable()),
        }
    }

    /// The first guardian's word that a transaction is decided (with `ready`: that all its outputs are ready too), after at most
    /// `wait`; `None`: not yet. One guardian's word: a rejection is to be confirmed by [`decision`](Self::decision), a
    /// signature by its check.
    pub async fn follow(
        &self,
        txid: TxId,
        ready: bool,
        wait: Duration,
    ) -> Result<Option<TransactionResponse>> {
        let until = if ready { "ready" } else { "decided" };
        let request = Request::get(format!("/v1/transactions/{txid}?wait={}&until={until}", seconds(wait)));
        let mut tally = Refusals::new(self.max_faulty());
        let mut answered = false;
        let found = self
            .gather(&request, wait, 1, |_, answer| match answer {
                Ok(value) => {
                    match parse::<TransactionResponse>(value).filter(|response| response.txid == txid) {
                        Some(response) => {
                            answered = true;
                            let waiting = ready && response.outputs.contains(&OutputStatus::Pending);
                            let decided = response.status != TransactionStatus::Proposed;
                            if decided && !waiting { Step::Done(Ok(Some(response))) } else { Step::Counted }
                        }
                        None => Step::More,
                    }
                }
                Err(CallError::Refused { status: 404, .. }) => {
                    answered = true;
                    Step::Counted
                }
                Err(error) => tally.add(error),
            })
            .await;
        match found {
            Some(result) => result,
            None if answered => Ok(None),
            None => Err(tally.unreachable()),
        }
    }

    /// What f + 1 guardians say about a transaction. `Proposed` also stands for "unknown": it may be on its way to them.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`]; [`ClientError::Disagreement`] while some have applied the epoch and some have not.
    pub async fn decision(&self, txid: TxId, wait: Duration) -> Result<TransactionStatus> {
        let request = Request::get(format!("/v1/transactions/{txid}?wait={}", seconds(wait)));
        self.agreed_on(&request, wait, |answer| match answer {
            Ok(value) => parse::<TransactionResponse>(value)
                .filter(|response| response.txid == txid)
                .map(decision)
                .ok_or_else(|| CallError::Down("an answer cannot be read".to_owned())),
            Err(CallError::Refused { status: 404, .. }) => Ok(TransactionStatus::Proposed),
            Err(error) => Err(error),
        })
        .await
    }

    /// The outcome of an output, its module's bytes, as f + 1 guardians give it; `None`: not yet after `wait`.
    pub async fn outcome(&self, point: OutPoint, wait: Duration) -> Result<Option<Vec<u8>>> {
        let request =
            Request::get(format!("/v1/outcomes/{}/{}?wait={}", point.txid, point.index, seconds(wait)));
        self.agreed_on(&request, wait, |answer| match answer {
            Ok(value) => match parse::<OutputStatus>(value) {
                Some(OutputStatus::Ready { bytes, .. }) => Ok(Some(bytes)),
                Some(OutputStatus::Pending) => Ok(None),
                None => Err(CallError::Down("an answer cannot be read".to_owned())),
            },
            // The guardian lags behind the one that said "accepted".
            Err(CallError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    /// Waits until one guardian says that an output is ready, or the time is over.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`].
    pub async fn wait_ready(&self, point: OutPoint, wait: Duration) -> Result<()> {
        let request =
            Request::get(format!("/v1/outcomes/{}/{}?wait={}", point.txid, point.index, seconds(wait)));
        let mut tally = Refusals::new(self.max_faulty());
        let mut answered = false;
        let found = self
            .gather(&request, wait, 1, |_, answer| match answer.map(parse::<OutputStatus>) {
                Ok(Some(OutputStatus::Ready { .. })) => Step::Done(Ok(())),
                Ok(Some(OutputStatus::Pending)) | Err(CallError::Refused { status: 404, .. }) => {
                    answered = true;
                    Step::Counted
                }
                Ok(None) => Step::More,
                Err(error) => tally.add(error),
            })
            .await;
        match found {
            Some(result) => result,
            None if answered => Ok(()),
            None => Err(tally.unreachable()),
        }
    }
}

//! Submitting transactions and asking what became of them.

use std::time::Duration;

use axum::Json as Answer;
use axum::extract::Path;
use federation_core::api::ApiError;
use federation_core::rest::{MAX_WAIT_SECONDS, OutputStatus, TransactionResponse, TransactionStatus};
use federation_core::{OutPoint, Transaction, TxId};
use serde::Deserialize;

use super::problem::Problem;
use super::{Federation, Json, Query};

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Until {
    #[default]
    Decided,
    Ready,
}

#[derive(Deserialize)]
pub(super) struct Wait {
    #[serde(default)]
    wait: u64,
    #[serde(default)]
    until: Until,
}

impl Wait {
    fn time(&self) -> Duration {
        Duration::from_secs(self.wait.min(MAX_WAIT_SECONDS))
    }
}

fn id(text: &str) -> Result<TxId, ApiError> {
    text.parse().map_err(|_| ApiError::bad_request("bad_parameter", "a transaction id is 64 hex digits"))
}

pub(super) async fn submit(
    Federation(running): Federation,
    Json(transaction): Json<Transaction>,
) -> Result<Answer<TransactionResponse>, Problem> {
    Ok(Answer(running.submit(transaction).await?))
}

pub(super) async fn status(
    Federation(running): Federation,
    Path(txid): Path<String>,
    Query(wait): Query<Wait>,
) -> Result<Answer<TransactionResponse>, Problem> {
    let txid = id(&txid)?;
    let response = running
        .wait_for(wait.time(), || async {
            let Some(response) = running.transaction(txid).await? else { return Ok(None) };
            let decided = response.status != TransactionStatus::Proposed;
            let ready = wait.until == Until::Decided || !response.outputs.contains(&OutputStatus::Pending);
            Ok(Some((response, decided && ready)))
        })
        .await?;
    let unknown = || {
        ApiError::not_found(
            "unknown_transaction",
            "this guardian does not know the transaction: hand it in, or ask another guardian",
        )
    };
    Ok(Answer(response.ok_or_else(unknown)?))
}

pub(super) async fn outcome(
    Federation(running): Federation,
    Path((txid, index)): Path<(String, String)>,
    Query(wait): Query<Wait>,
) -> Result<Answer<OutputStatus>, Problem> {
    let index =
        index.parse().map_err(|_| ApiError::bad_request("bad_parameter", "an output's index is a number"))?;
    let point = OutPoint { txid: id(&txid)?, index };
    let outcome = running
        .wait_for(wait.time(), || async {
            let Some(outcome) = running.outcome(point).await? else { return Ok(None) };
            let ready = outcome != OutputStatus::Pending;
            Ok(Some((outcome, ready)))
        })
        .await?;
    let unknown = || ApiError::not_found("unknown_output", "no accepted transaction has this output");
    Ok(Answer(outcome.ok_or_else(unknown)?))
}

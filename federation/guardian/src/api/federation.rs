//! Configuration, status and audit.

use axum::Json as Answer;
use axum::extract::Path;
use federation_core::api::ApiError;
use federation_core::config::ConfigResponse;
use federation_core::rest::{AuditResponse, EpochResponse, StatusResponse};

use super::Federation;
use super::problem::Problem;

pub(super) async fn config(Federation(running): Federation) -> Answer<ConfigResponse> {
    Answer(running.config_response())
}

pub(super) async fn status(Federation(running): Federation) -> Result<Answer<StatusResponse>, Problem> {
    Ok(Answer(running.status().await?))
}

pub(super) async fn audit(Federation(running): Federation) -> Result<Answer<AuditResponse>, Problem> {
    Ok(Answer(running.audit().await?))
}

pub(super) async fn epoch(
    Federation(running): Federation,
    Path(epoch): Path<String>,
) -> Result<Answer<EpochResponse>, Problem> {
    let number = epoch.parse().map_err(|_| ApiError::bad_request("bad_parameter", "an epoch is a number"))?;
    let unknown = || {
        ApiError::not_found(
            "unknown_epoch",
            "this guardian has not applied the epoch yet, or has forgotten it: of old ones only some are kept",
        )
    };
    Ok(Answer(running.epoch(number).await?.ok_or_else(unknown)?))
}

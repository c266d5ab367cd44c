//! Configuration, status and audit.

use axum::Json as Answer;
use federation_core::config::ConfigResponse;
use federation_core::rest::{AuditResponse, StatusResponse};

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

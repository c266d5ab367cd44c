//! Configuration, status, metrics and audit.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use federation_core::config::ConfigResponse;
use federation_core::rest::{AuditResponse, StatusResponse};

use super::problem::Problem;
use super::{Current, Federation};
use crate::metrics;

pub(super) async fn config(Federation(running): Federation) -> Answer<ConfigResponse> {
    Answer(running.config_response())
}

pub(super) async fn status(Federation(running): Federation) -> Result<Answer<StatusResponse>, Problem> {
    Ok(Answer(running.status().await?))
}

pub(super) async fn metrics(State(current): State<Current>) -> Result<impl IntoResponse, Problem> {
    let running = current.borrow().clone();
    let text = match running {
        Some(running) => metrics::render(&running.status().await?, &running.health.counts()),
        None => metrics::NOT_RUNNING.to_owned(),
    };
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
}

pub(super) async fn audit(Federation(running): Federation) -> Result<Answer<AuditResponse>, Problem> {
    Ok(Answer(running.audit().await?))
}

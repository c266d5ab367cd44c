//! Configuration, status, metrics and audit.

use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use federation_core::api::ApiError;
use federation_core::config::ConfigResponse;
use federation_core::rest::{AuditResponse, EpochResponse, StatusResponse};

use super::problem::Problem;
use super::{Current, Federation, Serving};
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
        Serving::Running(running) => metrics::render(&running.status().await?, &running.health.counts()),
        _ => metrics::NOT_RUNNING.to_owned(),
    };
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
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

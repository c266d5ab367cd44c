//! The REST API under `/v1`; its bodies are in [`federation_core::rest`]. Beside it there is [`/metrics`](crate::metrics).
//!
//! It is served from the guardian's first start on: before the setup is done, everything but
//! `/metrics` answers `setup_not_done`. Every endpoint is bounded in body size and time.

mod backups;
mod federation;
mod modules;
pub mod problem;
mod transactions;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use axum::routing::{get, post};
use axum::{Router, serve};
use federation_core::api::ApiError;
use federation_core::rest::{MAX_REQUEST_SIZE, MAX_WAIT_SECONDS};
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

use crate::error::GuardianError;
use crate::running::Running;
use problem::Problem;

/// What the API can serve.
#[derive(Clone, Default)]
pub enum Serving {
    /// The federation does not exist yet.
    #[default]
    Setup,
    /// The guardian's state is being fetched from the others.
    Restoring,
    /// Everything.
    Running(Arc<Running>),
    /// Nothing any more.
    Stopped,
}

/// What is served now.
pub type Current = watch::Receiver<Serving>;

/// All endpoints.
pub fn router(current: Current) -> Router {
    Router::new()
        .route("/v1/config", get(federation::config))
        .route("/v1/status", get(federation::status))
        .route("/v1/audit", get(federation::audit))
        .route("/v1/epochs/{epoch}", get(federation::epoch))
        .route("/metrics", get(federation::metrics))
        .route("/v1/transactions", post(transactions::submit))
        .route("/v1/transactions/{txid}", get(transactions::status))
        .route("/v1/outcomes/{txid}/{index}", get(transactions::outcome))
        .route("/v1/backups", post(backups::keep))
        .route("/v1/backups/{key}", get(backups::show))
        .route("/v1/modules/{kind}/{*path}", get(modules::read).post(modules::hand_in))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_REQUEST_SIZE))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::SERVICE_UNAVAILABLE,
            Duration::from_secs(MAX_WAIT_SECONDS.saturating_add(15)),
        ))
        .layer(CatchPanicLayer::new())
        .with_state(current)
}

/// Binds and serves until `stop` changes.
pub async fn start(
    bind: SocketAddr,
    current: Current,
    mut stop: watch::Receiver<bool>,
) -> Result<SocketAddr, GuardianError> {
    let listener = TcpListener::bind(bind)
        .await
        .map_err(GuardianError::io(format!("the API address {bind} cannot be used")))?;
    let address = listener.local_addr().map_err(GuardianError::io("the API's address"))?;
    tokio::spawn(async move {
        let router = router(current);
        tokio::select! {
            result = async { serve(listener, router).await } => {
                if let Err(error) = result {
                    tracing::error!("the API stopped: {error}");
                }
            }
            _ = stop.wait_for(|stop| *stop) => {}
        }
    });
    Ok(address)
}

async fn unknown(uri: Uri) -> Problem {
    Problem(ApiError::not_found("unknown_endpoint", format!("there is no {}", uri.path())))
}

async fn wrong_method(uri: Uri) -> Problem {
    Problem(ApiError::new(405, "wrong_method", format!("{} is not called with this method", uri.path())))
}

/// The running federation, or the problem that there is none yet.
struct Federation(Arc<Running>);

impl FromRequestParts<Current> for Federation {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, current: &Current) -> Result<Self, Problem> {
        let (code, detail) = match current.borrow().clone() {
            Serving::Running(running) => return Ok(Self(running)),
            Serving::Setup => (
                "setup_not_done",
                "this guardian's federation does not exist yet: its operator has to finish the setup",
            ),
            Serving::Restoring => {
                ("restoring", "this guardian gets its state from the others: ask another one meanwhile")
            }
            Serving::Stopped => ("stopped", "this guardian is stopping: ask another one"),
        };
        Err(Problem(ApiError::unavailable(code, detail)))
    }
}

/// axum's JSON extractor with problem documents.
struct Json<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match axum::Json::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(rejection) => {
                let status = rejection.status();
                let code = if status == StatusCode::PAYLOAD_TOO_LARGE { "too_large" } else { "bad_body" };
                Err(Problem(ApiError::new(status.as_u16(), code, rejection.body_text())))
            }
        }
    }
}

/// axum's query extractor with problem documents.
struct Query<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem(ApiError::bad_request("bad_parameter", rejection.body_text()))),
        }
    }
}

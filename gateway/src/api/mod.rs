//! The REST APIs: [`types`] and `public` for users, `admin` for operators.

mod admin;
mod body;
#[cfg(feature = "ldk")]
mod ldk;
mod problem;
mod public;
#[cfg(test)]
mod tests;
mod token;
pub mod types;

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::response::IntoResponse as _;
use axum::{Router, middleware};
use federation_core::api::ApiError;
use federation_core::rest::MAX_REQUEST_SIZE;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::GatewayError;

pub(crate) use admin::admin_router;
#[cfg(feature = "ldk")]
pub use ldk::ldk_router;
pub(crate) use public::public_router;
#[cfg(feature = "ldk")]
pub(crate) use token::TOKEN_FILE;
pub(crate) use token::load_or_create_token;

/// How long a request may take: the longest wait, and what a payment's first step needs.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// How long open requests may go on when the server ends.
const LAST_REQUESTS: Duration = Duration::from_secs(3);

/// Takes an address.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, GatewayError> {
    TcpListener::bind(address).await.map_err(|source| GatewayError::Bind { address, source })
}

/// Serves until `stop`; requests that are open then get a moment to end.
pub(crate) fn serve(listener: TcpListener, router: Router, stop: watch::Receiver<bool>) -> JoinHandle<()> {
    let router = interrupted(router, stop.clone());
    let stopped = |mut stop: watch::Receiver<bool>| async move {
        // A sender that is gone means the same.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let graceful = stopped(stop.clone());
    tokio::spawn(async move {
        let server = axum::serve(listener, router).with_graceful_shutdown(graceful);
        tokio::select! {
            result = server => {
                if let Err(error) = result {
                    tracing::error!(%error, "an API ended");
                }
            }
            () = async { stopped(stop).await; tokio::time::sleep(LAST_REQUESTS).await } => {}
        }
    })
}

/// Requests that wait are answered when the gateway stops: what they began goes on at the next start.
fn interrupted(router: Router, stop: watch::Receiver<bool>) -> Router {
    router.layer(middleware::from_fn(move |request, next: middleware::Next| {
        let mut stop = stop.clone();
        async move {
            tokio::select! {
                biased;
                response = next.run(request) => response,
                _ = stop.wait_for(|stop| *stop) => {
                    let detail = "the gateway is being stopped: what was begun goes on, ask again later";
                    GatewayError::from(ApiError::unavailable("stopping", detail)).into_response()
                }
            }
        }
    }))
}

/// What every API has: limits, and problem documents for whatever goes wrong.
pub(crate) fn guarded(router: Router) -> Router {
    router
        .fallback(|| async {
            GatewayError::from(ApiError::not_found("no_such_endpoint", "there is no such endpoint"))
        })
        .method_not_allowed_fallback(|| async {
            GatewayError::from(ApiError::new(405, "method_not_allowed", "this endpoint takes another method"))
        })
        .layer(DefaultBodyLimit::max(MAX_REQUEST_SIZE))
        .layer(middleware::from_fn(|request, next: middleware::Next| async move {
            match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
                Ok(response) => response,
                Err(_) => {
                    let detail = "the request took too long: what was begun goes on, ask again";
                    GatewayError::from(ApiError::unavailable("timeout", detail)).into_response()
                }
            }
        }))
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(|_| {
            tracing::error!("a request's handler panicked");
            GatewayError::from(ApiError::new(500, "internal", "the gateway has a fault: please report it"))
                .into_response()
        }))
}

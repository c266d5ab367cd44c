//! Reading requests, with problem documents for what can't be read.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use federation_core::api::ApiError;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::types::MAX_WAIT_SECONDS;
use crate::GatewayError;

/// A JSON body, whatever its content type says.
pub(super) struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = GatewayError;

    async fn from_request(request: Request, state: &S) -> Result<Self, GatewayError> {
        let bytes = Bytes::from_request(request, state).await.map_err(|error: BytesRejection| {
            ApiError::new(error.status().as_u16(), "bad_body", error.body_text())
        })?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            ApiError::bad_request("bad_body", format!("the body can't be read: {error}")).into()
        })
    }
}

/// The query's `wait`, within its limit.
pub(super) struct Wait(pub Duration);

#[derive(Deserialize)]
struct WaitQuery {
    #[serde(default)]
    wait: u64,
}

impl<S: Send + Sync> FromRequestParts<S> for Wait {
    type Rejection = GatewayError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, GatewayError> {
        let Query(query) = Query::<WaitQuery>::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::bad_request("bad_parameter", error.body_text()))?;
        Ok(Self(Duration::from_secs(query.wait.min(MAX_WAIT_SECONDS))))
    }
}

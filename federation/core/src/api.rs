//! What a module offers over REST, free of any web framework: routes that take JSON and give JSON.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::db::{DbError, NamespacedReader};

/// How a route is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads; parameters are in the query.
    Get,
    /// Hands something in; parameters are the JSON body.
    Post,
}

/// A request to a module's route.
pub struct ApiRequest {
    /// The query's parameters.
    pub query: BTreeMap<String, String>,
    /// The JSON body; null for [`Method::Get`].
    pub body: Value,
    /// The module's committed state.
    pub db: NamespacedReader,
}

impl ApiRequest {
    /// A parameter of the query, or a problem that names it.
    pub fn parameter<T: std::str::FromStr>(&self, name: &str) -> Result<T, ApiError>
    where
        T::Err: std::fmt::Display,
    {
        let text = self.query.get(name).ok_or_else(|| {
            ApiError::bad_request("missing_parameter", format!("the parameter '{name}' is missing"))
        })?;
        text.parse().map_err(|error| {
            ApiError::bad_request("bad_parameter", format!("the parameter '{name}' is wrong: {error}"))
        })
    }

    /// The body as a type, or a problem that says what does not fit.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, ApiError> {
        T::deserialize(&self.body).map_err(|error| ApiError::bad_request("bad_body", error.to_string()))
    }
}

/// The future of a route's answer.
pub type ApiFuture = Pin<Box<dyn Future<Output = Result<Value, ApiError>> + Send>>;

/// One endpoint of a module, served under `/v1/modules/<kind>/<path>`.
#[derive(Clone)]
pub struct Route {
    /// How it is called.
    pub method: Method,
    /// The path below the module's own, without a leading slash.
    pub path: &'static str,
    /// Whether its answers are the guardian's word: signatures, say. It gives none when its state has turned out to differ from the
    /// others'.
    pub signs: bool,
    /// Answers a request.
    pub handler: Arc<dyn Fn(ApiRequest) -> ApiFuture + Send + Sync>,
}

impl Route {
    /// A route that reads.
    pub fn get<F>(path: &'static str, handler: impl Fn(ApiRequest) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Value, ApiError>> + Send + 'static,
    {
        Self::new(Method::Get, path, handler)
    }

    /// A route that takes something in.
    pub fn post<F>(path: &'static str, handler: impl Fn(ApiRequest) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Value, ApiError>> + Send + 'static,
    {
        Self::new(Method::Post, path, handler)
    }

    fn new<F>(
        method: Method,
        path: &'static str,
        handler: impl Fn(ApiRequest) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Value, ApiError>> + Send + 'static,
    {
        let handler = Arc::new(move |request| Box::pin(handler(request)) as ApiFuture);
        Self { method, path, signs: false, handler }
    }

    /// The same, and its answers are the guardian's word.
    #[must_use]
    pub fn signing(self) -> Self {
        Self { signs: true, ..self }
    }
}

/// An error of the API: an RFC 9457 problem document with a stable code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail} ({code})")]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// A stable, machine-readable code, such as `double_spend`.
    pub code: String,
    /// The sentence for a person: what happened and what can be done.
    pub detail: String,
}

impl ApiError {
    /// Any status.
    pub fn new(status: u16, code: &str, detail: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), detail: detail.into() }
    }
    /// 400: the request itself is wrong.
    pub fn bad_request(code: &str, detail: impl Into<String>) -> Self {
        Self::new(400, code, detail)
    }
    /// 404: what was asked for is not there.
    pub fn not_found(code: &str, detail: impl Into<String>) -> Self {
        Self::new(404, code, detail)
    }
    /// 422: understood, and refused by the federation's rules.
    pub fn refused(code: &str, detail: impl Into<String>) -> Self {
        Self::new(422, code, detail)
    }
    /// 429: over a limit.
    pub fn too_many(code: &str, detail: impl Into<String>) -> Self {
        Self::new(429, code, detail)
    }
    /// 503: not now.
    pub fn unavailable(code: &str, detail: impl Into<String>) -> Self {
        Self::new(503, code, detail)
    }
}

/// The details stay in the guardian's log: a client can do nothing with them.
impl From<DbError> for ApiError {
    fn from(_: DbError) -> Self {
        Self::new(500, "database", "the guardian's database failed; ask another guardian")
    }
}

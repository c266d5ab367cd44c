//! The modules' own endpoints.

use std::collections::BTreeMap;

use axum::Json as Answer;
use axum::extract::Path;
use federation_core::api::{ApiError, ApiRequest, Method};
use serde_json::Value;

use super::problem::Problem;
use super::{Federation, Json, Query};
use crate::running::Running;

type Name = Path<(String, String)>;

pub(super) async fn read(
    Federation(running): Federation,
    Path(name): Name,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Answer<Value>, Problem> {
    call(&running, &name, Method::Get, query, Value::Null).await
}

pub(super) async fn hand_in(
    Federation(running): Federation,
    Path(name): Name,
    Query(query): Query<BTreeMap<String, String>>,
    Json(body): Json<Value>,
) -> Result<Answer<Value>, Problem> {
    running.takes_writes()?;
    call(&running, &name, Method::Post, query, body).await
}

async fn call(
    running: &Running,
    (kind, path): &(String, String),
    method: Method,
    query: BTreeMap<String, String>,
    body: Value,
) -> Result<Answer<Value>, Problem> {
    let unknown = || {
        ApiError::not_found(
            "unknown_endpoint",
            format!("module {kind} has no endpoint {path} with this method"),
        )
    };
    let (module, route) = running.route(kind, path, method).ok_or_else(unknown)?;
    let signs = || if route.signs { running.takes_writes() } else { Ok(()) };
    signs()?;
    let request = ApiRequest { query, body, db: running.module_reader(module) };
    let answer = (route.handler)(request).await?;
    // It may have waited for long.
    signs()?;
    Ok(Answer(answer))
}

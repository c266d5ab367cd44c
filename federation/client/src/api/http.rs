//! Requests over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use federation_core::rest::ProblemDocument;
use serde_json::Value;

use super::{CallError, Method, Request, Transport};
use crate::{ClientError, Result};

/// A guardian that can't be connected to in this time is down.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes: a configuration in hex.
const MAX_ANSWER: usize = 16 << 20;

/// [`Transport`] over HTTP/1.1, with TLS for `https://`.
pub struct Http(reqwest::Client);

impl Http {
    /// A pool of connections.
    ///
    /// # Errors
    /// If the system's TLS can't be set up.
    pub fn new() -> Result<Self> {
        // Another part of the process may have chosen a provider before: that one is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("ecash/", env!("CARGO_PKG_VERSION")))
            .tcp_nodelay(true)
            .build()
            .map_err(|error| ClientError::Internal(format!("the HTTP client cannot start: {error}")))?;
        Ok(Self(client))
    }
}

/// reqwest's own message repeats the URL and hides the cause behind it.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[async_trait]
impl Transport for Http {
    async fn call(&self, base: &str, request: &Request, limit: Duration) -> Result<Value, CallError> {
        let down = |error: reqwest::Error| CallError::Down(format!("{base}: {}", reason(&error)));
        let url = format!("{}{}", base.trim_end_matches('/'), request.path);
        let builder = match request.method {
            Method::Get => self.0.get(url),
            Method::Post => self.0.post(url).json(&request.body),
        };
        let mut response = builder.timeout(limit).send().await.map_err(down)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(down)? {
            if bytes.len().saturating_add(chunk.len()) > MAX_ANSWER {
                return Err(CallError::Down(format!("{base}: the answer is longer than {MAX_ANSWER} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        read(base, response.status().as_u16(), &bytes)
    }
}

/// An answer of any status.
fn read(base: &str, status: u16, bytes: &[u8]) -> Result<Value, CallError> {
    if (200..300).contains(&status) {
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        return serde_json::from_slice(bytes)
            .map_err(|error| CallError::Down(format!("{base}: the answer is no JSON: {error}")));
    }
    match serde_json::from_slice::<ProblemDocument>(bytes) {
        Ok(problem) => Err(CallError::Refused {
            status,
            code: printable(&problem.code),
            detail: printable(&problem.detail),
        }),
        // Not from a guardian or gateway of this project, but from something in between.
        Err(_) => Err(CallError::Down(format!("{base}: HTTP status {status} without a problem document"))),
    }
}

/// Somebody else's words go to the user's terminal: without control characters, and not for ever.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_documents_become_refusals() {
        let body = br#"{"type":"about:blank","title":"Unprocessable","status":422,"code":"double_spend","detail":"spent\u001b[2J"}"#;
        assert_eq!(
            read("http://g", 422, body),
            Err(CallError::Refused { status: 422, code: "double_spend".into(), detail: "spent[2J".into() })
        );
        assert!(matches!(read("http://g", 502, b"<html>"), Err(CallError::Down(_))));
        assert!(matches!(read("http://g", 200, b"<html>"), Err(CallError::Down(_))));
        assert_eq!(read("http://g", 200, b"[1]"), Ok(serde_json::json!([1])));
    }

    #[tokio::test]
    async fn nobody_there_is_down() {
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let result = Http::new()
            .unwrap()
            .call(&format!("http://127.0.0.1:{port}"), &Request::get("/v1/status"), Duration::from_secs(5))
            .await;
        assert!(matches!(result, Err(CallError::Down(_))), "{result:?}");
    }
}

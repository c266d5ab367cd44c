//! Requests over HTTP.

use std::sync::Arc;
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

    fn apart(&self) -> Result<Arc<dyn Transport>> {
        Ok(Arc::new(Self::new()?))
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
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::sync::atomic::{AtomicUsize, Ordering};

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

    /// A guardian that counts connections and keeps them open.
    fn counting() -> (String, Arc<AtomicUsize>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                    while let Some(Ok(line)) = lines.next() {
                        if line.is_empty() {
                            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1").unwrap();
                        }
                    }
                });
            }
        });
        (url, count)
    }

    #[tokio::test]
    async fn what_is_apart_shares_no_connection() {
        let (url, count) = counting();
        let (request, limit) = (Request::get("/x"), Duration::from_secs(5));
        let first = Http::new().unwrap();
        for _ in 0..3 {
            first.call(&url, &request, limit).await.unwrap();
        }
        // Connections are kept and used again, so one that was shared would show.
        assert_eq!(count.load(Ordering::SeqCst), 1);
        let second = first.apart().unwrap();
        let third = second.apart().unwrap();
        for way in [&second, &third, &second, &third] {
            way.call(&url, &request, limit).await.unwrap();
        }
        assert_eq!(count.load(Ordering::SeqCst), 3);
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

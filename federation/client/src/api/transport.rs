//! One request to one guardian or gateway.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use crate::ClientError;

/// The HTTP method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Hands something in.
    Post,
}

/// What is asked, the same for whichever guardian it goes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The HTTP method.
    pub method: Method,
    /// Path and query below the base URL, such as `/v1/status`.
    pub path: String,
    /// The JSON body of a [`Method::Post`].
    pub body: Value,
}

impl Request {
    /// Reads `path`.
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::Get, path: path.into(), body: Value::Null }
    }

    /// Hands in `body`.
    pub fn post(path: impl Into<String>, body: Value) -> Self {
        Self { method: Method::Post, path: path.into(), body }
    }

    /// Reads a module's route; the query's values are escaped here.
    pub fn module_get(kind: &str, path: &str, query: &[(&str, String)]) -> Self {
        let mut target = format!("/v1/modules/{kind}/{path}");
        for (index, (name, value)) in query.iter().enumerate() {
            target.push(if index == 0 { '?' } else { '&' });
            target.push_str(name);
            target.push('=');
            escape(value, &mut target);
        }
        Self::get(target)
    }

    /// Hands in to a module's route.
    pub fn module_post(kind: &str, path: &str, body: Value) -> Self {
        Self::post(format!("/v1/modules/{kind}/{path}"), body)
    }
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn escape(text: &str, out: &mut String) {
    use std::fmt::Write as _;
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Why a request has no good answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No answer, or one that makes no sense: nobody knows whether the request was taken.
    #[error("{0}")]
    Down(String),
    /// A problem document.
    #[error("{detail} ({code})")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The stable code.
        code: String,
        /// The sentence for a person.
        detail: String,
    },
}

impl CallError {
    /// Whether it says no to the request itself, rather than "not now" or "ask somebody else".
    pub fn is_verdict(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if (400..500).contains(status) && !matches!(status, 408 | 429))
    }
}

impl From<CallError> for ClientError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Down(reason) => Self::Unreachable(reason),
            CallError::Refused { code, detail, .. } => Self::Refused { code, detail },
        }
    }
}

/// Carries requests.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends a request to the API at `base`, and waits at most `limit` for the answer's last byte.
    async fn call(&self, base: &str, request: &Request, limit: Duration) -> Result<Value, CallError>;

    /// Another way to the same places that shares no connection with this one: for lookups that nobody shall link with
    /// other ones.
    ///
    /// # Errors
    /// If there is no such way; sharing one in silence would be worse.
    fn apart(&self) -> crate::Result<Arc<dyn Transport>> {
        Err(ClientError::Internal("this transport has one connection only".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        let request =
            Request::module_get("lightning", "contract", &[("id", "a b&c".into()), ("n", "1".into())]);
        assert_eq!(request.path, "/v1/modules/lightning/contract?id=a%20b%26c&n=1");
    }

    #[test]
    fn only_a_no_is_a_verdict() {
        let refused = |status| CallError::Refused { status, code: "c".into(), detail: "d".into() };
        assert!(refused(422).is_verdict() && refused(400).is_verdict());
        assert!(!refused(429).is_verdict() && !refused(503).is_verdict());
        assert!(!CallError::Down("refused".into()).is_verdict());
    }
}

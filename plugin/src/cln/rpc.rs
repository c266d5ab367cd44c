//! Calls to lightningd's RPC socket, over few connections.
//!
//! A connection serves one call at a time. Quick calls share a small pool; calls that may take minutes (`xpay`) have a
//! limit of their own, so that they can't keep the quick ones waiting. The hook uses neither.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cln_rpc::ClnRpc;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// Connections for quick calls.
const QUICK: usize = 8;
/// Connections for slow calls.
const SLOW: usize = 64;
/// A quick call that takes longer is given up.
const QUICK_TIMEOUT: Duration = Duration::from_secs(60);

/// Between two tries at lightningd's start.
const READY_PAUSE: Duration = Duration::from_millis(200);

/// lightningd's RPC socket; cheap to clone.
#[derive(Clone)]
pub struct Rpc {
    shared: Arc<Shared>,
}

struct Shared {
    socket: PathBuf,
    idle: Mutex<Vec<ClnRpc>>,
    quick: Semaphore,
    slow: Semaphore,
}

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// lightningd answered with an error. Whether it has done something depends on the command.
    #[error("{method} answered with error {code}: {message}")]
    Refused {
        /// The command.
        method: String,
        /// JSON-RPC error code, as the command's manual page lists them.
        code: i32,
        /// The text.
        message: String,
    },
    /// No answer, or none that can be read. The command may have been carried out.
    #[error("no answer to {method} from lightningd: {reason}")]
    Lost {
        /// The command.
        method: String,
        /// What happened.
        reason: String,
    },
}

impl CallError {
    /// lightningd's error code, if it answered.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Lost { .. } => None,
        }
    }
}

impl Rpc {
    /// Connects at the first call.
    pub fn new(socket: &Path) -> Self {
        let shared = Shared {
            socket: socket.to_owned(),
            idle: Mutex::default(),
            quick: Semaphore::new(QUICK),
            slow: Semaphore::new(SLOW),
        };
        Self { shared: Arc::new(shared) }
    }

    /// A call that lightningd answers by itself and soon.
    pub async fn call(&self, method: &str, params: Value) -> Result<Value, CallError> {
        let lost = |reason: String| CallError::Lost { method: method.to_owned(), reason };
        let _permit = self.shared.quick.acquire().await.map_err(|error| lost(error.to_string()))?;
        match timeout(QUICK_TIMEOUT, self.call_once(method, params)).await {
            Ok(result) => result,
            Err(_) => Err(lost(format!("waited {} s", QUICK_TIMEOUT.as_secs()))),
        }
    }

    /// Waits until lightningd serves its RPC: at its start that is a little after `init`.
    pub async fn ready(&self) {
        while self.call("getinfo", Value::Object(Map::new())).await.is_err() {
            tokio::time::sleep(READY_PAUSE).await;
        }
    }

    /// A secret of the node's own, the same at each call (`makesecret`).
    pub async fn secret(&self, name: &str) -> Result<Zeroizing<[u8; 32]>, CallError> {
        let answer = self.call("makesecret", json!({ "string": name })).await?;
        let mut secret = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text("makesecret", &answer, "secret")?, secret.as_mut_slice())
            .map_err(|_| unreadable("makesecret", "secret"))?;
        Ok(secret)
    }

    /// A call that waits for other nodes.
    pub async fn call_slow(&self, method: &str, params: Value) -> Result<Value, CallError> {
        let lost = |reason: String| CallError::Lost { method: method.to_owned(), reason };
        let _permit = self.shared.slow.acquire().await.map_err(|error| lost(error.to_string()))?;
        self.call_once(method, params).await
    }

    /// The connection is out of the pool during the call: one whose call was given up is never used again.
    async fn call_once(&self, method: &str, params: Value) -> Result<Value, CallError> {
        let lost = |reason: String| CallError::Lost { method: method.to_owned(), reason };
        let idle = self.idle().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => ClnRpc::new(&self.shared.socket).await.map_err(|error| lost(error.to_string()))?,
        };
        let result = connection.call_raw::<Value, Value>(method, &params).await;
        match result {
            Ok(value) => {
                self.give_back(connection);
                Ok(value)
            }
            Err(error) => match error.code {
                Some(code) => {
                    self.give_back(connection);
                    Err(CallError::Refused { method: method.to_owned(), code, message: error.message })
                }
                // cln-rpc's own error: the connection is not to be trusted any more.
                None => Err(lost(error.message)),
            },
        }
    }

    fn give_back(&self, connection: ClnRpc) {
        let mut idle = self.idle();
        if idle.len() < QUICK {
            idle.push(connection);
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<ClnRpc>> {
        self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A field of an answer, or an error that names what is missing.
pub fn field<'a>(method: &str, value: &'a Value, name: &str) -> Result<&'a Value, CallError> {
    value.get(name).ok_or_else(|| unreadable(method, name))
}

/// A text of an answer.
pub fn text<'a>(method: &str, value: &'a Value, name: &str) -> Result<&'a str, CallError> {
    field(method, value, name)?.as_str().ok_or_else(|| unreadable(method, name))
}

/// An amount in msat or a plain number of an answer.
pub fn number(method: &str, value: &Value, name: &str) -> Result<u64, CallError> {
    field(method, value, name)?.as_u64().ok_or_else(|| unreadable(method, name))
}

/// An answer that is not as the command's schema says.
pub fn unreadable(method: &str, name: &str) -> CallError {
    CallError::Lost { method: method.to_owned(), reason: format!("its answer has no readable '{name}'") }
}

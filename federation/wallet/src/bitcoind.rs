//! Bitcoin Core as the chain source, by its JSON-RPC over plain HTTP.
//!
//! The cookie file is read for each call: bitcoind writes a new one whenever it starts. Connections are the HTTP client's
//! concern; a call that fails is made again at the wallet's next poll.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bitcoin::consensus::{deserialize, encode::serialize_hex};
use bitcoin::{Amount, Block, Network, Transaction};
use reqwest::header::AUTHORIZATION;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::chain::{ChainError, ChainSource, Tip};

/// A block is at most 4 MB, 8 MB in hex.
const TIMEOUT: Duration = Duration::from_secs(30);

// Error codes of Bitcoin Core (src/rpc/protocol.h).
const MISC_ERROR: i64 = -1;
const INVALID_PARAMETER: i64 = -8;
const ALREADY_IN_UTXO_SET: i64 = -27;
const IN_WARMUP: i64 = -28;

/// How to log in.
#[derive(Clone)]
pub enum Auth {
    /// The `.cookie` file in bitcoind's data directory.
    Cookie(PathBuf),
    /// `rpcuser` and `rpcpassword`, or a user of `rpcauth`.
    User {
        /// The user.
        name: String,
        /// The password.
        password: String,
    },
}

/// A bitcoind.
pub struct Bitcoind {
    url: String,
    auth: Auth,
    http: reqwest::Client,
}

#[derive(Deserialize)]
struct RpcError {
    code: i64,
    message: String,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    result: Value,
    error: Option<RpcError>,
}

enum CallError {
    Rpc(RpcError),
    Chain(ChainError),
}

impl From<CallError> for ChainError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Rpc(error) if error.code == IN_WARMUP => Self::Unreachable(error.message),
            CallError::Rpc(error) => Self::Node(format!("{} (code {})", error.message, error.code)),
            CallError::Chain(error) => error,
        }
    }
}

impl Bitcoind {
    /// `address` is `host:port`, or `http://host:port`, without credentials.
    ///
    /// # Errors
    /// [`ChainError::Malformed`] if the address holds credentials or asks for another scheme than HTTP.
    pub fn new(address: &str, auth: Auth) -> Result<Self, ChainError> {
        let host = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
        if host.contains("://") || host.contains('@') || host.is_empty() {
            return Err(ChainError::Malformed(
                "give the node's address as host:port, and the credentials apart from it".to_owned(),
            ));
        }
        // reqwest is built without a default cryptography; it wants one even where only plain HTTP is spoken.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ChainError::Malformed(error.to_string()))?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let http = reqwest::Client::builder()
            .use_preconfigured_tls(tls)
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| ChainError::Malformed(error.to_string()))?;
        Ok(Self { url: format!("http://{host}/"), auth, http })
    }

    async fn authorization(&self) -> Result<String, ChainError> {
        let credentials = match &self.auth {
            Auth::User { name, password } => format!("{name}:{password}"),
            Auth::Cookie(path) => match tokio::fs::read_to_string(path).await {
                Ok(cookie) => cookie.trim().to_owned(),
                // A bitcoind that does not run has no cookie.
                Err(error) => {
                    let reason = format!("no cookie file at {}: {error}", path.display());
                    return Err(ChainError::Unreachable(reason));
                }
            },
        };
        Ok(format!("Basic {}", BASE64.encode(credentials)))
    }

    async fn call<T>(&self, method: &str, params: Value) -> Result<T, CallError>
    where
        T: for<'de> Deserialize<'de> + Send + 'static,
    {
        let unreachable = |error: reqwest::Error| {
            let reason = error.without_url().to_string();
            CallError::Chain(ChainError::Unreachable(reason))
        };
        let authorization = self.authorization().await.map_err(CallError::Chain)?;
        let request = json!({ "jsonrpc": "1.0", "id": "federation", "method": method, "params": params });
        let response = self
            .http
            .post(&self.url)
            .header(AUTHORIZATION, authorization)
            .json(&request)
            .send()
            .await
            .map_err(unreachable)?;
        let status = response.status();
        if status == 401 || status == 403 {
            return Err(CallError::Chain(ChainError::Credentials(format!("HTTP {status}"))));
        }
        let body = response.bytes().await.map_err(unreachable)?;
        let malformed = |error: String| CallError::Chain(ChainError::Malformed(format!("{method}: {error}")));
        // An error comes with status 500 and a body of the same form; a 503 (queue full) without.
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|error| malformed(format!("{error}, HTTP status {status}")))?;
        if let Some(error) = answer.error {
            return Err(CallError::Rpc(error));
        }
        serde_json::from_value(answer.result).map_err(|error| malformed(error.to_string()))
    }
}

#[derive(Deserialize)]
struct ChainInfo {
    chain: String,
    blocks: u32,
    #[serde(default)]
    initialblockdownload: bool,
}

#[derive(Deserialize)]
struct FeeEstimate {
    feerate: Option<f64>,
}

#[async_trait]
impl ChainSource for Bitcoind {
    fn describe(&self) -> String {
        format!("bitcoind at {}", self.url)
    }

    async fn network(&self) -> Result<Network, ChainError> {
        let info: ChainInfo = self.call("getblockchaininfo", json!([])).await?;
        Network::from_core_arg(&info.chain).map_err(|error| ChainError::Malformed(error.to_string()))
    }

    async fn tip(&self) -> Result<Tip, ChainError> {
        let info: ChainInfo = self.call("getblockchaininfo", json!([])).await?;
        Ok(Tip { height: info.blocks, syncing: info.initialblockdownload })
    }

    async fn block(&self, height: u32) -> Result<Option<Block>, ChainError> {
        let hash: String = match self.call("getblockhash", json!([height])).await {
            Ok(hash) => hash,
            Err(CallError::Rpc(RpcError { code: INVALID_PARAMETER, .. })) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let block: String = match self.call("getblock", json!([hash, 0])).await {
            Ok(block) => block,
            Err(CallError::Rpc(RpcError { code: MISC_ERROR, message })) if message.contains("pruned") => {
                return Err(ChainError::Pruned(height));
            }
            Err(error) => return Err(error.into()),
        };
        // Megabytes: not on a thread that others wait for.
        let parsed = tokio::task::spawn_blocking(move || {
            let bytes = hex::decode(block).map_err(|error| ChainError::Malformed(error.to_string()))?;
            deserialize(&bytes).map_err(|error| ChainError::Malformed(error.to_string()))
        });
        parsed.await.map_err(|error| ChainError::Malformed(error.to_string()))?.map(Some)
    }

    async fn fee_rate(&self, target: u16) -> Result<Option<u64>, ChainError> {
        let estimate: FeeEstimate = self.call("estimatesmartfee", json!([target])).await?;
        // BTC per kvB: so many satoshi of one bitcoin.
        let rate = estimate.feerate.map(Amount::from_btc).transpose();
        Ok(rate.map_err(|error| ChainError::Malformed(error.to_string()))?.map(Amount::to_sat))
    }

    async fn broadcast(&self, transaction: &Transaction) -> Result<(), ChainError> {
        match self.call::<Value>("sendrawtransaction", json!([serialize_hex(transaction)])).await {
            Ok(_) | Err(CallError::Rpc(RpcError { code: ALREADY_IN_UTXO_SET, .. })) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> Auth {
        Auth::User { name: "user".to_owned(), password: "password".to_owned() }
    }

    #[test]
    fn credentials_do_not_belong_into_the_address() {
        assert!(Bitcoind::new("http://user:password@127.0.0.1:8332", user()).is_err());
        assert!(Bitcoind::new("https://127.0.0.1:8332", user()).is_err());
        let node = Bitcoind::new("127.0.0.1:8332", user()).unwrap();
        assert_eq!(node.describe(), "bitcoind at http://127.0.0.1:8332/");
    }

    #[tokio::test]
    async fn nobody_there_is_unreachable() {
        let node = Bitcoind::new("127.0.0.1:1", user()).unwrap();
        assert!(matches!(node.tip().await, Err(ChainError::Unreachable(_))));
        let cookie = Bitcoind::new("127.0.0.1:1", Auth::Cookie("/nonexistent/.cookie".into())).unwrap();
        assert!(matches!(cookie.tip().await, Err(ChainError::Unreachable(_))));
    }
}

//! The chain by Bitcoin Core's JSON-RPC: blocks, fee rates, and transactions sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use bitcoin::{Block, BlockHash, Network, Transaction, consensus};
use lightning::chain::chaininterface::{
    BroadcasterInterface, ConfirmationTarget, FEERATE_FLOOR_SATS_PER_KW, FeeEstimator,
};
use lightning_block_sync::http::JsonResponse;
use lightning_block_sync::{
    AsyncBlockSourceResult, BlockData, BlockHeaderData, BlockSource, BlockSourceError,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::config::BitcoindAuth;
use super::error::LdkError;
use super::types::lock;

/// Bitcoin Core.
pub(super) struct Bitcoind {
    client: reqwest::Client,
    url: String,
    auth: BitcoindAuth,
    /// Value of the `Authorization` header.
    login: Mutex<Option<String>>,
}

/// Why a call failed.
enum CallError {
    Login,
    Rpc(i64, String),
    Other(String),
}

impl Bitcoind {
    pub fn new(url: String, auth: BitcoindAuth) -> Result<Self, LdkError> {
        // The first one installed stays; reqwest finds none by itself.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(60))
            .build()
            .map_err(|error| LdkError::Bitcoind(error.to_string()))?;
        Ok(Bitcoind { client, url, auth, login: Mutex::new(None) })
    }

    /// Calls a method.
    pub async fn call(&self, method: &str, params: Value) -> Result<Value, LdkError> {
        self.call_coded(method, params).await.map_err(|error| match error {
            CallError::Login => LdkError::Bitcoind("it refuses the credentials".to_owned()),
            CallError::Rpc(code, text) => LdkError::Bitcoind(format!("{method}: {text} ({code})")),
            CallError::Other(text) => LdkError::Bitcoind(format!("{method}: {text}")),
        })
    }

    async fn call_coded(&self, method: &str, params: Value) -> Result<Value, CallError> {
        let known = lock(&self.login).clone();
        if let Some(login) = known {
            match self.call_once(&login, method, &params).await {
                // The cookie changes with each start of Bitcoin Core.
                Err(CallError::Login) => {}
                answer => return answer,
            }
        }
        let login = self.login().map_err(CallError::Other)?;
        *lock(&self.login) = Some(login.clone());
        self.call_once(&login, method, &params).await
    }

    fn login(&self) -> Result<String, String> {
        let pair = match &self.auth {
            BitcoindAuth::Password { user, password } => format!("{user}:{password}"),
            BitcoindAuth::CookieFile(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("{}: {error}", path.display()))?
                .trim()
                .to_owned(),
        };
        Ok(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
    }

    async fn call_once(&self, login: &str, method: &str, params: &Value) -> Result<Value, CallError> {
        let other = |error: reqwest::Error| CallError::Other(error.without_url().to_string());
        let answer = self
            .client
            .post(&self.url)
            .header("authorization", login)
            .json(&json!({"jsonrpc": "1.0", "id": 0, "method": method, "params": params}))
            .send()
            .await
            .map_err(other)?;
        if answer.status() == reqwest::StatusCode::UNAUTHORIZED {
            return Err(CallError::Login);
        }
        let mut body: Value = answer.json().await.map_err(other)?;
        match body.get("error") {
            Some(error) if !error.is_null() => Err(CallError::Rpc(
                error.get("code").and_then(Value::as_i64).unwrap_or_default(),
                error.get("message").and_then(Value::as_str).unwrap_or_default().to_owned(),
            )),
            _ => body
                .get_mut("result")
                .map(Value::take)
                .ok_or_else(|| CallError::Other("an answer without a result".to_owned())),
        }
    }

    /// Hands a transaction to the network. One that is known already is fine.
    ///
    /// `Ok(Some(reason))`: refused, and trying again right away won't help.
    pub async fn send_transaction(&self, tx: &Transaction) -> Result<Option<String>, LdkError> {
        let params = json!([consensus::encode::serialize_hex(tx)]);
        match self.call_coded("sendrawtransaction", params).await {
            Ok(_) => Ok(None),
            // RPC_VERIFY_ALREADY_IN_UTXO_SET
            Err(CallError::Rpc(-27, _)) => Ok(None),
            Err(CallError::Rpc(_, text)) => Ok(Some(text)),
            Err(CallError::Login) => Err(LdkError::Bitcoind("it refuses the login".to_owned())),
            Err(CallError::Other(text)) => Err(LdkError::Bitcoind(text)),
        }
    }

    /// Hands over a child that pays for its parents, which alone may pay too little.
    pub async fn send_package(&self, txs: &[Transaction]) -> Result<Option<String>, LdkError> {
        let hex: Vec<_> = txs.iter().map(consensus::encode::serialize_hex).collect();
        match self.call_coded("submitpackage", json!([hex])).await {
            Ok(answer) => {
                let message = answer.get("package_msg").and_then(Value::as_str).unwrap_or("?");
                Ok((message != "success").then(|| message.to_owned()))
            }
            Err(CallError::Rpc(_, text)) => Ok(Some(text)),
            Err(CallError::Login) => Err(LdkError::Bitcoind("it refuses the login".to_owned())),
            Err(CallError::Other(text)) => Err(LdkError::Bitcoind(text)),
        }
    }

    /// The best block.
    pub async fn tip(&self) -> Result<(BlockHash, u32), LdkError> {
        let info = self.call("getblockchaininfo", json!([])).await?;
        let hash = info.get("bestblockhash").and_then(Value::as_str).and_then(|h| h.parse().ok());
        let height = info.get("blocks").and_then(Value::as_u64).and_then(|h| h.try_into().ok());
        hash.zip(height).ok_or_else(|| LdkError::Bitcoind("no best block".to_owned()))
    }

    /// The block hash at a height.
    pub async fn block_hash(&self, height: u32) -> Result<BlockHash, LdkError> {
        let hash = self.call("getblockhash", json!([height])).await?;
        let hash = hash.as_str().and_then(|hash| hash.parse().ok());
        hash.ok_or_else(|| LdkError::Bitcoind("no block hash".to_owned()))
    }

    /// Refuses a node on another chain, with its reason.
    pub async fn check_network(&self, network: Network) -> Result<(), LdkError> {
        let genesis = self.block_hash(0).await?;
        if genesis == bitcoin::constants::genesis_block(network).block_hash() {
            Ok(())
        } else {
            Err(LdkError::Bitcoind(format!("it is not on {network}")))
        }
    }
}

/// LDK asks again after a transient error; none of a remote node's is for ever.
fn transient(error: impl std::fmt::Display) -> BlockSourceError {
    BlockSourceError::transient(error.to_string())
}

impl BlockSource for Bitcoind {
    fn get_header<'a>(
        &'a self,
        hash: &'a BlockHash,
        _height: Option<u32>,
    ) -> AsyncBlockSourceResult<'a, BlockHeaderData> {
        Box::pin(async move {
            let header = self.call("getblockheader", json!([hash])).await.map_err(transient)?;
            JsonResponse(header).try_into().map_err(|error: std::io::Error| transient(error))
        })
    }

    fn get_block<'a>(&'a self, hash: &'a BlockHash) -> AsyncBlockSourceResult<'a, BlockData> {
        Box::pin(async move {
            let block = self.call("getblock", json!([hash, 0])).await.map_err(transient)?;
            let block = block.as_str().unwrap_or_default();
            let block: Block = consensus::encode::deserialize_hex(block).map_err(transient)?;
            Ok(BlockData::FullBlock(block))
        })
    }

    fn get_best_block(&self) -> AsyncBlockSourceResult<'_, (BlockHash, Option<u32>)> {
        Box::pin(async move {
            let (hash, height) = self.tip().await.map_err(transient)?;
            Ok((hash, Some(height)))
        })
    }
}

/// LDK's transactions, queued: they go out after the commit of what they follow from.
pub(super) struct Broadcaster {
    queue: mpsc::UnboundedSender<Vec<Transaction>>,
}

impl Broadcaster {
    /// The broadcaster, and the queue that [`super::tasks`] empties.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Vec<Transaction>>) {
        let (queue, rest) = mpsc::unbounded_channel();
        (Broadcaster { queue }, rest)
    }
}

impl BroadcasterInterface for Broadcaster {
    fn broadcast_transactions(&self, txs: &[&Transaction]) {
        // No receiver: the node is stopping. LDK hands them over again at its next start.
        let _ = self.queue.send(txs.iter().map(|tx| (*tx).clone()).collect());
    }
}

/// Fee rates as Bitcoin Core last estimated them, in sat per 1000 weight units.
pub(super) struct Fees {
    rates: Mutex<HashMap<ConfirmationTarget, u32>>,
}

/// Each of LDK's targets, the blocks it means, and what is used until there is an estimate.
const TARGETS: [(ConfirmationTarget, u16, u32); 7] = [
    (ConfirmationTarget::MaximumFeeEstimate, 1, 12_500),
    (ConfirmationTarget::UrgentOnChainSweep, 3, 2_500),
    (ConfirmationTarget::MinAllowedAnchorChannelRemoteFee, 1008, FEERATE_FLOOR_SATS_PER_KW),
    (ConfirmationTarget::MinAllowedNonAnchorChannelRemoteFee, 144, FEERATE_FLOOR_SATS_PER_KW),
    (ConfirmationTarget::AnchorChannelFee, 1008, FEERATE_FLOOR_SATS_PER_KW),
    (ConfirmationTarget::NonAnchorChannelFee, 12, 1_000),
    (ConfirmationTarget::ChannelCloseMinimum, 144, FEERATE_FLOOR_SATS_PER_KW),
];

impl Fees {
    pub fn new() -> Arc<Self> {
        let rates = TARGETS.iter().map(|(target, _, fallback)| (*target, *fallback)).collect();
        Arc::new(Fees { rates: Mutex::new(rates) })
    }

    /// Asks for new estimates. Regtest has none; the last known ones stay.
    pub async fn refresh(&self, bitcoind: &Bitcoind) {
        for (target, blocks, fallback) in TARGETS {
            let Ok(estimate) = bitcoind.call("estimatesmartfee", json!([blocks])).await else {
                return;
            };
            let Some(btc_per_kvb) = estimate.get("feerate").and_then(Value::as_f64) else {
                continue;
            };
            // 1 BTC/kvB = 100,000,000 sat per 4000 weight units.
            let rate = (btc_per_kvb * 25_000_000.0).ceil().clamp(0.0, 10_000_000.0) as u32;
            let rate = match target {
                // What a peer may ask for: generous, since a low limit force-closes.
                ConfirmationTarget::MaximumFeeEstimate => rate.saturating_mul(2).max(fallback),
                // A lower demand than the estimate's, for the same reason.
                ConfirmationTarget::MinAllowedNonAnchorChannelRemoteFee => rate / 2,
                // Whatever the network relays: anchors can be bumped.
                ConfirmationTarget::MinAllowedAnchorChannelRemoteFee => fallback,
                _ => rate,
            };
            lock(&self.rates).insert(target, rate.max(FEERATE_FLOOR_SATS_PER_KW));
        }
    }
}

impl FeeEstimator for Fees {
    fn get_est_sat_per_1000_weight(&self, target: ConfirmationTarget) -> u32 {
        lock(&self.rates).get(&target).copied().unwrap_or(FEERATE_FLOOR_SATS_PER_KW)
    }
}

//! lightningd as the gateway's node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::rand;
use bitcoin::{Address, Network, Txid};
use gateway::node::{
    Balances, HeldPayment, HoldInvoiceRequest, LightningNode, NodeError, NodeInfo, OnchainSendRequest,
    PayRequest, PaymentStatus,
};
use lightning_invoice::Bolt11Invoice;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::invoice::{self, InvoiceError, route_hints};
use super::pay::{self, Attempt, Row, judge};
use super::rpc::{Rpc, field, number, text, unreadable};
use super::wallet::{self, unavailable};
use crate::hook::live::{LiveInvoice, LiveState};
use crate::hook::{Hook, HookError, unix_now};

/// `pay` answers `Pending` this long after `retry_for`.
const PAY_MARGIN: Duration = Duration::from_secs(30);
/// Results of earlier attempts that are remembered; older ones are judged by their rows alone.
const ATTEMPTS_KEPT: usize = 10_000;

/// lightningd, by its RPC and this plugin's hook.
pub struct ClnNode {
    rpc: Rpc,
    hook: Arc<Hook>,
    attempts: Arc<Attempts>,
}

type Attempts = Mutex<HashMap<[u8; 32], watch::Receiver<Attempt>>>;

impl ClnNode {
    /// Pays over `rpc`, and receives by `hook`.
    pub fn new(rpc: Rpc, hook: Arc<Hook>) -> Self {
        Self { rpc, hook, attempts: Arc::default() }
    }

    async fn network(&self) -> Result<Network, NodeError> {
        let info = self.rpc.call("getinfo", json!({})).await.map_err(unavailable)?;
        read_network(&info)
    }

    /// The attempt of this hash, begun now if there is none.
    fn attempt(&self, request: &PayRequest) -> watch::Receiver<Attempt> {
        let hash = request.invoice.payment_hash().to_byte_array();
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(attempt) = attempts.get(&hash) {
            return attempt.clone();
        }
        if attempts.len() >= ATTEMPTS_KEPT {
            attempts.retain(|_, attempt| *attempt.borrow() == Attempt::Running);
        }
        let (report, attempt) = watch::channel(Attempt::Running);
        attempts.insert(hash, attempt.clone());
        // A task of its own: a caller that goes away must not take the only witness of `xpay` along.
        let (rpc, request) = (self.rpc.clone(), request.clone());
        tokio::spawn(async move {
            let result = run_attempt(&rpc, &request).await;
            let _ = report.send(result);
        });
        attempt
    }
}

/// All rows of a payment hash.
async fn rows(rpc: &Rpc, hash: &[u8; 32]) -> Result<Vec<Row>, NodeError> {
    let params = json!({ "payment_hash": hex::encode(hash) });
    let answer = rpc.call("listsendpays", params).await.map_err(unavailable)?;
    let rows = field("listsendpays", &answer, "payments").map_err(unavailable)?.as_array();
    let rows = rows.into_iter().flatten().map(Row::read).collect::<Option<Vec<_>>>();
    // A row that can't be read might be the one that was paid.
    rows.ok_or_else(|| unavailable(unreadable("listsendpays", "payments")))
}

/// Calls `xpay`, unless lightningd knows the payment already.
async fn run_attempt(rpc: &Rpc, request: &PayRequest) -> Attempt {
    let hash = request.invoice.payment_hash().to_byte_array();
    let Ok(before) = rows(rpc, &hash).await else { return Attempt::None };
    if judge(&hash, &before, &Attempt::None, unix_now()) != PaymentStatus::Unknown {
        return Attempt::None;
    }
    let fresh = before.is_empty();
    let seconds = request.retry_for.as_secs().max(1);
    let mut params = json!({
        "invstring": request.invoice.to_string(),
        "maxfee": request.max_fee_msat,
        "maxdelay": request.max_delay_blocks,
        "retry_for": seconds,
        "label": pay::label(unix_now(), seconds),
    });
    if let (None, Some(params)) = (request.invoice.amount_milli_satoshis(), params.as_object_mut()) {
        params.insert("amount_msat".to_owned(), json!(request.amount_msat));
    }
    let mut result = rpc.call_slow("xpay", params.clone()).await;
    // Before v26.06 `xpay` knows no labels.
    let without_label = result
        .as_ref()
        .is_err_and(|error| error.code() == Some(INVALID_PARAMS) && error.to_string().contains("label"));
    if let (true, Some(fields)) = (without_label, params.as_object_mut()) {
        fields.remove("label");
        result = rpc.call_slow("xpay", params).await;
    }
    match result {
        Ok(answer) => paid(&hash, &answer),
        Err(error) => match error.code() {
            Some(ALREADY_PAID) => Attempt::AlreadyPaid,
            Some(code) => Attempt::Over {
                reason: error.to_string(),
                fresh,
                sent_nothing: matches!(code, ROUTE_NOT_FOUND | INVOICE_EXPIRED | INVALID_PARAMS),
            },
            // Nobody knows what xpay still does: its rows and their label tell.
            None => Attempt::None,
        },
    }
}

// `common/jsonrpc_errors.h`
const INVALID_PARAMS: i32 = -32602;
const ROUTE_NOT_FOUND: i32 = 205;
const INVOICE_EXPIRED: i32 = 207;
const ALREADY_PAID: i32 = 219;

/// An answer without a preimage that fits proves nothing: the rows are to tell.
fn paid(hash: &[u8; 32], answer: &Value) -> Attempt {
    let mut preimage = [0; 32];
    let read = answer.get("payment_preimage").and_then(Value::as_str);
    let fits = read.is_some_and(|text| hex::decode_to_slice(text, &mut preimage).is_ok())
        && sha256::Hash::hash(&preimage).as_byte_array() == hash;
    let msat = |name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or_default();
    let fee_msat = msat("amount_sent_msat").saturating_sub(msat("amount_msat"));
    if fits { Attempt::Paid { preimage, fee_msat } } else { Attempt::None }
}

fn read_network(info: &Value) -> Result<Network, NodeError> {
    let name = text("getinfo", info, "network").map_err(unavailable)?;
    Network::from_core_arg(match name {
        "bitcoin" => "main",
        "testnet" => "test",
        other => other,
    })
    .map_err(|error| NodeError::Unavailable(error.to_string()))
}

#[async_trait]
impl LightningNode for ClnNode {
    async fn info(&self) -> Result<NodeInfo, NodeError> {
        let info = self.rpc.call("getinfo", json!({})).await.map_err(unavailable)?;
        let channels = self.rpc.call("listpeerchannels", json!({})).await.map_err(unavailable)?;
        let height = number("getinfo", &info, "blockheight").map_err(unavailable)?;
        let id = text("getinfo", &info, "id").map_err(unavailable)?;
        Ok(NodeInfo {
            alias: info.get("alias").and_then(Value::as_str).unwrap_or_default().to_owned(),
            node_id: id.parse().map_err(|_| unavailable(unreadable("getinfo", "id")))?,
            network: read_network(&info)?,
            block_height: u32::try_from(height)
                .map_err(|_| unavailable(unreadable("getinfo", "blockheight")))?,
            route_hints: route_hints(&channels),
        })
    }

    async fn pay(&self, request: PayRequest) -> Result<PaymentStatus, NodeError> {
        if request.invoice.amount_milli_satoshis().is_some_and(|amount| amount != request.amount_msat) {
            return Err(NodeError::Refused("the invoice is for another amount".to_owned()));
        }
        let hash = request.invoice.payment_hash().to_byte_array();
        let mut attempt = self.attempt(&request);
        let patience = request.retry_for.saturating_add(PAY_MARGIN);
        // Over or not: the rows decide.
        let _ = tokio::time::timeout(patience, attempt.wait_for(|state| *state != Attempt::Running)).await;
        self.payment(hash).await
    }

    async fn payment(&self, payment_hash: [u8; 32]) -> Result<PaymentStatus, NodeError> {
        // The attempt's state first: what it has sent until then is in the rows read after it.
        let attempt = {
            let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
            attempts.get(&payment_hash).map_or(Attempt::None, |attempt| attempt.borrow().clone())
        };
        let rows = rows(&self.rpc, &payment_hash).await?;
        Ok(judge(&payment_hash, &rows, &attempt, unix_now()))
    }

    async fn hold_invoice(&self, request: HoldInvoiceRequest) -> Result<Bolt11Invoice, NodeError> {
        let info = self.info().await?;
        let invoice = LiveInvoice {
            payment_hash: request.payment_hash,
            amount_msat: request.amount_msat,
            payment_secret: rand::random(),
            expires_at: unix_now().saturating_add(request.expiry.as_secs()),
            state: LiveState::Open,
        };
        // Live before anyone can have it.
        let live =
            self.hook.register(invoice).await.map_err(|error| hook_error(error, request.payment_hash))?;
        let signed =
            invoice::sign(&self.rpc, &request, live.payment_secret, info.network, &info.route_hints).await;
        signed.map_err(|error| match error {
            InvoiceError::Request(reason) => NodeError::Refused(reason),
            InvoiceError::Call(error) => unavailable(error),
        })
    }

    async fn held_payments(&self) -> Result<Vec<HeldPayment>, NodeError> {
        let held = self.hook.held().into_iter().map(|set| HeldPayment {
            payment_hash: set.payment_hash,
            amount_msat: set.amount_msat,
            claim_deadline_height: set.claim_deadline,
        });
        Ok(held.collect())
    }

    async fn held_changed(&self, seen: u64) -> u64 {
        self.hook.held_changed(seen).await
    }

    async fn settle(&self, payment_hash: [u8; 32], preimage: [u8; 32]) -> Result<(), NodeError> {
        self.hook.settle(payment_hash, preimage).await.map_err(|error| hook_error(error, payment_hash))
    }

    async fn cancel(&self, payment_hash: [u8; 32]) -> Result<(), NodeError> {
        self.hook.cancel(payment_hash).await.map_err(|error| hook_error(error, payment_hash))
    }

    async fn onchain_address(&self) -> Result<Address, NodeError> {
        wallet::address(&self.rpc, self.network().await?).await
    }

    async fn onchain_send(&self, request: OnchainSendRequest) -> Result<Txid, NodeError> {
        wallet::send(&self.rpc, request, self.network().await?).await
    }

    async fn balances(&self) -> Result<Balances, NodeError> {
        wallet::balances(&self.rpc).await
    }
}

fn hook_error(error: HookError, hash: [u8; 32]) -> NodeError {
    match error {
        HookError::NotHeld => NodeError::NotHeld(hash),
        HookError::Settled => NodeError::AlreadySettled(hash),
        HookError::WrongPreimage => NodeError::WrongPreimage(hash),
        HookError::Taken => NodeError::Refused(error.to_string()),
        HookError::Starting | HookError::File(_) | HookError::NotRunning => {
            NodeError::Unavailable(error.to_string())
        }
    }
}

//! lightningd as the gateway's node.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use tokio::time::{Instant, timeout_at};

use super::asked::{Asked, AskedError, AskedFile, Outcome};
use super::invoice::{self, InvoiceError, route_hints};
use super::pay::{self, Attempt, Evidence, Row, Verdict};
use super::rpc::{Rpc, field, number, text, unreadable};
use super::wallet::{self, unavailable};
use crate::hook::live::{LiveInvoice, LiveState};
use crate::hook::{Hook, HookError, unix_now};

/// `pay` answers `Pending` this long after `retry_for`.
const PAY_MARGIN: Duration = Duration::from_secs(30);
/// Results of earlier attempts that are remembered; older ones are judged by their rows alone.
const ATTEMPTS_KEPT: usize = 10_000;

/// Rows are looked through for gaps up to this many; a payment that is older than that stays in doubt.
const ROWS_COUNTED: u64 = 10_000;
/// Between two looks at a payment that an earlier process began.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// After `xpay` has given up, lightningd may take this long to write the row of a part that it was handed before.
const LAST_ROWS: Duration = Duration::from_millis(500);

/// lightningd, by its RPC and this plugin's hook. Cheap to clone.
#[derive(Clone)]
pub struct ClnNode {
    rpc: Rpc,
    hook: Arc<Hook>,
    asked: Arc<AskedFile>,
    attempts: Arc<Attempts>,
    /// Payments whose doubt was logged.
    doubted: Arc<Mutex<HashSet<[u8; 32]>>>,
}

type Attempts = Mutex<HashMap<[u8; 32], watch::Receiver<Attempt>>>;

impl ClnNode {
    /// Pays over `rpc`, each payment hash once for ever by `asked`, and receives by `hook`.
    pub fn new(rpc: Rpc, hook: Arc<Hook>, asked: Arc<AskedFile>) -> Self {
        Self { rpc, hook, asked, attempts: Arc::default(), doubted: Arc::default() }
    }

    async fn network(&self) -> Result<Network, NodeError> {
        let info = self.rpc.call("getinfo", json!({})).await.map_err(unavailable)?;
        read_network(&info)
    }

    fn attempts(&self) -> MutexGuard<'_, HashMap<[u8; 32], watch::Receiver<Attempt>>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This process's attempt of a hash, begun now if none ever was; `None` if it was begun by an earlier process.
    fn attempt(&self, request: &PayRequest) -> Option<watch::Receiver<Attempt>> {
        let hash = request.invoice.payment_hash().to_byte_array();
        let mut attempts = self.attempts();
        if let Some(attempt) = attempts.get(&hash) {
            return Some(attempt.clone());
        }
        if self.asked.get(&hash).is_some() {
            return None;
        }
        if attempts.len() >= ATTEMPTS_KEPT {
            attempts.retain(|_, attempt| *attempt.borrow() == Attempt::Running);
        }
        let (report, attempt) = watch::channel(Attempt::Running);
        attempts.insert(hash, attempt.clone());
        // A task of its own: a caller that goes away must not take the only witness of `xpay` along.
        let (node, request) = (self.clone(), request.clone());
        tokio::spawn(async move {
            let result = node.run_attempt(&hash, &request).await;
            if matches!(result, Attempt::NotBegun { .. }) {
                // It may be begun later.
                node.attempts().remove(&hash);
            }
            let _ = report.send(result);
        });
        Some(attempt)
    }

    /// Writes down that `xpay` is asked, and asks it, unless lightningd knows the payment already.
    async fn run_attempt(&self, hash: &[u8; 32], request: &PayRequest) -> Attempt {
        let fault = |error: String| Attempt::NotBegun { fault: Some(error) };
        let before = match rows(&self.rpc, hash).await {
            Ok(rows) => rows,
            Err(error) => return fault(error.to_string()),
        };
        let now = unix_now();
        let evidence = Evidence { record: None, attempt: &Attempt::None, rows: &before, whole: false, now };
        if pay::judge(hash, evidence).status != PaymentStatus::Unknown {
            return Attempt::NotBegun { fault: None };
        }
        let seconds = request.retry_for.as_secs().max(1);
        let until = pay::sends_until(now, seconds);
        let asked = Asked {
            payment_hash: *hash,
            at: now,
            until,
            expires_at: request.invoice.expires_at().map_or(u64::MAX, |at| at.as_secs()),
            fresh: before.is_empty(),
            last_row: last_row(&self.rpc).await,
        };
        match self.write(move |file| file.ask(asked)).await {
            Ok(true) => {}
            // Never twice, whoever asked.
            Ok(false) => return Attempt::None,
            Err(error) => return fault(error),
        }
        let attempt = xpay(&self.rpc, hash, request, until).await;
        if let Attempt::Over { sent_nothing: false, .. } = attempt {
            tokio::time::sleep(LAST_ROWS).await;
        }
        // Judged and written as soon as xpay has said that it is over, before anyone can have removed a row.
        let whole = matches!(attempt, Attempt::Over { .. });
        if let Ok(rows) = rows(&self.rpc, hash).await {
            let record = self.asked.get(hash);
            let now = unix_now();
            let evidence = Evidence { record: record.as_ref(), attempt: &attempt, rows: &rows, whole, now };
            self.note(hash, &pay::judge(hash, evidence).status).await;
        }
        attempt
    }

    /// Writes down how a payment ended, if it did.
    async fn note(&self, hash: &[u8; 32], status: &PaymentStatus) {
        let outcome = match status {
            PaymentStatus::Succeeded { preimage, fee_msat } => {
                Outcome::Paid { preimage: *preimage, fee_msat: *fee_msat }
            }
            PaymentStatus::Failed { reason } => Outcome::Failed { reason: reason.clone() },
            PaymentStatus::Pending | PaymentStatus::Unknown => return,
        };
        if self.asked.get(hash).is_none_or(|record| record.outcome.is_some()) {
            return;
        }
        let hash = *hash;
        if let Err(error) = self.write(move |file| file.end(hash, outcome)).await {
            tracing::error!(payment_hash = hex::encode(hash), "the end of a payment is not written: {error}");
        }
    }

    /// Uses the file on a thread that may wait for the disk.
    async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&AskedFile) -> Result<T, AskedError> + Send + 'static,
    ) -> Result<T, String> {
        let file = self.asked.clone();
        let written = tokio::task::spawn_blocking(move || write(&file)).await;
        written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    async fn look(&self, hash: &[u8; 32]) -> Result<Verdict, NodeError> {
        // The attempt's state first: what it has sent until then is in the rows read after it.
        let attempt = self.attempts().get(hash).map_or(Attempt::None, |attempt| {
            let state = attempt.borrow().clone();
            // Its task broke off: what xpay does now is not known any more.
            let is_gone = state == Attempt::Running && attempt.has_changed().is_err();
            if is_gone { Attempt::None } else { state }
        });
        let record = self.asked.get(hash);
        let rows = rows(&self.rpc, hash).await?;
        let now = unix_now();
        let judge = |whole| {
            let evidence = Evidence { record: record.as_ref(), attempt: &attempt, rows: &rows, whole, now };
            pay::judge(hash, evidence)
        };
        let mut verdict = judge(false);
        if verdict.doubt.is_some() {
            let before = record.as_ref().and_then(|record| record.asked.last_row);
            // After the hash's own rows: what was gone from those is gone from these.
            if let Some(before) = before
                && none_removed_since(&self.rpc, before).await
            {
                verdict = judge(true);
            }
        }
        self.note(hash, &verdict.status).await;
        if let Some(doubt) = verdict.doubt
            && self.doubted.lock().unwrap_or_else(PoisonError::into_inner).insert(*hash)
        {
            tracing::warn!(
                payment_hash = hex::encode(hash),
                "whether a payment arrived can't be told, so it is neither paid again nor refunded: {doubt}"
            );
        }
        Ok(verdict)
    }
}

/// The number of lightningd's newest row, of any payment, also if it is removed; `None` if it can't tell (before v23.11).
async fn last_row(rpc: &Rpc) -> Option<u64> {
    let params = json!({ "subsystem": "sendpays", "indexname": "created", "nextvalue": 0 });
    rpc.call("wait", params).await.ok()?.get("created")?.as_u64()
}

/// Whether every row that lightningd has written after this one is still there. (Its count of removed rows does not
/// move with `delpay`: tried with v26.06.6.)
async fn none_removed_since(rpc: &Rpc, before: u64) -> bool {
    let Some(count) = last_row(rpc).await.and_then(|last| last.checked_sub(before)) else { return false };
    if count > ROWS_COUNTED {
        return false;
    }
    let params = json!({ "index": "created", "start": before.saturating_add(1), "limit": count.max(1) });
    let Ok(answer) = rpc.call("listsendpays", params).await else { return false };
    let rows = answer.get("payments").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let numbers: HashSet<_> =
        rows.iter().filter_map(|row| row.get("created_index").and_then(Value::as_u64)).collect();
    (1..=count).all(|at| numbers.contains(&before.saturating_add(at)))
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

/// Calls `xpay`.
async fn xpay(rpc: &Rpc, hash: &[u8; 32], request: &PayRequest, until: u64) -> Attempt {
    let mut params = json!({
        "invstring": request.invoice.to_string(),
        "maxfee": request.max_fee_msat,
        "maxdelay": request.max_delay_blocks,
        "retry_for": request.retry_for.as_secs().max(1),
        "label": pay::label(until),
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
        Ok(answer) => paid(hash, &answer),
        Err(error) => match error.code() {
            Some(ALREADY_PAID) => Attempt::AlreadyPaid,
            Some(code) => Attempt::Over {
                reason: error.to_string(),
                sent_nothing: matches!(
                    code,
                    ROUTE_NOT_FOUND | INVOICE_EXPIRED | INVALID_PARAMS | NO_SUCH_COMMAND
                ),
            },
            // Nobody knows what xpay still does: its rows and their label tell.
            None => Attempt::None,
        },
    }
}

// `common/jsonrpc_errors.h`
const INVALID_PARAMS: i32 = -32602;
const NO_SUCH_COMMAND: i32 = -32601;
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
        let hash = request.invoice.payment_hash().to_byte_array();
        let deadline = Instant::now() + request.retry_for.saturating_add(PAY_MARGIN);
        let is_wrong =
            request.invoice.amount_milli_satoshis().is_some_and(|msat| msat != request.amount_msat);
        // Only what was never begun is refused.
        if is_wrong && self.asked.get(&hash).is_none() && !self.attempts().contains_key(&hash) {
            return Err(NodeError::Refused("the invoice is for another amount".to_owned()));
        }
        if let Some(mut attempt) = self.attempt(&request) {
            let over = attempt.wait_for(|state| *state != Attempt::Running);
            // Over or not: the rows decide.
            let fault = match timeout_at(deadline, over).await {
                Ok(Ok(state)) => match &*state {
                    Attempt::NotBegun { fault } => fault.clone(),
                    _ => None,
                },
                _ => None,
            };
            return match fault {
                Some(fault) => Err(NodeError::Unavailable(fault)),
                None => self.payment(hash).await,
            };
        }
        // Begun by an earlier process: nothing here can hurry it.
        let deadline = deadline - PAY_MARGIN;
        loop {
            let verdict = self.look(&hash).await?;
            let decided = verdict.status != PaymentStatus::Pending || verdict.doubt.is_some();
            if decided || Instant::now() + LOOK_AGAIN > deadline {
                return Ok(verdict.status);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn payment(&self, payment_hash: [u8; 32]) -> Result<PaymentStatus, NodeError> {
        Ok(self.look(&payment_hash).await?.status)
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

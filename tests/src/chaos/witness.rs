//! Remembers each word of each guardian about each transaction: what was once answered must hold at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use federation_client::api::{CallError, Http, Method, Request, Transport};
use federation_core::TxId;
use federation_core::rest::{TransactionResponse, TransactionStatus};
use serde_json::Value;

/// What guardians have said about a transaction. Guardians are counted as the harness does.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Those that answered `proposed` and have kept their disk since.
    pub proposed: BTreeSet<usize>,
    /// The epochs that `accepted` was answered with.
    pub accepted: BTreeSet<u64>,
    /// Those that gave their shares, and so have said that it is accepted.
    pub signed: BTreeSet<usize>,
    /// The codes that `rejected` was answered with.
    pub rejected: BTreeSet<String>,
}

impl Said {
    /// Whether anybody has said so.
    pub fn is_accepted(&self) -> bool {
        !self.accepted.is_empty() || !self.signed.is_empty()
    }
}

/// All that was said.
#[derive(Default)]
pub struct Ledger {
    said: Mutex<BTreeMap<TxId, Said>>,
    muted: AtomicBool,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TxId, Said>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an answer down.
    pub fn note(&self, guardian: usize, response: &TransactionResponse) {
        let mut ledger = self.lock();
        let said = ledger.entry(response.txid).or_default();
        match &response.status {
            TransactionStatus::Proposed => {
                said.proposed.insert(guardian);
            }
            TransactionStatus::Accepted { epoch } => {
                said.accepted.insert(*epoch);
            }
            TransactionStatus::Rejected { code, .. } => {
                said.rejected.insert(code.clone());
            }
        }
    }

    /// A guardian gave its shares of a transaction's outputs.
    pub fn note_signed(&self, guardian: usize, txid: TxId) {
        self.lock().entry(txid).or_default().signed.insert(guardian);
    }

    /// A guardian's disk is lost: what was durable there only is not any more.
    pub fn wiped(&self, guardian: usize) {
        for said in self.lock().values_mut() {
            said.proposed.remove(&guardian);
        }
    }

    /// All of it.
    pub fn all(&self) -> BTreeMap<TxId, Said> {
        self.lock().clone()
    }

    /// How many transactions were accepted.
    pub fn accepted(&self) -> usize {
        self.lock().values().filter(|said| said.is_accepted()).count()
    }

    /// Whether wallets are kept from handing anything in: then it is the guardians alone that remember transactions.
    pub fn mute(&self, muted: bool) {
        self.muted.store(muted, Ordering::SeqCst);
    }

    /// Transactions that somebody has and that nobody has said to be decided.
    pub fn in_flight(&self) -> Vec<TxId> {
        let open = |said: &Said| !said.proposed.is_empty() && !said.is_accepted() && said.rejected.is_empty();
        self.lock().iter().filter(|(_, said)| open(said)).map(|(txid, _)| *txid).collect()
    }
}

/// Requests over HTTP whose answers go into the ledger.
pub struct Witness {
    http: Http,
    urls: Vec<String>,
    ledger: Arc<Ledger>,
}

impl Witness {
    /// For the guardians at these URLs.
    pub fn new(urls: Vec<String>, ledger: Arc<Ledger>) -> federation_client::Result<Self> {
        Ok(Self { http: Http::new()?, urls, ledger })
    }
}

#[async_trait]
impl Transport for Witness {
    async fn call(&self, base: &str, request: &Request, limit: Duration) -> Result<Value, CallError> {
        if request.method == Method::Post && self.ledger.muted.load(Ordering::SeqCst) {
            return Err(CallError::Down("wallets are kept from handing anything in".to_owned()));
        }
        let answer = self.http.call(base, request, limit).await?;
        let Some(guardian) = self.urls.iter().position(|url| url == base) else { return Ok(answer) };
        if request.path.starts_with("/v1/transactions")
            && let Ok(response) = serde_json::from_value(answer.clone())
        {
            self.ledger.note(guardian, &response);
        }
        if let Some(query) = request.path.strip_prefix("/v1/modules/mint/shares?")
            && let Some(txid) = query.split('&').find_map(|pair| pair.strip_prefix("txid="))
            && let Ok(txid) = txid.parse()
        {
            self.ledger.note_signed(guardian, txid);
        }
        Ok(answer)
    }

    /// Lookups say nothing about transactions, so nobody needs to hear them.
    fn apart(&self) -> federation_client::Result<Arc<dyn Transport>> {
        self.http.apart()
    }
}

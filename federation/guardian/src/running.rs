//! A guardian whose federation exists: its modules, its pool, and the answers to its API.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use federation_core::api::{ApiError, Method, Route};
use federation_core::config::{ConfigResponse, ConsensusConfig, Endpoint};
use federation_core::db::{Database, DbError, NamespacedReader, Reader};
use federation_core::encoding::encode;
use federation_core::invite::InviteCode;
use federation_core::module::{DynModule, Epoch, Registry};
use federation_core::rest::{
    AuditResponse, OutputStatus, PeerStatus, StatusResponse, TransactionResponse, TransactionStatus,
};
use federation_core::{FederationId, ModuleId, OutPoint, PeerId, Transaction, TxId};
use federation_store::WriteBatch;
use tokio::sync::watch;

use crate::epoch::apply::Applier;
use crate::epoch::pool::{NoRoom, Pool};
use crate::epoch::verify::Verifier;
use crate::state::{self, Decided, NEXT_EPOCH, TRANSACTIONS};

/// What main loop and API share.
pub struct Running {
    /// The federation.
    pub federation: FederationId,
    /// Its configuration.
    pub config: ConsensusConfig,
    /// This guardian.
    pub me: PeerId,
    /// Where the guardians are.
    pub endpoints: BTreeMap<PeerId, Endpoint>,
    pub(crate) db: Arc<dyn Database>,
    pub(crate) modules: Arc<Registry>,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) applier: Applier,
    pub(crate) pool: Pool,
    /// The next epoch, after each commit.
    pub(crate) epochs: watch::Sender<u64>,
    pub(crate) links: federation_consensus::links::Links,
    pub(crate) faults: Mutex<BTreeMap<PeerId, u64>>,
}

impl Running {
    fn reader(&self) -> Arc<dyn Reader> {
        Arc::clone(&self.db) as Arc<dyn Reader>
    }

    /// A module's committed state.
    pub fn module_reader(&self, module: ModuleId) -> NamespacedReader {
        state::module_reader(self.reader(), module)
    }

    fn agreed(&self) -> NamespacedReader {
        state::agreed_reader(self.reader())
    }

    /// The endpoint of a module.
    pub fn route(&self, kind: &str, path: &str, method: Method) -> Option<(ModuleId, Route)> {
        let (id, module) = self.modules.iter().find(|(_, module)| module.kind() == kind)?;
        let route = module.routes().into_iter().find(|route| route.path == path && route.method == method)?;
        Some((*id, route))
    }

    /// Counts what no honest guardian does.
    pub(crate) fn count_fault(&self, peer: PeerId, what: &str) {
        tracing::info!("guardian {peer} at fault: {what}");
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let count = faults.entry(peer).or_default();
        *count = count.saturating_add(1);
    }

    /// `GET /v1/config`.
    pub fn config_response(&self) -> ConfigResponse {
        ConfigResponse {
            federation_id: self.federation,
            consensus: encode(&self.config),
            endpoints: self.endpoints.clone(),
            modules: self.modules.values().map(|m| (m.kind().to_owned(), m.config_json())).collect(),
        }
    }

    /// What a user needs in order to join.
    pub fn invite(&self) -> InviteCode {
        let api_urls = self.endpoints.values().map(|endpoint| endpoint.api_url.clone()).collect();
        InviteCode { federation: self.federation, api_urls }
    }

    /// `GET /v1/status`.
    pub async fn status(&self) -> Result<StatusResponse, DbError> {
        let links = self.links.status();
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let peers = links
            .iter()
            .map(|(peer, link)| {
                let peer = PeerId(*peer);
                let status = PeerStatus {
                    name: self.endpoints.get(&peer).map(|e| e.name.clone()).unwrap_or_default(),
                    connected: link.connected,
                    rtt_ms: link.rtt.map(|rtt| u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX)),
                    queued: link.queued_frames as u64,
                    faults: faults.get(&peer).copied().unwrap_or_default().saturating_add(link.violations),
                };
                (peer, status)
            })
            .collect();
        let mut alarms = Vec::new();
        for (id, module) in self.modules.iter() {
            alarms.extend(module.alarms(&self.module_reader(*id)).await?);
        }
        let epoch = *self.epochs.borrow();
        let pool = self.pool.waiting().entries as u64;
        Ok(StatusResponse {
            federation_id: self.federation,
            name: self.config.name.clone(),
            peer: self.me,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch,
            pool,
            peers,
            alarms,
        })
    }

    /// `GET /v1/audit`.
    pub async fn audit(&self) -> Result<AuditResponse, DbError> {
        // An epoch committed in between would mix two states: take both again then.
        loop {
            let epoch = *self.epochs.borrow();
            let mut modules = BTreeMap::new();
            for (id, module) in self.modules.iter() {
                modules.insert(module.kind().to_owned(), module.audit(&self.module_reader(*id)).await?);
            }
            if epoch == *self.epochs.borrow() {
                let net_msat = modules
                    .values()
                    .flatten()
                    .fold(0i64, |sum, line: &federation_core::module::AuditLine| {
                        sum.saturating_add(line.amount_msat)
                    });
                return Ok(AuditResponse { epoch, modules, net_msat });
            }
        }
    }

    /// `POST /v1/transactions`: refused at once where this guardian can tell, else durable in the pool.
    pub async fn submit(&self, transaction: Transaction) -> Result<TransactionResponse, ApiError> {
        transaction.check_form().map_err(|error| ApiError::bad_request("malformed", error.to_string()))?;
        let txid = transaction.txid(self.federation);
        if let Some(known) = self.transaction(txid).await?
            && !matches!(known.status, TransactionStatus::Rejected { .. })
        {
            return Ok(known);
        }
        let hash = transaction.hash();
        let verified = self.verifier.verify_submitted(hash, transaction).await?;
        let verified = verified.ok_or_else(|| {
            ApiError::bad_request(
                "bad_signature",
                "a signature does not fit its input and this transaction: is it of another federation?",
            )
        })?;
        // Tried on a copy of the agreed state that is thrown away: the exact reason, at once.
        let mut trial = WriteBatch::new(Arc::clone(&self.db));
        let epoch = Epoch { number: *self.epochs.borrow() };
        match self.applier.apply_one(&mut trial, epoch, &verified).await? {
            Some(Decided::Rejected { code, reason, .. }) => {
                // The trial reads what is committed at each moment: an epoch in between may have accepted this
                // very transaction, handed in at another guardian, and its own inputs now look spent.
                return match self.transaction(txid).await? {
                    Some(known) if !matches!(known.status, TransactionStatus::Rejected { .. }) => Ok(known),
                    _ => Err(ApiError::refused(&code, reason)),
                };
            }
            Some(Decided::Accepted { .. }) | None => {}
        }
        self.pool.add(txid, &verified.transaction).await?.map_err(|no_room| match no_room {
            NoRoom::Full => ApiError::unavailable(
                "pool_full",
                "too many transactions are waiting: try again, or another guardian",
            ),
            NoRoom::InputInUse => ApiError::unavailable(
                "input_in_use",
                "another transaction that spends the same input is waiting here: try again when it is decided, or \
                 another guardian",
            ),
            NoRoom::KeyInUse => ApiError::unavailable(
                "key_in_use",
                "too many transactions with inputs of the same key are waiting here: try again, or another guardian",
            ),
        })?;
        self.transaction(txid).await?.ok_or_else(|| {
            ApiError::new(500, "pool", "the transaction was kept, but is not found: ask again")
        })
    }

    /// Where a transaction stands; `None` if this guardian never saw it.
    pub async fn transaction(&self, txid: TxId) -> Result<Option<TransactionResponse>, DbError> {
        // Before the database: what leaves the pool is committed already.
        let waiting = self.pool.contains(&txid);
        let (status, outputs) = match TRANSACTIONS.get(&self.agreed(), &txid).await? {
            Some(Decided::Accepted { epoch, outputs }) => {
                let mut statuses = Vec::with_capacity(outputs.len());
                for (index, module) in (0u16..).zip(outputs) {
                    statuses.push(self.output(OutPoint { txid, index }, module).await?);
                }
                (TransactionStatus::Accepted { epoch }, statuses)
            }
            _ if waiting => (TransactionStatus::Proposed, Vec::new()),
            Some(Decided::Rejected { code, reason, .. }) => {
                (TransactionStatus::Rejected { code, reason }, Vec::new())
            }
            None => return Ok(None),
        };
        Ok(Some(TransactionResponse { txid, status, outputs }))
    }

    /// What became of one output; `None` if it does not exist.
    pub async fn outcome(&self, point: OutPoint) -> Result<Option<OutputStatus>, DbError> {
        let Some(Decided::Accepted { outputs, .. }) = TRANSACTIONS.get(&self.agreed(), &point.txid).await?
        else {
            return Ok(None);
        };
        match outputs.get(usize::from(point.index)) {
            Some(module) => Ok(Some(self.output(point, *module).await?)),
            None => Ok(None),
        }
    }

    async fn output(&self, point: OutPoint, module: ModuleId) -> Result<OutputStatus, DbError> {
        let Some(found) = self.modules.get(&module) else { return Ok(OutputStatus::Pending) };
        let outcome = DynModule::outcome(&**found, &self.module_reader(module), point).await?;
        Ok(outcome.map_or(OutputStatus::Pending, |outcome| OutputStatus::Ready {
            bytes: outcome.bytes,
            outcome: outcome.json,
        }))
    }

    /// Asks again after each epoch until the answer is final or the time is over; then gives the last one.
    pub async fn wait_for<T, F>(&self, time: Duration, ask: impl Fn() -> F) -> Result<Option<T>, DbError>
    where
        F: Future<Output = Result<Option<(T, bool)>, DbError>>,
    {
        let mut epochs = self.epochs.subscribe();
        let deadline = tokio::time::Instant::now().checked_add(time);
        loop {
            epochs.mark_unchanged();
            let answer = ask().await?;
            let done = answer.as_ref().is_some_and(|(_, done)| *done);
            let answer = answer.map(|(answer, _)| answer);
            let Some(deadline) = deadline.filter(|_| !done && !time.is_zero()) else { return Ok(answer) };
            match tokio::time::timeout_at(deadline, epochs.changed()).await {
                Ok(Ok(())) => {}
                _ => return Ok(answer),
            }
        }
    }
}

/// The next epoch of a database.
pub(crate) async fn next_epoch(db: &Arc<dyn Database>) -> Result<u64, DbError> {
    Ok(NEXT_EPOCH.get(&state::agreed_reader(Arc::clone(db) as _), &()).await?.unwrap_or_default())
}

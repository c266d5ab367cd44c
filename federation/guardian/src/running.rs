//! A guardian whose federation exists: its modules, its pool, and the answers to its API.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use federation_consensus::runner::ConsensusHandle;
use federation_core::api::{ApiError, Method, Route};
use federation_core::config::{ConfigResponse, ConsensusConfig, Endpoint};
use federation_core::db::{Database, DbError, NamespacedReader, Reader};
use federation_core::encoding::encode;
use federation_core::invite::InviteCode;
use federation_core::module::{DynModule, Registry};
use federation_core::rest::{
    AuditResponse, EpochResponse, OutputStatus, TransactionResponse, TransactionStatus,
};
use federation_core::{FederationId, ModuleId, OutPoint, PeerId, Transaction, TxId};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::backups::Backups;
use crate::epoch::apply::Applier;
use crate::epoch::faults::FaultLog;
use crate::epoch::pool::{NoRoom, Pool};
use crate::epoch::submissions::TooMany;
use crate::epoch::verify::Verifier;
use crate::health::Health;
use crate::history::Archive;
use crate::history::snapshot::store::Snapshots;
use crate::state::{self, Decided, NEXT_EPOCH, REJECTED, TRANSACTIONS};

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
    pub(crate) archive: Arc<Archive>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) pool: Pool,
    pub(crate) backups: Backups,
    /// The next epoch, after each commit.
    pub(crate) epochs: watch::Sender<u64>,
    pub(crate) links: federation_consensus::links::Links,
    pub(crate) consensus: ConsensusHandle,
    pub(crate) faults: FaultLog,
    pub(crate) health: Health,
    /// Set when the main loop has ended: requests that are under way still hold this value.
    pub(crate) closed: AtomicBool,
    /// They end with this value.
    pub(crate) _tasks: JoinSet<()>,
}

impl Running {
    fn reader(&self) -> Arc<dyn Reader> {
        Arc::clone(&self.db) as Arc<dyn Reader>
    }

    /// A module's committed state.
    pub fn module_reader(&self, module: ModuleId) -> NamespacedReader {
        state::module_reader(self.reader(), module)
    }

    pub(crate) fn agreed(&self) -> NamespacedReader {
        state::agreed_reader(self.reader())
    }

    /// The endpoint of a module.
    pub fn route(&self, kind: &str, path: &str, method: Method) -> Option<(ModuleId, Route)> {
        let (id, module) = self.modules.iter().find(|(_, module)| module.kind() == kind)?;
        let route = module.routes().into_iter().find(|route| route.path == path && route.method == method)?;
        Some((*id, route))
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
        self.takes_writes()?;
        transaction.check_form().map_err(|error| ApiError::bad_request("malformed", error.to_string()))?;
        let txid = transaction.txid(self.federation);
        if let Some(known) = self.taken(txid).await? {
            return Ok(known);
        }
        let hash = transaction.hash();
        let verified = self.verifier.verify_submitted(hash, transaction).await?.map_err(|TooMany| {
            ApiError::unavailable(
                "busy",
                "too many transactions are being verified: try again, or another guardian",
            )
        })?;
        let verified = verified.ok_or_else(|| {
            ApiError::bad_request(
                "bad_signature",
                "a signature does not fit its input and this transaction: is it of another federation?",
            )
        })?;
        // Tried on a copy of the agreed state that is thrown away: the exact reason, at once.
        let epoch = *self.epochs.borrow();
        match self.applier.try_one(&self.db, epoch, &verified).await? {
            Some(Decided::Rejected { code, reason, .. }) => {
                // The trial reads what is committed at each moment: an epoch in between may have accepted this
                // very transaction, handed in at another guardian, and its own inputs now look spent.
                return self.taken(txid).await?.ok_or_else(|| ApiError::refused(&code, reason));
            }
            Some(Decided::Accepted { .. }) => {}
            // It was accepted this very moment.
            None => {
                if let Some(known) = self.taken(txid).await? {
                    return Ok(known);
                }
            }
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
        // Nobody may rely on a pool that nothing is proposed from any more.
        self.takes_writes()?;
        self.transaction(txid).await?.ok_or_else(|| {
            ApiError::new(500, "pool", "the transaction was kept, but is not found: ask again")
        })
    }

    /// Where a transaction stands that need not be handed in again: it is accepted, or waits here.
    async fn taken(&self, txid: TxId) -> Result<Option<TransactionResponse>, DbError> {
        if self.pool.contains(&txid) || TRANSACTIONS.contains(&self.agreed(), &txid).await? {
            let known = self.transaction(txid).await?;
            // (It may have been rejected this very moment.)
            return Ok(known.filter(|known| !matches!(known.status, TransactionStatus::Rejected { .. })));
        }
        Ok(None)
    }

    /// Whether anything may be handed in here, and whether what this guardian signs can be relied on.
    pub fn takes_writes(&self) -> Result<(), ApiError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(ApiError::unavailable("stopped", "this guardian is stopping: ask another one"));
        }
        match self.archive.divergence() {
            Some(_) => Err(ApiError::unavailable(
                "diverged",
                "this guardian's state differs from the other guardians': ask another one",
            )),
            None => Ok(()),
        }
    }

    /// `GET /v1/epochs/{epoch}`; `None` if it is not applied yet or not kept any more.
    pub async fn epoch(&self, epoch: u64) -> Result<Option<EpochResponse>, DbError> {
        let Some((header, signatures)) = self.archive.signed_header(epoch).await? else { return Ok(None) };
        Ok(Some(EpochResponse {
            epoch,
            previous: header.previous,
            items: header.items,
            state: header.state,
            hash: header.hash(),
            is_final: signatures.len() > self.config.max_faulty(),
            signatures: signatures.into_iter().map(|(node, s)| (PeerId(node), hex::encode(s))).collect(),
        }))
    }

    /// Where a transaction stands; `None` if this guardian never saw it.
    pub async fn transaction(&self, txid: TxId) -> Result<Option<TransactionResponse>, DbError> {
        // Before the database: what leaves the pool is committed already. And what is in it needs no look there: it is not
        // decided, or (signed anew, and handed in elsewhere) will be found decided in an epoch that is about to come.
        if self.pool.contains(&txid) {
            let status = TransactionStatus::Proposed;
            return Ok(Some(TransactionResponse { txid, status, outputs: Vec::new() }));
        }
        let (status, outputs) = match TRANSACTIONS.get(&self.agreed(), &txid).await? {
            Some(Decided::Accepted { epoch, outputs }) => {
                let mut statuses = Vec::with_capacity(outputs.len());
                for (index, module) in (0u16..).zip(outputs) {
                    statuses.push(self.output(OutPoint { txid, index }, module).await?);
                }
                (TransactionStatus::Accepted { epoch }, statuses)
            }
            _ => match REJECTED.get(&state::history_reader(self.reader()), &txid).await? {
                Some(Decided::Rejected { code, reason, .. }) => {
                    (TransactionStatus::Rejected { code, reason }, Vec::new())
                }
                _ => return Ok(None),
            },
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

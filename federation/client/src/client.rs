//! The wallet of one user in one federation: opening, and what everything else is built on.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bitcoin::secp256k1::Keypair;
use borsh::BorshDeserialize;
use federation_core::config::ConsensusConfig;
use federation_core::db::{Database, Reader};
use federation_core::encoding::decode;
use federation_core::module::{MAX_BODY, Value};
use federation_core::{Amount, FederationId, Input, ModuleId, OutPoint, Output, TxId};
use federation_lightning::LightningConfig;
use federation_mint::MintConfig;
use federation_mint::client::Deriver;
use federation_wallet::WalletConfig;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, Notify, watch};
use zeroize::Zeroizing;

use crate::api::{FederationApi, Request};
use crate::engine::Plan;
use crate::ops::Kind;
use crate::store::{Destination, FOUND, NOTES, OPEN, OpId, RESERVED, UNFINISHED};
use crate::tasks::{Running, Tasks, Troubles};
use crate::{ClientError, Result, words};

/// A module of the federation as a client knows it.
pub(crate) struct Module<C> {
    pub id: ModuleId,
    pub config: C,
}

impl<C: BorshDeserialize> Module<C> {
    fn of(config: &ConsensusConfig, kind: &'static str) -> Result<Self> {
        let (id, config) = config.module_config(kind).ok_or(ClientError::NoModule(kind))?;
        Ok(Self { id, config })
    }
}

pub(crate) struct Inner {
    pub db: Arc<dyn Database>,
    pub api: FederationApi,
    pub config: ConsensusConfig,
    pub federation: FederationId,
    pub seed: Zeroizing<[u8; 64]>,
    pub deriver: Deriver,
    pub mint: Module<MintConfig>,
    pub wallet: Module<WalletConfig>,
    pub lightning: Module<LightningConfig>,
    /// Held from choosing notes to the commit that reserves them, and by every other commit.
    pub money: Mutex<()>,
    /// Held while a payment is written down, so that an invoice has one at a time.
    pub paying: Mutex<()>,
    /// Counts commits, for those who wait.
    pub changes: watch::Sender<u64>,
    /// Transactions that are being driven.
    pub drivers: Running,
    /// Operations that are being driven.
    pub flows: Running,
    pub troubles: Troubles,
    /// Ends the pauses after failures: somebody waits.
    pub nudge: Notify,
    /// Held while a backup is written.
    pub backing_up: Mutex<()>,
    /// The way of backups, once there was one.
    pub backup_api: OnceLock<FederationApi>,
    tasks: Weak<Tasks>,
}

/// A wallet; clones are cheap and share everything. Its background tasks end with the last clone; what they were at goes on
/// when the wallet is opened again.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
    /// `None` in the tasks themselves: they must not keep themselves alive.
    tasks: Option<Arc<Tasks>>,
}

impl Client {
    /// Puts a wallet together; nothing runs yet.
    pub(crate) fn assemble(
        db: Arc<dyn Database>,
        api: FederationApi,
        config: ConsensusConfig,
        seed: Zeroizing<[u8; 64]>,
    ) -> Result<Self> {
        let federation = config.id();
        let tasks = Arc::new(Tasks::default());
        let inner = Inner {
            db,
            api,
            federation,
            deriver: Deriver::new(&seed, federation),
            seed,
            mint: Module::of(&config, federation_mint::KIND)?,
            wallet: Module::of(&config, federation_wallet::KIND)?,
            lightning: Module::of(&config, federation_lightning::KIND)?,
            config,
            money: Mutex::default(),
            paying: Mutex::default(),
            changes: watch::channel(0).0,
            drivers: Running::default(),
            flows: Running::default(),
            troubles: Troubles::default(),
            nudge: Notify::new(),
            backing_up: Mutex::default(),
            backup_api: OnceLock::new(),
            tasks: Arc::downgrade(&tasks),
        };
        Ok(Self { inner: Arc::new(inner), tasks: Some(tasks) })
    }

    /// Goes on with everything that is unfinished; done by [`open`](Self::open).
    pub(crate) async fn resume(&self) -> Result<()> {
        for (op, ()) in UNFINISHED.all(self.db()).await? {
            self.spawn_driver(op);
        }
        for (op, ()) in OPEN.all(self.db()).await? {
            self.spawn_flow(op);
        }
        if !FOUND.scan(self.db(), &(), None, 1).await?.is_empty() {
            self.spawn_found();
        }
        self.spawn_backup();
        Ok(())
    }

    /// The same wallet for one of its own tasks.
    pub(crate) fn for_task(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), tasks: None }
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(tasks) = self.tasks.clone().or_else(|| self.inner.tasks.upgrade()) {
            tasks.spawn(task);
        }
    }

    /// The committed state.
    pub(crate) fn db(&self) -> &dyn Reader {
        &*self.inner.db
    }

    /// Wakes whoever waits for something in the database.
    pub(crate) fn touch(&self) {
        self.inner.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Pauses after a failure, until somebody begins to wait for a result.
    pub(crate) async fn rest(&self, time: Duration) {
        let _ = tokio::time::timeout(time, self.inner.nudge.notified()).await;
    }

    /// The federation's id.
    pub fn federation_id(&self) -> FederationId {
        self.inner.federation
    }

    /// The verified configuration.
    pub fn config(&self) -> &ConsensusConfig {
        &self.inner.config
    }

    /// The mint's instance and configuration.
    pub fn mint(&self) -> (ModuleId, &MintConfig) {
        (self.inner.mint.id, &self.inner.mint.config)
    }

    /// The wallet module's instance and configuration.
    pub fn wallet(&self) -> (ModuleId, &WalletConfig) {
        (self.inner.wallet.id, &self.inner.wallet.config)
    }

    /// The lightning module's instance and configuration.
    pub fn lightning(&self) -> (ModuleId, &LightningConfig) {
        (self.inner.lightning.id, &self.inner.lightning.config)
    }

    /// The guardians' APIs.
    pub fn api(&self) -> &FederationApi {
        &self.inner.api
    }

    /// What can be spent now: notes that are in no unfinished operation.
    ///
    /// # Errors
    /// [`ClientError::Db`].
    pub async fn balance(&self) -> Result<Amount> {
        let notes = NOTES.all(self.db()).await?;
        total(notes.iter().map(|(_, held)| held.denomination.amount()))
    }

    /// What is on its way into the balance: notes of our own transactions that are not decided yet, and notes that a restore
    /// found and that are not signed yet. If such a
    /// transaction is refused, what it spends comes back instead ([`reserved`](Self::reserved)).
    ///
    /// # Errors
    /// [`ClientError::Db`].
    pub async fn incoming(&self) -> Result<Amount> {
        let mut incoming = Vec::new();
        for (op, ()) in UNFINISHED.all(self.db()).await? {
            let record = crate::store::TRANSACTIONS.get(self.db(), &op).await?;
            let issues = record.iter().flat_map(|record| &record.issues);
            let kept = issues.filter(|issue| issue.destination == Destination::Keep);
            incoming.extend(kept.map(|issue| issue.denomination.amount()));
        }
        let found = FOUND.all(self.db()).await?.into_iter().filter(|(_, found)| found.signature.is_none());
        incoming.extend(found.map(|(_, found)| found.denomination.amount()));
        total(incoming)
    }

    /// What undecided transactions spend.
    ///
    /// # Errors
    /// [`ClientError::Db`].
    pub async fn reserved(&self) -> Result<Amount> {
        let notes = RESERVED.all(self.db()).await?;
        total(notes.iter().map(|(_, held)| held.denomination.amount()))
    }

    /// Makes one transaction of `inputs`, own notes as needed, `outputs`, and change into own notes; returns when the
    /// federation has accepted it. The change comes into the balance at once, or, if fewer than T guardians serve
    /// their shares, about an epoch later: [`settled`](Self::settled).
    ///
    /// `operation_id` is the caller's idempotency key: a second call with the same one (after a crash too) makes nothing
    /// new, whatever the other arguments, and returns the same txid or the same refusal. The caller's outputs are the
    /// transaction's first ones, in the order given, so that `outputs[i]` is output `i`. `inputs` may be worth more than
    /// `outputs`: all that is left becomes notes (claiming a contract is an input and no output). Each [`Value`] is what
    /// the module will say: amount, and fee on top.
    ///
    /// # Errors
    /// [`ClientError::Rejected`]: refused for good, own notes are free again; a new try needs a new `operation_id`.
    /// [`ClientError::InsufficientFunds`], [`ClientError::TooManyNotes`], [`ClientError::BelowFees`]: nothing was written.
    /// [`ClientError::Unreachable`]: it is saved and goes on by itself, at the latest when the wallet is opened again; call
    /// again to wait.
    pub async fn transact(
        &self,
        operation_id: OpId,
        inputs: Vec<(Input, Keypair, Value)>,
        outputs: Vec<(Output, Value)>,
    ) -> Result<TxId> {
        self.begin(Plan::new(operation_id, inputs, outputs), |_, _| Ok(())).await?;
        Ok(self.wait_transaction(operation_id, false).await?.txid)
    }

    /// Waits until all notes of an operation are in the balance.
    ///
    /// # Errors
    /// As [`transact`](Self::transact).
    pub async fn settled(&self, operation_id: OpId) -> Result<()> {
        self.wait_transaction(operation_id, true).await.map(|_| ())
    }

    /// Waits until nothing is undecided and all change is here, or the time is over; `true`: nothing is left.
    ///
    /// # Errors
    /// [`ClientError::Db`].
    pub async fn settle_all(&self, limit: Duration) -> Result<bool> {
        let mut changes = self.inner.changes.subscribe();
        let deadline = tokio::time::Instant::now().checked_add(limit);
        loop {
            changes.borrow_and_update();
            if !self.is_busy().await? {
                return Ok(true);
            }
            let Some(deadline) = deadline else { return Ok(false) };
            match tokio::time::timeout_at(deadline, changes.changed()).await {
                Ok(Ok(())) => {}
                _ => return Ok(false),
            }
        }
    }

    /// Whether anything is under way that ends by itself within epochs: a transaction, or an operation that is about to
    /// make one. An invoice that nobody has paid yet is none.
    async fn is_busy(&self) -> Result<bool> {
        if !UNFINISHED.scan(self.db(), &(), None, 1).await?.is_empty()
            || !FOUND.scan(self.db(), &(), None, 1).await?.is_empty()
        {
            return Ok(true);
        }
        for (op, ()) in OPEN.all(self.db()).await? {
            if let Kind::Deposit(_) | Kind::Receive(_) | Kind::Withdraw(_) = self.operation(&op).await?.kind {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What became of an output, as f + 1 guardians say: its module's outcome type. `None`: not yet, after `wait`.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], [`ClientError::Disagreement`], [`ClientError::BadAnswer`].
    pub async fn outcome<T: BorshDeserialize>(&self, point: OutPoint, wait: Duration) -> Result<Option<T>> {
        let Some(bytes) = self.inner.api.outcome(point, wait).await? else { return Ok(None) };
        let outcome = decode(&bytes, MAX_BODY);
        outcome.map(Some).map_err(|error| ClientError::BadAnswer {
            from: "the federation".to_owned(),
            reason: error.to_string(),
        })
    }

    /// The JSON that f + 1 guardians give alike for `GET /v1/modules/{kind}/{path}?{query}`, read as `T`, the fields that
    /// must be equal.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if f + 1 refuse with the same code; [`ClientError::Unreachable`],
    /// [`ClientError::Disagreement`].
    pub async fn module_get<T: DeserializeOwned + PartialEq>(
        &self,
        kind: &str,
        path: &str,
        query: &[(&str, String)],
        wait: Duration,
    ) -> Result<T> {
        let request = Request::module_get(kind, path, query);
        self.inner.api.agreed(&request, wait, |value| serde_json::from_value(value).ok()).await
    }

    /// Hands the same body to every guardian's `POST /v1/modules/{kind}/{path}`; good when n − f took it.
    ///
    /// # Errors
    /// The refusal or failure of one of those that did not.
    pub async fn module_post_all(&self, kind: &str, path: &str, body: &serde_json::Value) -> Result<()> {
        let request = Request::module_post(kind, path, body.clone());
        let answers = self.inner.api.all(&request, Duration::ZERO).await;
        let taken = answers.values().filter(|answer| answer.is_ok()).count();
        if taken >= self.inner.config.threshold() {
            return Ok(());
        }
        let error = answers.into_values().find_map(Result::err);
        Err(error.map_or_else(|| ClientError::Unreachable("there are no guardians".to_owned()), Into::into))
    }

    /// A secret key for a purpose of the caller's own, from the words: `purpose` names the use, `index` counts within it.
    /// Apart from all keys of the wallet itself, and for each federation.
    ///
    /// # Errors
    /// Never in practice.
    pub fn derive_key(&self, purpose: &str, index: u64) -> Result<Keypair> {
        words::derive_key(&self.inner.seed, self.inner.federation, purpose, index)
    }

    /// The keys of contracts.
    pub fn lightning_keys(&self) -> federation_lightning::client::LightningKeys {
        federation_lightning::client::LightningKeys::new(&self.inner.seed, self.inner.federation)
    }
}

fn total(amounts: impl IntoIterator<Item = Amount>) -> Result<Amount> {
    Amount::checked_sum(amounts).ok_or(ClientError::AmountTooLarge)
}

//! The guardian's side.
//!
//! | file | what it does |
//! |---|---|
//! | `blocks` | votes for blocks; which are final |
//! | `fees` | the agreed fee rate, and for how long quotes hold |
//! | `beacon`, `ahead` | the randomness beacon |
//! | `deposits` | inputs: proofs against final headers |
//! | `withdrawals`, `coins` | outputs: fees, the queue, one transaction for all that wait |
//! | `signing` | signatures, completion, confirmation |
//! | `follower`, `view`, `watch` | the task that follows our node's chain, and what it saw: never agreed state |
//! | `routes` | the REST API |
//! | `tables` | the agreed state |

mod ahead;
mod beacon;
mod blocks;
mod coins;
mod deposits;
mod fees;
mod follower;
mod routes;
mod signing;
mod tables;
mod view;
mod watch;
mod withdrawals;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bitcoin::hashes::Hash as _;
use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::XOnlyPublicKey;
use bitcoin::{Transaction, Txid};
use federation_core::api::Route;
use federation_core::db::{Database, DbError, Namespaced, NamespacedReader, Reader};
use federation_core::module::{AuditLine, Epoch, ModuleError, Proposal, ServerModule, Trust, Value, Wake};
use federation_core::{FederationId, OutPoint, PeerId};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::KIND;
use crate::body::{DepositInput, Item, Outcome, WithdrawalOutput};
use crate::chain::{ChainError, ChainSource};
use crate::config::{ConfigError, WalletConfig, WalletSecret};
use crate::descriptor::Descriptor;
use coins::Weights;
pub use deposits::ProvenDeposit;
use tables::{ACTIVE, COINS, OUTCOMES, QUEUE, RESERVE, Stage};
use view::{Pending, View};
use watch::Watch;

/// Why the wallet does not start.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// The configuration or the secrets are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The Bitcoin node is of another network.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// The wallet module of one guardian.
pub struct Wallet {
    config: WalletConfig,
    secret: WalletSecret,
    us: PeerId,
    federation: FederationId,
    descriptor: Descriptor,
    weights: Weights,
    source: Arc<dyn ChainSource>,
    wake: Wake,
    view: Mutex<View>,
    watch: Watch,
    ahead: beacon::Ahead,
    /// Wakes the follower before its next poll: there is something to broadcast or to look for.
    nudge: Notify,
}

impl Wallet {
    /// The module. `local` holds what this guardian alone knows (registered deposit keys), under the key prefix
    /// `wallet-local/`; it may be the same database as the consensus state's. Call [`start`](Self::start) afterwards.
    ///
    /// # Errors
    /// If configuration and secret don't fit, or the database cannot be read.
    pub async fn new(
        config: WalletConfig,
        secret: WalletSecret,
        us: PeerId,
        federation: FederationId,
        source: Arc<dyn ChainSource>,
        local: Arc<dyn Database>,
        wake: Wake,
    ) -> Result<Arc<Self>, WalletError> {
        config.check()?;
        secret.check(&config, us)?;
        let descriptor = Descriptor::new(&config);
        let weights = Weights { input: descriptor.input_weight()?, change: 4 * descriptor.output_size() };
        let watch = Watch::load(local).await?;
        Ok(Arc::new(Self {
            config,
            secret,
            us,
            federation,
            descriptor,
            weights,
            source,
            wake,
            view: Mutex::default(),
            watch,
            ahead: beacon::Ahead::default(),
            nudge: Notify::new(),
        }))
    }

    /// Starts to follow the chain, in the background, until the handle is aborted or the module is dropped. `state` reads the
    /// module's committed state.
    ///
    /// # Errors
    /// [`ChainError::WrongNetwork`] if the node answers and is of another network than the federation. A node that doesn't
    /// answer is waited for, and is an alarm meanwhile.
    pub async fn start(self: &Arc<Self>, state: NamespacedReader) -> Result<JoinHandle<()>, WalletError> {
        match follower::check_network(self).await {
            Err(error @ ChainError::WrongNetwork { .. }) => return Err(error.into()),
            Err(error) => self.view().trouble = Some(error.to_string()),
            Ok(()) => {}
        }
        self.refresh(&state).await?;
        let follower = follower::Follower::new(self, &state).await?;
        Ok(tokio::spawn(follower.run(Arc::downgrade(self))))
    }

    fn view(&self) -> MutexGuard<'_, View> {
        // Nothing panics while it holds the lock; if it did, the view is only a view.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the follower what is agreed.
    async fn refresh(&self, db: &dyn Reader) -> Result<(), DbError> {
        let last_final = blocks::last_final(db).await?;
        let mut active = BTreeMap::new();
        for (txid, transaction) in ACTIVE.all(db).await? {
            let first =
                |transaction: &Transaction| transaction.input.first().map(|input| input.previous_output);
            let (spends, signed) = match transaction.stage {
                Stage::Signing(psbt) => {
                    (Psbt::deserialize(&psbt).ok().and_then(|psbt| first(&psbt.unsigned_tx)), None)
                }
                Stage::Signed(signed) => (first(&signed), Some(signed)),
            };
            let pending = Pending { spends, signed, made_at: transaction.made_at };
            active.insert(Txid::from_byte_array(txid), pending);
        }
        let news = {
            let mut view = self.view();
            let complete = |active: &BTreeMap<Txid, Pending>| {
                active.iter().filter(|(_, tx)| tx.signed.is_some()).map(|(txid, _)| *txid).collect::<Vec<_>>()
            };
            let news = complete(&view.active) != complete(&active);
            view.agreed(last_final, active);
            news
        };
        if news {
            self.nudge.notify_one();
        }
        Ok(())
    }
}

#[async_trait]
impl ServerModule for Wallet {
    type Input = DepositInput;
    type Output = WithdrawalOutput;
    type Item = Item;
    type Outcome = Outcome;
    type Prepared = ProvenDeposit;

    fn kind(&self) -> &'static str {
        KIND
    }

    async fn propose(&self, db: &dyn Reader) -> Result<Proposal<Item>, DbError> {
        let mut items: Vec<Item> = self.propose_blocks(db).await?.into_iter().collect();
        items.extend(self.propose_signatures(db).await?);
        items.extend(self.propose_confirmed(db).await?);
        // Only the above are worth an epoch of their own; what follows can wait for one.
        let opens_epoch = !items.is_empty();
        items.extend(self.propose_fee(db).await?);
        items.extend(self.propose_beacon(db).await?);
        Ok(Proposal { items, opens_epoch })
    }

    async fn apply_item(
        &self,
        db: &mut Namespaced<'_>,
        epoch: Epoch,
        from: PeerId,
        item: Item,
    ) -> Result<(), ModuleError> {
        if !self.config.guardians.contains_key(&from) {
            return Err(ModuleError::refused("unknown_guardian", format!("there is no guardian {from}")));
        }
        match item {
            Item::Blocks { height, headers } => self.apply_blocks(db, from, height, &headers).await,
            Item::FeeRate(rate) => self.apply_fee(db, from, rate),
            Item::BeaconShare { epoch: of, share } => self.apply_share(db, epoch, from, of, share).await,
            Item::Signatures { txid, signatures } => self.apply_signatures(db, from, txid, &signatures).await,
            Item::Confirmed(proof) => self.apply_confirmed(db, &proof).await,
        }
    }

    fn prepare(&self, inputs: &[(XOnlyPublicKey, DepositInput)]) -> Vec<Result<ProvenDeposit, ModuleError>> {
        inputs.iter().map(|(key, input)| self.prepare_deposit(key, input)).collect()
    }

    fn look_ahead(&self, items: &[(u64, PeerId, Item)], _: &[(OutPoint, &WithdrawalOutput)], trust: Trust) {
        self.combine_ahead(items, trust);
    }

    fn distrust(&self) {
        self.ahead.work().found.forget_all();
    }

    async fn apply_input(
        &self,
        db: &mut Namespaced<'_>,
        _: Epoch,
        _: XOnlyPublicKey,
        _: &DepositInput,
        prepared: &ProvenDeposit,
    ) -> Result<Value, ModuleError> {
        self.apply_deposit(db, prepared).await
    }

    async fn apply_output(
        &self,
        db: &mut Namespaced<'_>,
        _: Epoch,
        point: OutPoint,
        output: &WithdrawalOutput,
    ) -> Result<Value, ModuleError> {
        self.apply_withdrawal(db, point, output).await
    }

    async fn end_epoch(&self, db: &mut Namespaced<'_>, epoch: Epoch) -> Result<(), DbError> {
        self.finalise_blocks(db).await?;
        self.keep_rate(db).await?;
        self.finish_beacon(db, epoch).await?;
        self.pay_queue(db, epoch).await
    }

    async fn committed(&self, db: &dyn Reader, _: Epoch) -> Result<(), DbError> {
        self.refresh(db).await
    }

    async fn outcome(&self, db: &dyn Reader, point: OutPoint) -> Result<Option<Outcome>, DbError> {
        OUTCOMES.get(db, &point).await
    }

    async fn audit(&self, db: &dyn Reader) -> Result<Vec<AuditLine>, DbError> {
        let coins: u64 = sum(COINS.all(db).await?.iter().map(|(_, coin)| coin.amount_sat));
        let active = ACTIVE.all(db).await?;
        let change: u64 = sum(active.iter().filter_map(|(_, tx)| Some(tx.change?.coin.amount_sat)));
        let queue = QUEUE.all(db).await?;
        let waiting = sum(queue.iter().map(|(_, queued)| queued.output.value.to_sat()));
        let fees = sum(queue.iter().map(|(_, queued)| queued.fee_sat));
        let line = |name: &str, sat: u64, sign: i64| AuditLine {
            name: name.to_owned(),
            amount_msat: i64::try_from(sat).unwrap_or(i64::MAX).saturating_mul(1_000).saturating_mul(sign),
        };
        Ok(vec![
            line("confirmed coins", coins, 1),
            line("unconfirmed change", change, 1),
            line("withdrawals waiting for a transaction", waiting, -1),
            line("fees of these", fees, -1),
            line("fee reserve", RESERVE.get(db, &()).await?.unwrap_or_default(), -1),
        ])
    }

    fn config_json(&self) -> serde_json::Value {
        let mut json = serde_json::to_value(&self.config).unwrap_or_default();
        if let (Some(object), Ok(descriptor)) = (json.as_object_mut(), self.descriptor.untweaked()) {
            object.insert("descriptor".to_owned(), descriptor.to_string().into());
        }
        json
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        routes::routes(&self)
    }

    async fn alarms(&self, db: &dyn Reader) -> Result<Vec<String>, DbError> {
        let mut alarms = self.block_alarms(db).await?;
        let view = self.view();
        alarms.extend(view.trouble.clone());
        if view.tip.is_some_and(|tip| tip.syncing) && self.config.network != bitcoin::Network::Regtest {
            alarms.push("our Bitcoin node is still behind the chain (initial block download)".to_owned());
        }
        Ok(alarms)
    }
}

fn sum(amounts: impl Iterator<Item = u64>) -> u64 {
    amounts.fold(0, u64::saturating_add)
}

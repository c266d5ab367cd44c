//! A chain that tests write, and guardians that run epochs over it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bitcoin::hashes::Hash as _;
use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use bitcoin::{Amount as Satoshis, Block, BlockHash, Network, ScriptBuf, Transaction, TxOut};
use federation_core::api::{ApiError, ApiRequest, Method};
use federation_core::db::{Database, Namespaced, NamespacedReader, Pair};
use federation_core::encoding::{decode, encode};
use federation_core::module::{Epoch, ModuleError, ServerModule, Trust, Value};
use federation_core::{FederationId, OutPoint, PeerId, TxId};
use federation_store::WriteBatch;
use serde_json::json;

use crate::body::{DepositInput, DepositsStatus, Item, Quote, WithdrawalOutput};
use crate::chain::{ChainError, ChainSource, Tip};
use crate::config::{WalletConfig, WalletParams, WalletSecret};
use crate::server::Wallet;
use crate::testing::{block_of, payment};

pub(super) const BIRTHDAY: u32 = 100;
const STATE: &[u8] = b"state/";
const FEDERATION: FederationId = FederationId([5; 32]);

#[derive(Default)]
struct Blocks {
    /// From the birthday on.
    blocks: Vec<Block>,
    mempool: Vec<Transaction>,
    down: bool,
}

/// A chain that tests write.
#[derive(Clone, Default)]
pub(super) struct FakeChain(Arc<Mutex<Blocks>>);

impl FakeChain {
    /// Adds a block with these transactions and all that were broadcast.
    pub fn mine(&self, mut transactions: Vec<Transaction>) -> u32 {
        let mut chain = self.0.lock().unwrap();
        transactions.append(&mut chain.mempool);
        let parent = chain.blocks.last().map_or(BlockHash::all_zeros(), Block::block_hash);
        let height = BIRTHDAY + chain.blocks.len() as u32;
        chain.blocks.push(block_of(parent, height, transactions));
        height
    }

    pub fn mine_empty(&self, count: usize) {
        for _ in 0..count {
            self.mine(Vec::new());
        }
    }

    /// Replaces the last blocks by other ones; the transactions of the old ones are gone.
    pub fn reorganise(&self, depth: usize, seed: u64) {
        {
            let mut chain = self.0.lock().unwrap();
            let keep = chain.blocks.len() - depth;
            chain.blocks.truncate(keep);
        }
        for i in 0..=depth as u64 {
            let output = TxOut { value: Satoshis::from_sat(1), script_pubkey: ScriptBuf::new() };
            self.mine(vec![payment(1_000_000 + seed + i, vec![output])]);
        }
    }

    pub fn mempool(&self) -> Vec<Transaction> {
        self.0.lock().unwrap().mempool.clone()
    }

    pub fn stop(&self, down: bool) {
        self.0.lock().unwrap().down = down;
    }

    pub fn height(&self) -> u32 {
        BIRTHDAY + self.0.lock().unwrap().blocks.len() as u32 - 1
    }

    pub fn hash(&self, height: u32) -> BlockHash {
        self.0.lock().unwrap().blocks[(height - BIRTHDAY) as usize].block_hash()
    }

    fn up(&self) -> Result<(), ChainError> {
        if self.0.lock().unwrap().down { Err(ChainError::Unreachable("stopped".to_owned())) } else { Ok(()) }
    }
}

#[async_trait]
impl ChainSource for FakeChain {
    fn describe(&self) -> String {
        "a made-up chain".to_owned()
    }
    async fn network(&self) -> Result<Network, ChainError> {
        self.up().map(|()| Network::Regtest)
    }
    async fn tip(&self) -> Result<Tip, ChainError> {
        self.up().map(|()| Tip { height: self.height(), syncing: false })
    }
    async fn block(&self, height: u32) -> Result<Option<Block>, ChainError> {
        self.up()?;
        Ok(self.0.lock().unwrap().blocks.get((height - BIRTHDAY) as usize).cloned())
    }
    async fn fee_rate(&self, _: u16) -> Result<Option<u64>, ChainError> {
        self.up().map(|()| Some(5_000))
    }
    async fn broadcast(&self, transaction: &Transaction) -> Result<(), ChainError> {
        self.up()?;
        let mut chain = self.0.lock().unwrap();
        if !chain.mempool.contains(transaction) {
            chain.mempool.push(transaction.clone());
        }
        Ok(())
    }
}

pub(super) struct Guardian {
    pub wallet: Arc<Wallet>,
    db: Arc<dyn Database>,
    pub chain: FakeChain,
    /// Every second one does: their states must be the same.
    looks_ahead: bool,
}

impl Guardian {
    pub fn state(&self) -> NamespacedReader {
        NamespacedReader::new(Arc::clone(&self.db) as _, STATE.to_vec())
    }

    /// Calls a route.
    pub async fn call(&self, path: &str, parameters: &[(&str, &str)]) -> Result<serde_json::Value, ApiError> {
        let parameters: BTreeMap<String, String> =
            parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let routes = Arc::clone(&self.wallet).routes();
        let route = routes.iter().find(|route| route.path == path).unwrap();
        let (query, body) = match route.method {
            Method::Get => (parameters, serde_json::Value::Null),
            Method::Post => (BTreeMap::new(), json!(parameters)),
        };
        (route.handler)(ApiRequest { query, body, db: self.state() }).await
    }

    /// Ends the module and starts a new one on the same database.
    pub async fn restart(&mut self) {
        let old = &self.wallet;
        let wallet = Wallet::new(
            old.config.clone(),
            old.secret.clone(),
            old.us,
            FEDERATION,
            Arc::new(self.chain.clone()),
            Arc::clone(&self.db),
            Arc::new(|| {}),
        );
        self.wallet = wallet.await.unwrap();
        self.wallet.start(self.state()).await.unwrap();
    }

    pub async fn content(&self) -> Vec<Pair> {
        self.db.scan(STATE, None, usize::MAX / 2).await.unwrap()
    }

    /// Applies an epoch at this guardian alone; the state after it.
    pub async fn apply(&mut self, number: u64, items: &[(PeerId, Item)]) -> Vec<Pair> {
        let epoch = Epoch { number, version: 1 };
        let mut batch = WriteBatch::new(Arc::clone(&self.db));
        let mut db = Namespaced::new(&mut batch, STATE.to_vec());
        for (from, item) in items {
            self.wallet.apply_item(&mut db, epoch, *from, item.clone()).await.unwrap();
        }
        self.wallet.end_epoch(&mut db, epoch).await.unwrap();
        batch.commit().await.unwrap();
        self.content().await
    }

    pub async fn deposits(&self, key: &Keypair) -> DepositsStatus {
        let key = key.x_only_public_key().0.to_string();
        serde_json::from_value(self.call("deposits", &[("key", &key)]).await.unwrap()).unwrap()
    }

    /// Waits until the follower took in the whole chain.
    pub async fn synced(&self) {
        let (height, hash) = (self.chain.height(), self.chain.hash(self.chain.height()));
        self.until("the follower to take in the chain", || {
            self.wallet.view().headers.get(&height).is_some_and(|header| header.block_hash() == hash)
        })
        .await;
    }

    pub async fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            self.wallet.nudge.notify_one();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// What a transaction does to the wallet.
pub(super) enum Part {
    Deposit(Keypair, Box<DepositInput>),
    Withdraw(OutPoint, WithdrawalOutput),
}

pub(super) struct Federation {
    pub chain: FakeChain,
    pub guardians: Vec<Guardian>,
    pub config: WalletConfig,
    epoch: u64,
    outputs: u8,
}

pub(super) fn key(seed: u8) -> Keypair {
    Keypair::from_secret_key(SECP256K1, &SecretKey::from_slice(&[seed; 32]).unwrap())
}

impl Federation {
    pub async fn new(n: usize, finality: u32) -> Self {
        let chain = FakeChain::default();
        chain.mine_empty(1);
        Self::over(chain.clone(), vec![chain; n], finality).await
    }

    /// Each guardian has a chain of its own.
    pub async fn over(chain: FakeChain, chains: Vec<FakeChain>, finality: u32) -> Self {
        let n = chains.len();
        let mut rng = rand::thread_rng();
        let keys = federation_tbs::dkg::testing::run(n, 1, &mut rng).unwrap();
        let mut secrets = Vec::new();
        let mut public = BTreeMap::new();
        for (peer, output) in (0..).map(PeerId).zip(&keys) {
            let (secret, key) = WalletSecret::generate(output.keys[0].secret.clone(), &mut rng);
            secrets.push(secret);
            public.insert(peer, key);
        }
        let beacon = &keys[0].keys[0];
        let params = WalletParams { finality, ..WalletParams::for_network(Network::Regtest) };
        let config = WalletConfig::generate(
            Network::Regtest,
            params,
            BIRTHDAY,
            public,
            beacon.public.clone(),
            beacon.shares.clone(),
        )
        .unwrap();
        let mut guardians = Vec::new();
        for ((peer, secret), chain) in (0..).map(PeerId).zip(secrets).zip(chains) {
            let db = federation_store::open("sqlite::memory:").await.unwrap();
            let wallet = Wallet::new(
                config.clone(),
                secret,
                peer,
                FEDERATION,
                Arc::new(chain.clone()),
                Arc::clone(&db),
                Arc::new(|| {}),
            )
            .await
            .unwrap();
            let guardian = Guardian { wallet, db, chain, looks_ahead: peer.0 % 2 == 1 };
            guardian.wallet.start(guardian.state()).await.unwrap();
            guardians.push(guardian);
        }
        Self { chain, guardians, config, epoch: 0, outputs: 0 }
    }

    /// A guardian as it was before the first epoch.
    pub async fn newcomer(&self, of: usize) -> Guardian {
        let old = &self.guardians[of];
        let db = federation_store::open("sqlite::memory:").await.unwrap();
        let wallet = Wallet::new(
            old.wallet.config.clone(),
            old.wallet.secret.clone(),
            old.wallet.us,
            FEDERATION,
            Arc::new(old.chain.clone()),
            Arc::clone(&db),
            Arc::new(|| {}),
        );
        Guardian { wallet: wallet.await.unwrap(), db, chain: old.chain.clone(), looks_ahead: false }
    }

    pub async fn synced(&self) {
        for guardian in &self.guardians {
            guardian.synced().await;
        }
    }

    /// What these guardians propose.
    pub async fn proposals(&self, of: &[usize]) -> Vec<(PeerId, Item)> {
        let mut items = Vec::new();
        for &i in of {
            let guardian = &self.guardians[i];
            let proposal = guardian.wallet.propose(&guardian.state()).await.unwrap();
            items.extend(proposal.items.into_iter().map(|item| (guardian.wallet.us, item)));
        }
        items
    }

    /// One epoch of these items and parts at every guardian; what came of each is the same at all of them.
    pub async fn epoch_of(
        &mut self,
        items: &[(PeerId, Item)],
        parts: &[Part],
    ) -> (Vec<Option<&'static str>>, Vec<Result<Value, &'static str>>) {
        let epoch = Epoch { number: self.epoch, version: 1 };
        self.epoch += 1;
        let mut results = Vec::new();
        for guardian in &self.guardians {
            let wallet = &guardian.wallet;
            if guardian.looks_ahead {
                let said: Vec<_> =
                    items.iter().map(|(from, item)| (epoch.number, *from, item.clone())).collect();
                wallet.look_ahead(&said, &[], Trust::Nobody);
            }
            let mut batch = WriteBatch::new(Arc::clone(&guardian.db));
            let (mut of_items, mut of_parts) = (Vec::new(), Vec::new());
            for (from, item) in items {
                // As on the wire.
                let item: Item = decode(&encode(item), 1 << 20).unwrap();
                let mut db = Namespaced::new(&mut batch, STATE.to_vec());
                of_items.push(wallet.apply_item(&mut db, epoch, *from, item).await.err().map(code));
            }
            for part in parts {
                batch.savepoint();
                let mut db = Namespaced::new(&mut batch, STATE.to_vec());
                let result = apply(wallet, &mut db, epoch, part).await.map_err(code);
                if result.is_err() {
                    batch.rollback()
                } else {
                    batch.release()
                }
                of_parts.push(result);
            }
            wallet.end_epoch(&mut Namespaced::new(&mut batch, STATE.to_vec()), epoch).await.unwrap();
            batch.commit().await.unwrap();
            wallet.committed(&guardian.state(), epoch).await.unwrap();
            results.push((of_items, of_parts, guardian.db.scan(STATE, None, usize::MAX / 2).await.unwrap()));
        }
        let first = results.remove(0);
        for other in results {
            assert!(other == first, "guardians differ after epoch {}", epoch.number);
        }
        (first.0, first.1)
    }

    /// An epoch with everybody's proposals, none of which may be refused.
    pub async fn epoch(&mut self, parts: &[Part]) -> Vec<Result<Value, &'static str>> {
        let all: Vec<usize> = (0..self.guardians.len()).collect();
        let items = self.proposals(&all).await;
        let (faults, results) = self.epoch_of(&items, parts).await;
        assert!(faults.iter().all(Option::is_none), "honest items were refused: {faults:?}");
        results
    }

    /// Mines a block, and runs the epochs in which it becomes known.
    pub async fn mine(&mut self, transactions: Vec<Transaction>) -> u32 {
        let height = self.chain.mine(transactions);
        self.synced().await;
        self.epoch(&[]).await;
        self.epoch(&[]).await;
        height
    }

    /// A payment to the deposit address of a key.
    pub fn pay(&self, seed: u64, key: &Keypair, amount_sat: u64) -> Transaction {
        let script = self.guardians[0]
            .wallet
            .descriptor
            .deposit_address(&key.x_only_public_key().0)
            .unwrap()
            .script_pubkey();
        payment(seed, vec![TxOut { value: Satoshis::from_sat(amount_sat), script_pubkey: script }])
    }

    /// Registers, pays, and claims.
    pub async fn deposit(&mut self, seed: u8, amount_sat: u64) {
        let key = key(seed);
        self.register(&key).await;
        let payment = self.pay(seed.into(), &key, amount_sat);
        self.mine(vec![payment]).await;
        for _ in 1..self.config.params.finality {
            self.mine(Vec::new()).await;
        }
        let part = self.claim(&key).await;
        let result = self.epoch(&[part]).await.remove(0).unwrap();
        assert_eq!(result.amount.sat_exact(), Some(amount_sat));
    }

    pub async fn register(&self, key: &Keypair) -> String {
        let key = key.x_only_public_key().0.to_string();
        let answer = self.guardians[0].call("register", &[("key", &key)]).await.unwrap();
        answer["address"].as_str().unwrap().to_owned()
    }

    /// The claim of the last deposit seen for a key.
    pub async fn claim(&self, key: &Keypair) -> Part {
        let status = self.guardians[0].deposits(key).await;
        let proof = status.deposits.last().unwrap().proof.clone().unwrap();
        Part::Deposit(*key, Box::new(decode(&hex::decode(proof).unwrap(), 10_000).unwrap()))
    }

    pub async fn quote(&self, address: &str, amount_sat: u64) -> Result<Quote, ApiError> {
        let amount = amount_sat.to_string();
        let guardian = &self.guardians[1 % self.guardians.len()];
        let answer = guardian.call("quote", &[("address", address), ("amount_sat", &amount)]).await?;
        Ok(serde_json::from_value(answer).unwrap())
    }

    /// A withdrawal, and where its outcome will be.
    pub fn withdrawal(&mut self, address: &str, amount_sat: u64, fee_sat: u64) -> (OutPoint, Part) {
        self.outputs += 1;
        let point = OutPoint { txid: TxId([self.outputs; 32]), index: 0 };
        let script = crate::address::script_of(address, Network::Regtest).unwrap();
        (point, Part::Withdraw(point, WithdrawalOutput { script, amount_sat, fee_sat }))
    }

    /// The sum of the audit's lines, in satoshi.
    pub async fn equity(&self) -> i64 {
        let guardian = &self.guardians[0];
        let lines = guardian.wallet.audit(&guardian.state()).await.unwrap();
        lines.iter().map(|line| line.amount_msat).sum::<i64>() / 1000
    }
}

fn code(error: ModuleError) -> &'static str {
    match error {
        ModuleError::Refused { code, .. } => code,
        ModuleError::Db(error) => panic!("{error}"),
    }
}

async fn apply(
    wallet: &Wallet,
    db: &mut Namespaced<'_>,
    epoch: Epoch,
    part: &Part,
) -> Result<Value, ModuleError> {
    match part {
        Part::Deposit(key, input) => {
            let key = key.x_only_public_key().0;
            let inputs = [(key, (**input).clone())];
            let prepared = wallet.prepare(&inputs).remove(0)?;
            wallet.apply_input(db, epoch, key, input, &prepared).await
        }
        Part::Withdraw(point, output) => wallet.apply_output(db, epoch, *point, output).await,
    }
}

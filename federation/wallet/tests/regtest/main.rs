//! The wallet against a real bitcoind on regtest: its blocks, its relay policy, its descriptors.
//!
//! What a guardian's main loop does is done here by hand: propose, apply everywhere, commit. That all guardians come to the
//! same state is what the unit tests check.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: a panic is its way to fail")]

mod node;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::Network;
use federation_core::api::{ApiRequest, Method};
use federation_core::db::{Database, Namespaced, NamespacedReader};
use federation_core::encoding::decode;
use federation_core::module::{Epoch, MAX_BODY, ServerModule as _};
use federation_core::{FederationId, ModuleId, OutPoint, PeerId, TxId};
use federation_store::WriteBatch;
use federation_wallet::chain::{ChainError, ChainSource as _};
use federation_wallet::client::{DepositKeys, deposit_address, deposit_input, withdrawal_output};
use federation_wallet::server::WalletError;
use federation_wallet::{
    DepositInput, Descriptor, Item, Outcome, Quote, Wallet, WalletConfig, WalletParams, WalletSecret,
    WithdrawalOutput,
};
use node::Node;
use serde_json::{Value, json};

const STATE: &[u8] = b"state/";
const FEDERATION: FederationId = FederationId([5; 32]);
const MODULE: ModuleId = ModuleId(1);

struct Guardian {
    wallet: Arc<Wallet>,
    db: Arc<dyn Database>,
}

struct Federation {
    guardians: Vec<Guardian>,
    config: WalletConfig,
    epoch: u64,
}

fn configuration(n: usize, birthday: u32) -> (WalletConfig, Vec<WalletSecret>) {
    let mut rng = rand::thread_rng();
    let keys = federation_tbs::dkg::testing::run(n, 1, &mut rng).unwrap();
    let (secrets, public): (Vec<_>, Vec<_>) =
        keys.iter().map(|output| WalletSecret::generate(output.keys[0].secret.clone(), &mut rng)).unzip();
    let beacon = &keys[0].keys[0];
    let config = WalletConfig::generate(
        Network::Regtest,
        WalletParams::for_network(Network::Regtest),
        birthday,
        (0..).map(PeerId).zip(public).collect(),
        beacon.public.clone(),
        beacon.shares.clone(),
    )
    .unwrap();
    (config, secrets)
}

async fn wallet(node: &Node, config: &WalletConfig, secret: WalletSecret, us: u16) -> Guardian {
    let db = federation_store::open("sqlite::memory:").await.unwrap();
    let source = Arc::new(node.source());
    let wake = Arc::new(|| {});
    let local = Arc::clone(&db);
    let wallet =
        Wallet::new(config.clone(), secret, PeerId(us), FEDERATION, source, local, wake).await.unwrap();
    Guardian { wallet, db }
}

impl Guardian {
    fn state(&self) -> NamespacedReader {
        NamespacedReader::new(Arc::clone(&self.db) as _, STATE.to_vec())
    }

    async fn call(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let parameters: BTreeMap<String, String> =
            parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let routes = Arc::clone(&self.wallet).routes();
        let route = routes.iter().find(|route| route.path == path).unwrap();
        let (query, body) = match route.method {
            Method::Get => (parameters, Value::Null),
            Method::Post => (BTreeMap::new(), json!(parameters)),
        };
        (route.handler)(ApiRequest { query, body, db: self.state() }).await.unwrap()
    }

    async fn outcome(&self, point: OutPoint) -> Option<Outcome> {
        self.wallet.outcome(&self.state(), point).await.unwrap()
    }
}

impl Federation {
    async fn start(node: &Node, n: usize) -> Self {
        let (config, secrets) = configuration(n, node.height());
        let mut guardians = Vec::new();
        for (us, secret) in (0..).zip(secrets) {
            let guardian = wallet(node, &config, secret, us).await;
            guardian.wallet.start(guardian.state()).await.unwrap();
            guardians.push(guardian);
        }
        Self { guardians, config, epoch: 0 }
    }

    /// One epoch with the proposals of these guardians, a deposit and withdrawals.
    async fn epoch(
        &mut self,
        of: &[usize],
        deposit: Option<&federation_core::Input>,
        out: &[(OutPoint, WithdrawalOutput)],
    ) {
        let epoch = Epoch { number: self.epoch, version: 1 };
        self.epoch += 1;
        let mut items: Vec<(PeerId, Vec<Item>)> = Vec::new();
        for (peer, guardian) in of.iter().map(|i| (PeerId(*i as u16), &self.guardians[*i])) {
            items.push((peer, guardian.wallet.propose(&guardian.state()).await.unwrap().items));
        }
        for guardian in &self.guardians {
            let wallet = &guardian.wallet;
            let mut batch = WriteBatch::new(Arc::clone(&guardian.db));
            let mut db = Namespaced::new(&mut batch, STATE.to_vec());
            for (peer, items) in &items {
                for item in items {
                    wallet.apply_item(&mut db, epoch, *peer, item.clone()).await.unwrap();
                }
            }
            if let Some(input) = deposit {
                let body: DepositInput = decode(&input.body, MAX_BODY).unwrap();
                let inputs = [(input.key, body)];
                let prepared = wallet.prepare(&inputs).remove(0).unwrap();
                wallet.apply_input(&mut db, epoch, input.key, &inputs[0].1, &prepared).await.unwrap();
            }
            for (point, output) in out {
                wallet.apply_output(&mut db, epoch, *point, output).await.unwrap();
            }
            wallet.end_epoch(&mut db, epoch).await.unwrap();
            batch.commit().await.unwrap();
            wallet.committed(&guardian.state(), epoch).await.unwrap();
        }
    }

    /// Epochs, until a condition holds.
    async fn epochs_until(&mut self, what: &str, of: &[usize], condition: impl AsyncFn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !condition(self).await {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            self.epoch(of, None, &[]).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn status(&self, field: &str) -> Value {
        self.guardians[0].call("status", &[]).await[field].clone()
    }

    async fn withdrawal(&self, number: u8, address: &str, amount_sat: u64) -> (OutPoint, WithdrawalOutput) {
        let amount = amount_sat.to_string();
        let quote = self.guardians[0].call("quote", &[("address", address), ("amount_sat", &amount)]).await;
        let quote: Quote = serde_json::from_value(quote).unwrap();
        let output = withdrawal_output(Network::Regtest, MODULE, &quote).unwrap();
        let point = OutPoint { txid: TxId([number; 32]), index: 0 };
        (point, decode(&output.body, 1000).unwrap())
    }

    /// The audit's lines by name, in satoshi.
    async fn audit(&self) -> BTreeMap<String, i64> {
        let guardian = &self.guardians[0];
        let lines = guardian.wallet.audit(&guardian.state()).await.unwrap();
        lines.into_iter().map(|line| (line.name, line.amount_msat / 1000)).collect()
    }
}

fn in_mempool(node: &Node, txid: &str) -> bool {
    node.call(&["getrawmempool"]).as_array().unwrap().iter().any(|known| known == txid)
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deposit_withdraw_and_spend_the_change() {
    let node = Node::start();
    let mut federation = Federation::start(&node, 4).await;
    let all = [0, 1, 2, 3];

    // A deposit, by the address that the user computes.
    let key = DepositKeys::new(&[7; 64], FEDERATION).key(0).x_only_public_key().0;
    let address = deposit_address(&federation.config, &key).unwrap().to_string();
    let registered = federation.guardians[0].call("register", &[("key", &key.to_string())]).await;
    assert_eq!(registered["address"], address);
    node.call(&["sendtoaddress", &address, "0.01"]);
    node.mine(1);
    let proof = async |federation: &Federation| {
        let status = federation.guardians[0].call("deposits", &[("key", &key.to_string())]).await;
        status["deposits"][0]["proof"].as_str().map(str::to_owned)
    };
    federation.epochs_until("the proof", &all, async |federation| proof(federation).await.is_some()).await;
    let proof = proof(&federation).await.unwrap();
    let (input, amount) = deposit_input(&federation.config, MODULE, &key, &proof).unwrap();
    assert_eq!(amount.sat_exact(), Some(1_000_000));
    federation.epoch(&all, Some(&input), &[]).await;
    assert_eq!(federation.audit().await["confirmed coins"], 1_000_000);

    // Withdrawals of every kind, in one transaction that bitcoind accepts.
    let mut addresses = Vec::new();
    for kind in ["legacy", "p2sh-segwit", "bech32", "bech32m"] {
        addresses.push(node.text(&["getnewaddress", "", kind]));
    }
    let mut out = Vec::new();
    for (number, address) in (1..).zip(&addresses) {
        out.push(federation.withdrawal(number, address, 50_000).await);
    }
    federation.epoch(&all, None, &out).await;
    federation
        .epochs_until("signatures", &all, async |federation| {
            federation.guardians[0].outcome(out[0].0).await.is_some()
        })
        .await;
    let txid = federation.guardians[3].outcome(out[3].0).await.unwrap().txid.to_string();
    until("the broadcast", || in_mempool(&node, &txid)).await;
    node.mine(1);
    for address in &addresses {
        assert_eq!(node.received(address), 50_000);
    }
    federation
        .epochs_until("the change", &all, async |federation| {
            federation.status("transactions_unconfirmed").await == 0
        })
        .await;

    // The change is spent by T of n; the last guardian is down.
    let some = [0, 1, 2];
    let address = node.text(&["getnewaddress"]);
    let last = federation.withdrawal(9, &address, 300_000).await;
    federation.epoch(&some, None, std::slice::from_ref(&last)).await;
    federation
        .epochs_until("signatures", &some, async |federation| {
            federation.guardians[0].outcome(last.0).await.is_some()
        })
        .await;
    let txid = federation.guardians[0].outcome(last.0).await.unwrap().txid.to_string();
    until("the broadcast", || in_mempool(&node, &txid)).await;
    node.mine(1);
    assert_eq!(node.received(&address), 300_000);
    federation
        .epochs_until("the change", &some, async |federation| {
            federation.status("transactions_unconfirmed").await == 0
        })
        .await;

    // What the audit says is what bitcoind holds for the federation.
    let fees: u64 = out.iter().map(|(_, output)| output.fee_sat).sum::<u64>() + last.1.fee_sat;
    let audit = federation.audit().await;
    let owed = 1_000_000 - 4 * 50_000 - 300_000 - i64::try_from(fees).unwrap();
    assert_eq!(audit.values().sum::<i64>(), owed);
    let transaction = node.call(&["getrawtransaction", &txid, "1"]);
    let change = transaction["vout"].as_array().unwrap().iter().find_map(|output| {
        let sat = bitcoin::Amount::from_btc(output["value"].as_f64().unwrap()).unwrap().to_sat();
        (sat != 300_000).then_some(sat)
    });
    assert_eq!(audit["confirmed coins"], i64::try_from(change.unwrap()).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_agrees_on_descriptors_and_its_network_is_checked() {
    let node = Node::start();
    for n in [1, 2, 4, 7] {
        let (config, _) = configuration(n, 1);
        let descriptor = Descriptor::new(&config).untweaked().unwrap();
        let text = descriptor.to_string();
        assert_eq!(node.call(&["getdescriptorinfo", &text])["descriptor"], text);
        let address = descriptor.address(Network::Regtest).unwrap().to_string();
        assert_eq!(node.call(&["deriveaddresses", &text]), json!([address]));
    }

    let source = node.source();
    assert_eq!(source.network().await.unwrap(), Network::Regtest);
    assert_eq!(source.tip().await.unwrap().height, 125);
    assert!(source.block(126).await.unwrap().is_none());
    let block = source.block(50).await.unwrap().unwrap();
    assert_eq!(block.block_hash().to_string(), node.text(&["getblockhash", "50"]));
    let mut nonsense = block.txdata[0].clone();
    nonsense.input[0].previous_output = bitcoin::OutPoint { txid: nonsense.compute_txid(), vout: 7 };
    let nonsense = source.broadcast(&nonsense).await;
    assert!(matches!(nonsense, Err(ChainError::Node(_))), "{nonsense:?}");

    let (mut config, secrets) = configuration(1, 1);
    config.network = Network::Signet;
    let guardian = wallet(&node, &config, secrets[0].clone(), 0).await;
    let error = guardian.wallet.start(guardian.state()).await.unwrap_err();
    assert!(matches!(error, WalletError::Chain(ChainError::WrongNetwork { .. })));
    assert!(error.to_string().contains("regtest") && error.to_string().contains("signet"));
}

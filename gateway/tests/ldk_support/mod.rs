//! A private regtest chain, and LDK nodes on it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Address, Network};
use gateway::ldk::{BitcoindAuth, LdkConfig, LdkNode, OpenChannel};
use gateway::node::{LightningNode as _, PayRequest};
use lightning_invoice::Bolt11Invoice;
use serde_json::{Value, json};
use tempfile::TempDir;

/// No condition here takes longer on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until a condition gives a value.
pub async fn eventually<T, F: AsyncFnMut() -> Option<T>>(what: &str, mut condition: F) -> T {
    let wait = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// Bitcoin Core on a regtest chain of its own.
pub struct Chain {
    bitcoind: Child,
    dir: TempDir,
    port: u16,
    client: reqwest::Client,
}

impl Chain {
    /// Starts it, with one block.
    pub async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/lib/bitcoind.sh");
        let found = Command::new("bash").arg(script).stderr(Stdio::inherit()).output().unwrap();
        assert!(found.status.success(), "no bitcoind");
        let path = PathBuf::from(String::from_utf8(found.stdout).unwrap().trim());
        let dir = TempDir::new().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let bitcoind = Command::new(path)
            .args(["-regtest", "-server", "-listen=0", "-disablewallet", "-printtoconsole=0"])
            .arg(format!("-datadir={}", dir.path().display()))
            .arg(format!("-rpcport={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let chain = Chain { bitcoind, dir, port, client: reqwest::Client::new() };
        eventually("bitcoind answers", async || chain.try_call("getblockcount", json!([])).await).await;
        chain.mine(1).await;
        chain
    }

    fn cookie_file(&self) -> PathBuf {
        self.dir.path().join("regtest/.cookie")
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    async fn try_call(&self, method: &str, params: Value) -> Option<Value> {
        let cookie = std::fs::read_to_string(self.cookie_file()).ok()?;
        let (user, password) = cookie.split_once(':')?;
        let request = self.client.post(self.url()).basic_auth(user, Some(password));
        let body = json!({"jsonrpc": "2.0", "id": 0, "method": method, "params": params});
        let answer: Value = request.json(&body).send().await.ok()?.json().await.ok()?;
        answer.get("result").cloned()
    }

    /// Calls a method that can't fail.
    pub async fn call(&self, method: &str, params: Value) -> Value {
        self.try_call(method, params).await.unwrap_or_else(|| panic!("{method}"))
    }

    /// Mines blocks for nobody.
    pub async fn mine(&self, blocks: u32) -> u32 {
        self.mine_to(blocks, "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202").await
    }

    async fn mine_to(&self, blocks: u32, address: &str) -> u32 {
        self.call("generatetoaddress", json!([blocks, address])).await;
        self.height().await
    }

    /// The height.
    pub async fn height(&self) -> u32 {
        self.call("getblockcount", json!([])).await.as_u64().unwrap().try_into().unwrap()
    }

    /// How many transactions wait for a block.
    pub async fn mempool(&self) -> usize {
        self.call("getrawmempool", json!([])).await.as_array().unwrap().len()
    }

    /// Mines `blocks` for each node's wallet, and makes them spendable.
    pub async fn fund(&self, nodes: &[&TestNode]) {
        for node in nodes {
            let address: Address = node.onchain_address().await.unwrap();
            self.mine_to(1, &address.to_string()).await;
        }
        self.mine(100).await;
        for node in nodes {
            self.synced(node).await;
            assert!(node.balances().await.unwrap().onchain_sat >= 100_000_000);
        }
    }

    /// Mines, and waits for the nodes to hear of it.
    pub async fn mine_and_sync(&self, blocks: u32, nodes: &[&TestNode]) {
        self.mine(blocks).await;
        for node in nodes {
            self.synced(node).await;
        }
    }

    /// Waits until a node has heard of all blocks.
    pub async fn synced(&self, node: &TestNode) {
        let height = self.height().await;
        let mut heights = node.height();
        let synced = heights.wait_for(|known| *known >= height);
        tokio::time::timeout(DEADLINE, synced).await.expect("synced").unwrap();
    }

    /// Starts a node.
    pub async fn node(&self, name: &str) -> TestNode {
        let config = LdkConfig {
            data_dir: self.dir.path().join(name),
            network: Network::Regtest,
            bitcoind_url: self.url(),
            bitcoind_auth: BitcoindAuth::CookieFile(self.cookie_file()),
            listen: "127.0.0.1:0".parse().unwrap(),
            announce: Vec::new(),
            alias: name.to_owned(),
            seed_file: self.dir.path().join(format!("{name}.seed")),
            wallet_birthday: None,
        };
        TestNode::start(config).await
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        let _ = self.bitcoind.kill();
        let _ = self.bitcoind.wait();
    }
}

/// A node, and how to start it again.
pub struct TestNode {
    node: Arc<LdkNode>,
    config: LdkConfig,
}

impl std::ops::Deref for TestNode {
    type Target = LdkNode;

    fn deref(&self) -> &LdkNode {
        &self.node
    }
}

impl TestNode {
    async fn start(mut config: LdkConfig) -> Self {
        let node = LdkNode::start(config.clone()).await.unwrap();
        config.listen = node.listen_addr();
        TestNode { node, config }
    }

    /// Kills the node and starts it again.
    pub async fn crash(self) -> Self {
        self.node.crash().await;
        drop(self.node);
        Self::start(self.config).await
    }

    /// Stops the node and starts it again.
    pub async fn restart(self) -> Self {
        self.node.stop().await;
        drop(self.node);
        Self::start(self.config).await
    }

    /// The node itself, for tasks.
    pub fn shared(&self) -> Arc<LdkNode> {
        self.node.clone()
    }

    /// How it is configured.
    pub fn config(&self) -> &LdkConfig {
        &self.config
    }

    /// Waits until a number of channels can be used.
    pub async fn usable(&self, channels: usize) {
        eventually("channels are usable", async || {
            let usable = self.list_channels().iter().filter(|channel| channel.usable).count();
            (usable >= channels).then_some(())
        })
        .await;
    }
}

/// Opens a channel and makes it usable.
pub async fn open(chain: &Chain, from: &TestNode, to: &TestNode, push_msat: u64, announced: bool) {
    let before = from.list_channels().iter().filter(|channel| channel.usable).count();
    from.open_channel(OpenChannel {
        node_id: to.info().await.unwrap().node_id,
        address: Some(to.listen_addr()),
        amount_sat: 1_000_000,
        push_msat,
        announced,
    })
    .await
    .unwrap();
    eventually("the funding transaction is out", async || (chain.mempool().await > 0).then_some(())).await;
    chain.mine_and_sync(6, &[from, to]).await;
    from.usable(before + 1).await;
    to.usable(before + 1).await;
}

/// What the tests ask to pay with.
pub fn pay_request(invoice: &Bolt11Invoice, retry_for: Duration) -> PayRequest {
    PayRequest {
        invoice: invoice.clone(),
        amount_msat: invoice.amount_milli_satoshis().unwrap(),
        max_fee_msat: 100_000,
        max_delay_blocks: 1000,
        retry_for,
    }
}

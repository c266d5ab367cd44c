//! bitcoind on regtest, with a wallet that mines.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bitcoin::{Address, BlockHash, Network, Transaction, Txid};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::ports::free_port;
use crate::{Process, Sandbox, binaries, wait_for};

/// The RPC user of every bitcoind here.
pub const RPC_USER: &str = "regtest";
/// The RPC password of every bitcoind here.
pub const RPC_PASSWORD: &str = "regtest";
const WALLET: &str = "miner";
const START: Duration = Duration::from_secs(60);

/// Blocks at the start.
pub const FIRST_BLOCKS: u32 = 125;

/// A bitcoind, whose wallet has coins to spend.
pub struct Bitcoind {
    process: Process,
    program: PathBuf,
    rpc_port: u16,
    http: reqwest::Client,
}

/// The program: `BITCOIND` in the environment, else what `contrib/lib/bitcoind.sh` finds or downloads.
pub fn program() -> Result<PathBuf> {
    match std::env::var_os("BITCOIND") {
        Some(path) => Ok(path.into()),
        None => binaries::script("bitcoind.sh", &[]),
    }
}

impl Bitcoind {
    /// Starts it, and mines so many blocks that some rewards can be spent.
    ///
    /// A wallet now and then sets a lock time up to 100 blocks back, and Bitcoin Knots takes no transaction whose lock time is 21 (it is
    /// taken for a token): so there are more than 121.
    pub async fn start(sandbox: &Sandbox) -> Result<Self> {
        let program = tokio::task::spawn_blocking(program).await??;
        let (rpc_port, p2p_port) = (free_port()?, free_port()?);
        let process = sandbox
            .spec("bitcoind", &program)
            .arg(format!("-datadir={}", sandbox.folder("bitcoind")?.display()))
            .args(["-regtest", "-server", "-printtoconsole", "-listen=0", "-dnsseed=0", "-txindex"])
            .arg(format!("-port={p2p_port}"))
            .arg(format!("-rpcport={rpc_port}"))
            .args([format!("-rpcuser={RPC_USER}"), format!("-rpcpassword={RPC_PASSWORD}")])
            // A dozen clients ask at once.
            .args(["-rpcthreads=8", "-rpcworkqueue=256"])
            // Regtest has too few transactions to estimate fees.
            .args(["-fallbackfee=0.00002"])
            .start()?;
        // Several may have done it before; the first counts.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).no_proxy().build()?;
        let bitcoind = Self { process, program, rpc_port, http };
        bitcoind.wait_ready().await?;
        bitcoind.rpc::<Value>("createwallet", json!([WALLET])).await?;
        bitcoind.mine(FIRST_BLOCKS).await?;
        Ok(bitcoind)
    }

    async fn wait_ready(&self) -> Result<()> {
        let ready = || async { self.rpc::<u32>("getblockcount", json!([])).await.map(Some) };
        self.process.wait_ready(START, ready).await?;
        Ok(())
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// For clients that take no user and password otherwise: `http://USER:PASSWORD@127.0.0.1:PORT`.
    pub fn url_with_credentials(&self) -> String {
        format!("http://{RPC_USER}:{RPC_PASSWORD}@127.0.0.1:{}", self.rpc_port)
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.rpc_port)
    }

    /// The port of its RPC on 127.0.0.1.
    pub fn rpc_port(&self) -> u16 {
        self.rpc_port
    }

    /// `bitcoin-cli`, which is beside it.
    pub fn cli(&self) -> PathBuf {
        self.program.parent().unwrap_or(Path::new("")).join("bitcoin-cli")
    }

    /// Calls an RPC; the wallet's too.
    pub async fn rpc<T: DeserializeOwned>(&self, method: &str, params: Value) -> Result<T> {
        let wallet = !matches!(method, "createwallet" | "loadwallet" | "getblockcount");
        let url = if wallet { format!("{}/wallet/{WALLET}", self.url()) } else { self.url() };
        let request = json!({ "jsonrpc": "1.0", "id": 0, "method": method, "params": params });
        let request = self.http.post(url).basic_auth(RPC_USER, Some(RPC_PASSWORD)).json(&request);
        let mut answer: Value = request.send().await?.json().await?;
        match answer.get("error") {
            None | Some(Value::Null) => {}
            Some(error) => bail!("bitcoind's {method}: {error}"),
        }
        let result = answer.get_mut("result").map(Value::take).unwrap_or_default();
        serde_json::from_value(result).with_context(|| format!("bitcoind's answer to {method}"))
    }

    /// Mines that many blocks on top, with all of the mempool in the first.
    pub async fn mine(&self, blocks: u32) -> Result<Vec<BlockHash>> {
        let address = self.address().await?;
        self.rpc("generatetoaddress", json!([blocks, address])).await
    }

    /// The number of the last block.
    pub async fn height(&self) -> Result<u32> {
        self.rpc("getblockcount", json!([])).await
    }

    /// An address of its wallet.
    pub async fn address(&self) -> Result<Address> {
        let text: String = self.rpc("getnewaddress", json!([])).await?;
        Ok(text.parse::<Address<_>>()?.require_network(Network::Regtest)?)
    }

    /// Sends from its wallet, unconfirmed.
    pub async fn send(&self, to: &Address, sat: u64) -> Result<Txid> {
        let amount = bitcoin::Amount::from_sat(sat).to_string_in(bitcoin::Denomination::Bitcoin);
        self.rpc("sendtoaddress", json!([to, amount])).await
    }

    /// What its wallet's address has received in confirmed and unconfirmed transactions, in satoshi.
    pub async fn received(&self, at: &Address) -> Result<u64> {
        let amount: f64 = self.rpc("getreceivedbyaddress", json!([at, 0])).await?;
        Ok(bitcoin::Amount::from_btc(amount)?.to_sat())
    }

    /// A transaction, wherever it is.
    pub async fn transaction(&self, txid: Txid) -> Result<Transaction> {
        let hex: String = self.rpc("getrawtransaction", json!([txid])).await?;
        Ok(bitcoin::consensus::encode::deserialize_hex(&hex)?)
    }

    /// Waits for a transaction to be in the mempool: what is to be mined must have arrived.
    pub async fn wait_mempool(&self, txid: Txid, within: Duration) -> Result<()> {
        let what = format!("transaction {txid} in bitcoind's mempool");
        wait_for(&what, within, || async {
            let mempool: Vec<Txid> = self.rpc("getrawmempool", json!([])).await?;
            Ok(mempool.contains(&txid).then_some(()))
        })
        .await
    }

    /// Ends it in order and starts it again.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.stop().await?;
        self.process.restart()?;
        self.wait_ready().await?;
        self.rpc::<Value>("loadwallet", json!([WALLET])).await?;
        Ok(())
    }

    /// Lets it run on after this process.
    pub fn leave(self) {
        self.process.leave();
    }
}

//! Core Lightning on regtest.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bitcoin::{Address, Network};
use serde_json::{Value, json};

use crate::bitcoind::{Bitcoind, RPC_PASSWORD, RPC_USER};
use crate::lightningd_rpc;
use crate::ports::free_port;
use crate::spawn::which;
use crate::{Process, Sandbox, wait_for};

const START: Duration = Duration::from_secs(60);
/// How long nodes may take to agree on blocks, channels and gossip; they ask bitcoind once a second.
const SETTLE: Duration = Duration::from_secs(60);

/// lightningd on `PATH`. Without it a test is to end at once: `None` after a line that says so, or a panic when
/// `REQUIRE_LIGHTNINGD=1`.
#[allow(clippy::panic, reason = "it is how a test fails")]
pub fn require() -> Option<PathBuf> {
    let found = which("lightningd");
    if found.is_none() {
        if std::env::var_os("REQUIRE_LIGHTNINGD").is_some_and(|value| value == "1") {
            panic!("lightningd is required (REQUIRE_LIGHTNINGD=1), but not on PATH");
        }
        // To the terminal, even though the test's output is captured.
        let line = "SKIPPED: lightningd is not on PATH\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    }
    found
}

/// A lightningd.
pub struct Lightningd {
    process: Process,
    dir: PathBuf,
    id: String,
    port: u16,
}

impl Lightningd {
    /// Starts a node with its own folder. `extra`: more options, such as `--plugin=PATH`.
    pub async fn start(sandbox: &Sandbox, name: &str, bitcoind: &Bitcoind, extra: &[String]) -> Result<Self> {
        let program = which("lightningd").context("lightningd is not on PATH")?;
        let (dir, port) = (sandbox.folder(name)?, free_port()?);
        let process = sandbox
            .spec(name, program)
            .arg(format!("--lightning-dir={}", dir.display()))
            .args(["--network=regtest", "--log-level=debug"])
            .arg(format!("--alias={name}"))
            .arg(format!("--addr=127.0.0.1:{port}"))
            .arg(format!("--bitcoin-cli={}", bitcoind.cli().display()))
            .args(["--bitcoin-rpcconnect=127.0.0.1".to_owned(), format!("--bitcoin-rpcuser={RPC_USER}")])
            .arg(format!("--bitcoin-rpcport={}", bitcoind.rpc_port()))
            .arg(format!("--bitcoin-rpcpassword={RPC_PASSWORD}"))
            // Else blocks take 30 s to be seen, and gossip a minute.
            .args(["--developer", "--dev-bitcoind-poll=1", "--dev-fast-gossip"])
            // They want ports of their own, and nobody asks them here.
            .args(["--disable-plugin=cln-grpc", "--disable-plugin=clnrest", "--disable-plugin=wss-proxy"])
            .args(extra)
            .start()?;
        let mut node = Self { process, dir, id: String::new(), port };
        node.wait_ready().await?;
        Ok(node)
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let info = || async { self.call("getinfo", json!({})).await.map(Some) };
        let info = self.process.wait_ready(START, info).await?;
        self.id = text(&info, "id")?;
        Ok(())
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its public key, in hex.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `ID@127.0.0.1:PORT`.
    pub fn uri(&self) -> String {
        format!("{}@127.0.0.1:{}", self.id, self.port)
    }

    /// What `lightning-cli --lightning-dir` wants.
    pub fn dir(&self) -> &PathBuf {
        &self.dir
    }

    /// The socket of its RPC.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("regtest/lightning-rpc")
    }

    /// Calls an RPC command; `params` is an object or an array.
    pub async fn call(&self, method: &str, params: Value) -> Result<Value> {
        lightningd_rpc::call(&self.socket(), method, params).await
    }

    /// Waits until it has seen all of bitcoind's blocks.
    pub async fn wait_synced(&self, bitcoind: &Bitcoind) -> Result<()> {
        wait_for(&format!("{} in sync", self.process.name()), SETTLE, || async {
            let info = self.call("getinfo", json!({})).await?;
            let height = bitcoind.height().await?;
            let warned = info.get("warning_bitcoind_sync").or(info.get("warning_lightningd_sync"));
            let seen = info.get("blockheight").and_then(Value::as_u64);
            Ok((seen >= Some(height.into()) && warned.is_none()).then_some(()))
        })
        .await
    }

    /// Gives it confirmed coins.
    pub async fn fund(&self, bitcoind: &Bitcoind, sat: u64) -> Result<()> {
        let address = text(&self.call("newaddr", json!({ "addresstype": "bech32" })).await?, "bech32")?;
        let address = address.parse::<Address<_>>()?.require_network(Network::Regtest)?;
        let txid = bitcoind.send(&address, sat).await?.to_string();
        bitcoind.mine(1).await?;
        wait_for(&format!("{} has its coins", self.process.name()), SETTLE, || async {
            let funds = self.call("listfunds", json!({})).await?;
            Ok(list(&funds, "outputs")
                .iter()
                .any(|output| {
                    output.get("txid").and_then(Value::as_str) == Some(&txid)
                        && output.get("status").and_then(Value::as_str) == Some("confirmed")
                })
                .then_some(()))
        })
        .await
    }

    /// Connects to another node.
    pub async fn connect(&self, other: &Self) -> Result<()> {
        self.call("connect", json!([other.uri()])).await?;
        Ok(())
    }

    /// Opens an announced channel to another node with confirmed coins of its own, and waits until both can use it and
    /// know of it. Half of it can be pushed over, to pay in both directions. Returns its short id.
    pub async fn open_channel(
        &self,
        other: &Self,
        bitcoind: &Bitcoind,
        sat: u64,
        push_msat: u64,
    ) -> Result<String> {
        self.wait_synced(bitcoind).await?;
        other.wait_synced(bitcoind).await?;
        self.connect(other).await?;
        let request = json!({
            "id": other.id, "amount": sat, "push_msat": push_msat, "feerate": "1000perkb", "announce": true,
        });
        let opened = self.call("fundchannel", request).await?;
        bitcoind.wait_mempool(text(&opened, "txid")?.parse()?, SETTLE).await?;
        let channel = text(&opened, "channel_id")?;
        // Six confirmations, and it is announced (BOLT 7).
        bitcoind.mine(6).await?;
        let mut short_id = String::new();
        for node in [self, other] {
            short_id = node.wait_channel(&channel).await?;
        }
        for node in [self, other] {
            wait_for(&format!("{} knows channel {short_id}", node.process.name()), SETTLE, || async {
                let known = node.call("listchannels", json!({ "short_channel_id": short_id })).await?;
                let active = |half: &&Value| half.get("active") == Some(&Value::Bool(true));
                Ok((list(&known, "channels").iter().filter(active).count() == 2).then_some(()))
            })
            .await?;
        }
        Ok(short_id)
    }

    /// Waits until a channel, by its long id, is `CHANNELD_NORMAL`. Returns its short id.
    pub async fn wait_channel(&self, channel: &str) -> Result<String> {
        wait_for(&format!("{}'s channel is normal", self.process.name()), SETTLE, || async {
            let channels = self.call("listpeerchannels", json!({})).await?;
            let found = list(&channels, "channels").iter().find(|known| {
                known.get("channel_id").and_then(Value::as_str) == Some(channel)
                    && known.get("state").and_then(Value::as_str) == Some("CHANNELD_NORMAL")
            });
            Ok(found.and_then(|found| text(found, "short_channel_id").ok()))
        })
        .await
    }

    /// A new invoice.
    pub async fn invoice(&self, msat: u64, label: &str) -> Result<String> {
        let request = json!({ "amount_msat": msat, "label": label, "description": label });
        text(&self.call("invoice", request).await?, "bolt11")
    }

    /// What an invoice of this label has received, in msat; `None` while it is unpaid.
    pub async fn received(&self, label: &str) -> Result<Option<u64>> {
        let invoices = self.call("listinvoices", json!({ "label": label })).await?;
        Ok(list(&invoices, "invoices")
            .first()
            .and_then(|invoice| invoice.get("amount_received_msat")?.as_u64()))
    }

    /// Pays an invoice; returns the preimage in hex.
    pub async fn pay(&self, invoice: &str) -> Result<String> {
        text(&self.call("xpay", json!({ "invstring": invoice })).await?, "payment_preimage")
    }

    /// Asks it to end, and waits for that.
    pub async fn stop(&self) -> Result<()> {
        // The answer may be lost when it ends.
        let _ = self.call("stop", json!({})).await;
        self.process.wait_exit(START).await?;
        Ok(())
    }

    /// Starts it again: after [`stop`](Self::stop), or after having killed it.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.restart()?;
        self.wait_ready().await
    }

    /// Lets it run on after this process.
    pub fn leave(self) {
        self.process.leave();
    }
}

/// A member that must be a string.
fn text(answer: &Value, name: &str) -> Result<String> {
    let value = answer.get(name).and_then(Value::as_str);
    value.map(str::to_owned).with_context(|| format!("lightningd's answer has no '{name}'"))
}

/// A member that is a list; empty if it is missing.
fn list<'a>(answer: &'a Value, name: &str) -> &'a [Value] {
    answer.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

//! A world without Core Lightning: `guardiand` processes, a `gatewayd` on LDK, and an LDK node in this
//! process as the payee.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use bitcoin::Network;
use federation_core::rest::AuditResponse;
use gateway::ldk::{BitcoindAuth, LdkConfig, LdkNode};
use gateway::node::{LightningNode as _, PayRequest, PaymentStatus};
use lightning_invoice::Bolt11Invoice;
use serde_json::Value;

use crate::ecash::{number, text};
use crate::setting::Setting;
use crate::{Bitcoind, Federation, Process, Sandbox, binaries, ports, wait_for};

const SOON: Duration = Duration::from_secs(60);
/// The channel between gateway and payee, in sat; half of it is the payee's.
const CHANNEL: u64 = 2_000_000;

/// The whole world. Its parts end with it.
pub struct EmbeddedWorld {
    // In the order in which they should go.
    payee: Arc<LdkNode>,
    /// The gateway.
    pub gateway: Gatewayd,
    /// The federation.
    pub federation: Federation,
    /// The chain.
    pub bitcoind: Bitcoind,
    /// The folder of it all.
    pub sandbox: Sandbox,
}

/// A real `gatewayd`.
pub struct Gatewayd {
    /// Its process.
    pub process: Process,
    folder: std::path::PathBuf,
}

impl Gatewayd {
    async fn start(sandbox: &Sandbox, bitcoind: &Bitcoind, name: &str) -> Result<Self> {
        let folder = sandbox.folder(name)?;
        let (api, admin, ldk) = (ports::free_port()?, ports::free_port()?, ports::free_port()?);
        let password = sandbox.path().join(format!("{name}-bitcoind-password"));
        let (user, secret) = credentials(bitcoind)?;
        std::fs::write(&password, format!("{user}:{secret}"))?;
        let log = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
        let spec = sandbox
            .spec(name, binaries::find("gatewayd")?)
            .env("RUST_LOG", log)
            .arg(format!("--data-dir={}", folder.display()))
            .args(["run", "--network=regtest", "--alias=gateway"])
            .arg(format!("--bitcoind-url={}", bitcoind.url()))
            .arg(format!("--bitcoind-password-file={}", password.display()))
            .arg(format!("--api-bind=127.0.0.1:{api}"))
            .arg(format!("--admin-bind=127.0.0.1:{admin}"))
            .arg(format!("--ldk-listen=127.0.0.1:{ldk}"));
        let gateway = Self { process: spec.start()?, folder };
        gateway.process.wait_ready(SOON, || async { Ok(Some(gateway.admin(&["status"]).await?)) }).await?;
        Ok(gateway)
    }

    /// `gatewayd admin …`, and the JSON that it prints.
    pub async fn admin(&self, args: &[&str]) -> Result<Value> {
        let output = tokio::process::Command::new(binaries::find("gatewayd")?)
            .arg(format!("--data-dir={}", self.folder.display()))
            .arg("admin")
            .args(args)
            .stdin(Stdio::null())
            .output()
            .await?;
        if !output.status.success() {
            bail!("gatewayd admin {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

impl EmbeddedWorld {
    /// Starts everything, with `n` guardians, and opens a channel with money on both sides.
    pub async fn start(sandbox: Sandbox, n: usize) -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let port = ports::free_port()?;
        let parts = async {
            let bitcoind = Bitcoind::start(&sandbox).await?;
            let (federation, gateway, payee) = tokio::try_join!(
                Federation::start(&sandbox, &bitcoind, n),
                Gatewayd::start(&sandbox, &bitcoind, "gateway"),
                payee(&sandbox, &bitcoind, port),
            )?;
            Ok::<_, anyhow::Error>((payee, gateway, federation, bitcoind))
        };
        let (payee, gateway, federation, bitcoind) =
            parts.await.inspect_err(|_| sandbox.keep_for_a_look())?;
        let world = Self { payee, gateway, federation, bitcoind, sandbox };
        let ready = async {
            world.open_channel(port).await?;
            world.gateway.admin(&["connect", &world.federation.invite]).await
        };
        ready.await.inspect_err(|_| world.sandbox.keep_for_a_look())?;
        Ok(world)
    }

    async fn open_channel(&self, payee_port: u16) -> Result<()> {
        let address = text(&self.gateway.admin(&["address"]).await?, "address")?;
        let address = address.parse::<bitcoin::Address<_>>()?.require_network(Network::Regtest)?;
        self.bitcoind.send(&address, 10_000_000).await?;
        self.bitcoind.mine(6).await?;
        let peer = format!("{}@127.0.0.1:{payee_port}", self.payee.info().await?.node_id);
        let (size, push) = (format!("{CHANNEL}sat"), format!("--push={}sat", CHANNEL / 2));
        // Until the coins have arrived it refuses.
        wait_for("the gateway opens a channel", SOON, || async {
            Ok(Some(self.gateway.admin(&["open-channel", &peer, &size, &push]).await?))
        })
        .await?;
        wait_for("the channel's funding transaction", SOON, || async {
            let waiting: Vec<String> = self.bitcoind.rpc("getrawmempool", serde_json::json!([])).await?;
            Ok((!waiting.is_empty()).then_some(()))
        })
        .await?;
        self.bitcoind.mine(6).await?;
        wait_for("the channel can be used", SOON, || async {
            let ours = self.gateway.admin(&["channels"]).await?;
            let usable = ours.to_string().contains("\"usable\":true");
            Ok((usable && self.payee.list_channels().iter().any(|channel| channel.usable)).then_some(()))
        })
        .await
    }

    /// The payee's node.
    pub fn payee(&self) -> &Arc<LdkNode> {
        &self.payee
    }
}

async fn payee(sandbox: &Sandbox, bitcoind: &Bitcoind, port: u16) -> Result<Arc<LdkNode>> {
    let (user, password) = credentials(bitcoind)?;
    let folder = sandbox.folder("payee")?;
    let config = LdkConfig {
        seed_file: folder.join("seed"),
        data_dir: folder,
        network: Network::Regtest,
        bitcoind_url: bitcoind.url(),
        bitcoind_auth: BitcoindAuth::Password { user, password },
        listen: ([127, 0, 0, 1], port).into(),
        announce: Vec::new(),
        alias: "payee".to_owned(),
        wallet_birthday: None,
    };
    Ok(LdkNode::start(config).await?)
}

fn credentials(bitcoind: &Bitcoind) -> Result<(String, String)> {
    let url = bitcoind.url_with_credentials();
    let part = url.split_once("//").and_then(|(_, rest)| rest.split_once('@')).context("no credentials")?.0;
    let (user, password) = part.split_once(':').context("no password")?;
    Ok((user.to_owned(), password.to_owned()))
}

#[async_trait]
impl Setting for EmbeddedWorld {
    fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    fn bitcoind(&self) -> &Bitcoind {
        &self.bitcoind
    }

    fn invite(&self) -> &str {
        &self.federation.invite
    }

    async fn audit(&self) -> Result<AuditResponse> {
        self.federation.audit().await
    }

    async fn give_gateway(&self, ecash: &str) -> Result<()> {
        self.gateway.admin(&["receive-ecash", ecash]).await?;
        Ok(())
    }

    async fn gateway_msat(&self) -> Result<u64> {
        number(&self.gateway.admin(&["balance"]).await?, "balance_msat")
    }

    async fn payee_invoice(&self, msat: u64) -> Result<String> {
        Ok(self.payee.invoice(msat, "regtest")?.to_string())
    }

    async fn payee_received(&self, invoice: &str) -> Result<Option<u64>> {
        Ok(self.payee.received(hash(invoice)?)?)
    }

    async fn payee_pays(&self, invoice: &str) -> Result<String> {
        let parsed: Bolt11Invoice =
            invoice.parse().map_err(|error| anyhow::anyhow!("no invoice: {error:?}"))?;
        let request = PayRequest {
            amount_msat: parsed.amount_milli_satoshis().context("the invoice has no amount")?,
            invoice: parsed,
            max_fee_msat: 10_000,
            max_delay_blocks: 1000,
            retry_for: Duration::from_secs(30),
        };
        match self.payee.pay(request).await? {
            PaymentStatus::Succeeded { preimage, .. } => Ok(hex::encode(preimage)),
            other => bail!("the payee could not pay: {other:?}"),
        }
    }

    fn usage(&self) -> String {
        let program =
            |name: &str| binaries::find(name).map(|path| path.display().to_string()).unwrap_or_default();
        format!(
            "invite code:  {}\nwallet:       {} --data-dir {}\ngateway:      {} --data-dir {} admin status\nguardian API: {}",
            self.federation.invite,
            program("ecash"),
            self.sandbox.path().join("wallet-alice").display(),
            program("gatewayd"),
            self.gateway.folder.display(),
            self.federation.guardians.first().map(|guardian| guardian.url.clone()).unwrap_or_default(),
        )
    }
}

fn hash(invoice: &str) -> Result<[u8; 32]> {
    use bitcoin::hashes::Hash as _;
    let invoice: Bolt11Invoice = invoice.parse().map_err(|error| anyhow::anyhow!("no invoice: {error:?}"))?;
    Ok(*invoice.payment_hash().as_byte_array())
}

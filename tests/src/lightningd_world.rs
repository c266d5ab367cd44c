//! The world on Core Lightning: four nodes with the plugin as guardians, the first of them the gateway too, and a fifth
//! without it as the payee.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use federation_core::rest::AuditResponse;
use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::bitcoind::{RPC_PASSWORD, RPC_USER};
use crate::ecash::{number, text};
use crate::setting::Setting;
use crate::{Bitcoind, Lightningd, Sandbox, binaries, ports, wait_for};

/// How long a role may take to start, and four guardians to generate keys, on a busy machine.
const SETUP: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_secs(30);
/// The channel between gateway and payee: half of it is on each side.
const CHANNEL_SAT: u64 = 4_000_000;

/// A federation, its gateway and a payee, all on lightningd.
pub struct LightningdWorld {
    parts: Parts,
    // After the processes in it.
    sandbox: Sandbox,
}

struct Parts {
    /// The guardians' nodes; the first is the gateway's too.
    guardians: [Lightningd; 4],
    payee: Lightningd,
    bitcoind: Bitcoind,
    invite: String,
}

impl LightningdWorld {
    /// Starts and sets up everything, in a folder whose name contains `name`. It is kept if that fails.
    pub async fn start(name: &str) -> Result<Self> {
        let mut sandbox = Sandbox::new(name)?;
        match Parts::start(&sandbox).await {
            Ok(parts) => Ok(Self { parts, sandbox }),
            Err(error) => Err(error.context(format!("see the logs in {}", sandbox.keep().display()))),
        }
    }

    /// The gateway's node.
    pub fn gateway(&self) -> &Lightningd {
        let [first, ..] = &self.parts.guardians;
        first
    }

    /// The payee's node.
    pub fn payee(&self) -> &Lightningd {
        &self.parts.payee
    }

    /// Waits until all guardians have applied the same epochs.
    async fn settled(&self) -> Result<()> {
        wait_for("all guardians at the same epoch", SETTLE, || async {
            let statuses = self.parts.guardians.iter().map(|guardian| guardian.call("fed-status", json!({})));
            let epochs: Vec<_> = try_join_all(statuses).await?.iter().map(epoch).collect::<Result<_>>()?;
            Ok(epochs.iter().all(|epoch| epochs.first() == Some(epoch)).then_some(()))
        })
        .await
    }
}

#[async_trait]
impl Setting for LightningdWorld {
    fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    fn bitcoind(&self) -> &Bitcoind {
        &self.parts.bitcoind
    }

    fn invite(&self) -> &str {
        &self.parts.invite
    }

    async fn audit(&self) -> Result<AuditResponse> {
        self.settled().await?;
        Ok(serde_json::from_value(self.gateway().call("fed-audit", json!({})).await?)?)
    }

    async fn give_gateway(&self, ecash: &str) -> Result<()> {
        self.gateway().call("fedgw-receive-ecash", json!([ecash])).await?;
        Ok(())
    }

    async fn gateway_msat(&self) -> Result<u64> {
        let balance = self.gateway().call("fedgw-balance", json!({})).await?;
        let ecash = balance.get("ecash").and_then(Value::as_array).context("no list 'ecash'")?;
        ecash.iter().map(|federation| number(federation, "balance_msat")).sum()
    }

    async fn payee_invoice(&self, msat: u64) -> Result<String> {
        self.parts.payee.invoice(msat, &format!("sale-{:016x}", rand::random::<u64>())).await
    }

    async fn payee_received(&self, invoice: &str) -> Result<Option<u64>> {
        let known = self.parts.payee.call("listinvoices", json!({ "invstring": invoice })).await?;
        let known =
            known.get("invoices").and_then(|list| list.get(0)).context("the payee has no such invoice")?;
        Ok(known.get("amount_received_msat").and_then(Value::as_u64))
    }

    async fn payee_pays(&self, invoice: &str) -> Result<String> {
        self.parts.payee.pay(invoice).await
    }

    fn usage(&self) -> String {
        let dir = self.sandbox.path().display();
        let ecash = binaries::find("ecash").unwrap_or_else(|_| "ecash".into());
        let (ecash, bitcoind) = (ecash.display(), &self.parts.bitcoind);
        let bitcoin_cli = format!(
            "{} -regtest -rpcport={} -rpcuser={RPC_USER} -rpcpassword={RPC_PASSWORD}",
            bitcoind.cli().display(),
            bitcoind.rpc_port()
        );
        format!(
            "the gateway's node, which is a guardian's too:\n  \
               lightning-cli --network=regtest --lightning-dir={dir}/guardian-0 fedgw-status\n\
             the other guardians (guardian-1, guardian-2, guardian-3):\n  \
               lightning-cli --network=regtest --lightning-dir={dir}/guardian-1 fed-status\n\
             the payee's node:\n  \
               lightning-cli --network=regtest --lightning-dir={dir}/payee listinvoices\n\
             the users' wallets (wallet-alice, wallet-bob):\n  \
               {ecash} --data-dir {dir}/wallet-alice balance\n\
             a wallet of your own:\n  \
               {ecash} --data-dir {dir}/wallet-me join {invite}\n\
             a block:\n  \
               {bitcoin_cli} -rpcwallet=miner -generate 1",
            invite = self.parts.invite,
        )
    }
}

impl Parts {
    async fn start(sandbox: &Sandbox) -> Result<Self> {
        let bitcoind = Bitcoind::start(sandbox).await?;
        let guardian = |i: usize| {
            let bitcoind = &bitcoind;
            async move { Lightningd::start(sandbox, &format!("guardian-{i}"), bitcoind, &options(i)?).await }
        };
        let payee = Lightningd::start(sandbox, "payee", &bitcoind, &[]);
        let (first, second, third, fourth, payee) =
            tokio::try_join!(guardian(0), guardian(1), guardian(2), guardian(3), payee)?;
        let channel = async {
            first.fund(&bitcoind, CHANNEL_SAT + 100_000).await?;
            first.open_channel(&payee, &bitcoind, CHANNEL_SAT, CHANNEL_SAT * 1000 / 2).await
        };
        let (invite, _) = tokio::try_join!(set_up([&first, &second, &third, &fourth]), channel)?;
        Ok(Self { guardians: [first, second, third, fourth], payee, bitcoind, invite })
    }
}

/// A guardian's options; the first is the gateway too.
fn options(i: usize) -> Result<Vec<String>> {
    let bind = || ports::free_port().map(|port| format!("127.0.0.1:{port}"));
    let mut options = vec![
        format!("--plugin={}", binaries::find("cln-federation")?.display()),
        format!("--fed-api={}", bind()?),
        format!("--fed-link={}", bind()?),
    ];
    if i == 0 {
        options.extend(["--fedgw-enable=true".to_owned(), format!("--fedgw-api={}", bind()?)]);
    }
    Ok(options)
}

/// As four operators would do it: codes, the others' codes, start. Then the gateway joins. The invite code.
async fn set_up(guardians: [&Lightningd; 4]) -> Result<String> {
    let names = guardians.iter().map(|guardian| guardian.process().name());
    let codes =
        try_join_all(guardians.iter().zip(names).enumerate().map(|(i, (guardian, name))| async move {
            let params = match i {
                0 => json!({ "name": name, "federation": "regtest", "guardians": guardians.len() }),
                _ => json!({ "name": name }),
            };
            started(guardian, "fed-status", "guardian").await?;
            text(&guardian.call("fed-setup", params).await?, "code")
        }))
        .await?;
    try_join_all(guardians.iter().zip(&codes).map(|(guardian, own)| {
        let codes = &codes;
        async move {
            for code in codes.iter().filter(|code| *code != own) {
                guardian.call("fed-setup-peer", json!([code])).await?;
            }
            guardian.call("fed-setup-start", json!([])).await
        }
    }))
    .await?;
    try_join_all(guardians.iter().map(|guardian| async move {
        let what = format!("{} runs the federation", guardian.process().name());
        wait_for(&what, SETUP, || async {
            let status = guardian.call("fed-status", json!({})).await?;
            epoch(&status).with_context(|| status.to_string()).map(Some)
        })
        .await
    }))
    .await?;
    let [gateway, ..] = guardians;
    let invite = text(&gateway.call("fed-invite", json!({})).await?, "invite")?;
    started(gateway, "fedgw-status", "gateway").await?;
    gateway.call("fedgw-connect", json!({ "invite": invite })).await?;
    wait_for("the gateway is announced", SETTLE, || async {
        let status = gateway.call("fedgw-status", json!({})).await?;
        let announced = status.pointer("/status/federations/0/announced_until").context("no federation")?;
        Ok((!announced.is_null()).then_some(()))
    })
    .await?;
    Ok(invite)
}

/// Waits until a role runs in the plugin.
async fn started(node: &Lightningd, command: &str, role: &str) -> Result<()> {
    let what = format!("the {role} of {}", node.process().name());
    let state = wait_for(&what, SETUP, || async {
        let status = node.call(command, json!({})).await?;
        let state = text(status.get(role).context("no state")?, "state")?;
        Ok((state != "starting").then_some(status))
    })
    .await?;
    ensure!(state.pointer(&format!("/{role}/state")) == Some(&json!("running")), "{what}: {state}");
    Ok(())
}

/// How many epochs a running guardian has applied.
fn epoch(status: &Value) -> Result<u64> {
    number(status.get("federation").context("the federation does not run yet")?, "epoch")
}

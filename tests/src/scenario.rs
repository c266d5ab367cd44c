//! Steps that several tests, and the demo, take in the same way.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use federation_core::rest::AuditResponse;
use serde_json::Value;

use crate::ecash::{number, text};
use crate::{Bitcoind, Ecash, wait_for};

/// How long an epoch or two may take on a busy machine.
const SOON: Duration = Duration::from_secs(45);

/// Pays `sat` to a wallet's deposit address, mines, and waits until it is e-cash.
pub async fn deposit(bitcoind: &Bitcoind, wallet: &Ecash, sat: u64) -> Result<()> {
    let before = wallet.balance().await?;
    let address = text(&wallet.run(&["deposit"]).await?, "address")?;
    let address = address.parse::<bitcoin::Address<_>>()?.require_network(bitcoin::Network::Regtest)?;
    bitcoind.send(&address, sat).await?;
    bitcoind.mine(2).await?;
    wait_for("the deposit is e-cash", SOON, || async {
        let balance = wallet.balance().await?;
        Ok((balance > before).then_some(()))
    })
    .await?;
    let credited = wallet.balance().await?.checked_sub(before).context("the balance fell")?;
    ensure!(credited == sat * 1000, "{sat} sat were deposited, {credited} msat credited");
    Ok(())
}

/// Hands `amount` (as `ecash` takes it) from one wallet to another.
pub async fn send(from: &Ecash, to: &Ecash, amount: &str) -> Result<Value> {
    let notes = text(&from.run(&["send", amount]).await?, "ecash")?;
    to.run_with(&["receive", "-"], &notes).await
}

/// Conservation: the notes in circulation are what `wallets` hold, in msat, and the federation has what it owes.
pub fn conserved(audit: &AuditResponse, wallets: &[u64]) -> Result<()> {
    let held: u64 = wallets.iter().sum();
    let line = |module: &str, name: &str| {
        let lines = audit.modules.get(module).with_context(|| format!("no audit of {module}"))?;
        let found = lines.iter().find(|line| line.name.contains(name));
        Ok::<_, anyhow::Error>(found.with_context(|| format!("no line '{name}' in {lines:?}"))?.amount_msat)
    };
    let issued = line("mint", "circulation")?;
    if i64::try_from(held)? != -issued {
        bail!("{held} msat of notes are held, but the mint says {issued}: {audit:?}");
    }
    ensure!(audit.net_msat == 0, "the federation has {} msat beyond what it owes: {audit:?}", audit.net_msat);
    Ok(())
}

/// Withdraws to a fresh address of bitcoind, mines, and checks that it arrived: the fee in satoshi.
pub async fn withdraw(bitcoind: &Bitcoind, wallet: &Ecash, amount: &str) -> Result<(u64, u64)> {
    let address = bitcoind.address().await?;
    let done = wallet.run(&["withdraw", &address.to_string(), amount]).await?;
    let (sat, fee) = (number(&done, "amount_sat")?, number(&done, "fee_sat")?);
    let txid = text(&done, "txid")?.parse()?;
    bitcoind.wait_mempool(txid, SOON).await?;
    bitcoind.mine(2).await?;
    let received = bitcoind.received(&address).await?;
    ensure!(received == sat, "{sat} sat were withdrawn, {received} arrived");
    Ok((sat, fee))
}

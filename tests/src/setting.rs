//! A whole regtest world: a federation, a gateway and a payee elsewhere on Lightning. The main job runs in
//! each of them alike.

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use federation_core::rest::AuditResponse;

use crate::ecash::{number, text};
use crate::scenario::{conserved, deposit, send, withdraw};
use crate::{Bitcoind, Ecash, Sandbox};

/// What the main job needs of a world.
#[async_trait]
pub trait Setting: Send + Sync {
    /// Where everything is.
    fn sandbox(&self) -> &Sandbox;
    /// The chain.
    fn bitcoind(&self) -> &Bitcoind;
    /// What users join with.
    fn invite(&self) -> &str;
    /// The audit, once all running guardians are at the same epoch.
    async fn audit(&self) -> Result<AuditResponse>;
    /// Hands e-cash to the gateway.
    async fn give_gateway(&self, ecash: &str) -> Result<()>;
    /// The gateway's e-cash, in msat.
    async fn gateway_msat(&self) -> Result<u64>;
    /// An invoice of the payee, in msat.
    async fn payee_invoice(&self, msat: u64) -> Result<String>;
    /// What the payee's own node says it has received for an invoice, in msat.
    async fn payee_received(&self, invoice: &str) -> Result<Option<u64>>;
    /// The payee pays an invoice; the preimage in hex.
    async fn payee_pays(&self, invoice: &str) -> Result<String>;
    /// How a developer uses the world while it is kept running.
    fn usage(&self) -> String;
}

/// What a step of the main job tells its audience.
pub type Tell<'a> = &'a mut (dyn FnMut(&str) + Send);

/// The main job: a user deposits, holds, hands on, pays, is paid and withdraws; at the end nothing is lost.
pub async fn main_job(world: &dyn Setting, tell: Tell<'_>) -> Result<()> {
    let (sandbox, bitcoind) = (world.sandbox(), world.bitcoind());
    let alice = Ecash::join(sandbox, "alice", world.invite()).await?;
    let bob = Ecash::join(sandbox, "bob", world.invite()).await?;
    tell("two users join with the invite code");

    deposit(bitcoind, &alice, 500_000).await?;
    deposit(bitcoind, &bob, 300_000).await?;
    tell("they deposit 500,000 and 300,000 sat on-chain and hold e-cash");

    let liquidity = text(&bob.run(&["send", "250000sat"]).await?, "ecash")?;
    world.give_gateway(&liquidity).await?;
    tell("the gateway gets 250,000 sat of e-cash to work with");

    send(&alice, &bob, "12345sat").await?;
    tell("alice hands bob 12,345 sat of e-cash");

    let invoice = world.payee_invoice(50_000_000).await?;
    let paid = alice.run(&["pay", &invoice]).await.context("paying the payee's invoice")?;
    proves(&invoice, &text(&paid, "preimage")?)?;
    let received = world.payee_received(&invoice).await?;
    ensure!(received == Some(50_000_000), "the payee's node says it received {received:?} msat");
    tell("alice pays a Lightning invoice of 50,000 sat; the payee has the money, the preimage fits");

    let before = bob.balance().await?;
    let made = bob.run(&["invoice", "20000sat"]).await?;
    let invoice = text(&made, "invoice")?;
    proves(&invoice, &world.payee_pays(&invoice).await.context("the payee pays bob's invoice")?)?;
    let wanted = number(&made, "receives_msat")?;
    crate::wait_for("bob has what was paid", std::time::Duration::from_secs(45), || async {
        Ok((bob.balance().await? >= before.saturating_add(wanted)).then_some(()))
    })
    .await?;
    tell("bob is paid 20,000 sat over Lightning");

    let (sat, fee) = withdraw(bitcoind, &alice, "100000").await?;
    tell(&format!("alice withdraws {sat} sat on-chain for a fee of {fee} sat"));

    let held = [alice.balance().await?, bob.balance().await?, world.gateway_msat().await?];
    conserved(&world.audit().await?, &held)?;
    tell("all notes are accounted for: what is held is what was issued, and the federation has what it owes");
    Ok(())
}

/// Whether a preimage hashes to the payment hash of an invoice.
pub fn proves(invoice: &str, preimage: &str) -> Result<()> {
    use bitcoin::hashes::{Hash as _, sha256};
    let invoice: lightning_invoice::Bolt11Invoice =
        invoice.parse().map_err(|error| anyhow::anyhow!("no invoice: {error:?}"))?;
    let hash = sha256::Hash::hash(&hex::decode(preimage)?);
    ensure!(
        hash.as_byte_array() == invoice.payment_hash().as_byte_array(),
        "the preimage {preimage} is wrong"
    );
    Ok(())
}

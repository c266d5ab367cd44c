//! `ecash deposit [--wait]`

use std::fmt;

use federation_client::ops::deposit::Seen;
use federation_client::{Client, Result};
use federation_core::Amount;
use serde::Serialize;

use crate::output::{print, print_scannable, sat};
use crate::progress::Progress;
use crate::qr::Qr;

/// Show an address to pay bitcoin in to.
#[derive(Debug, clap::Args)]
pub struct Deposit {
    /// Wait until something was paid in and can be spent
    #[arg(long)]
    wait: bool,
    /// Show no new address; look for deposits at the old ones
    #[arg(long, conflicts_with = "wait")]
    check: bool,
    #[command(flatten)]
    qr: Qr,
}

#[derive(Serialize)]
struct Address {
    address: String,
    min_deposit_sat: u64,
    confirmations: u32,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

#[derive(Serialize)]
struct Received {
    received_msat: Amount,
}

impl fmt::Display for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "received {}", sat(self.received_msat))
    }
}

#[derive(Serialize)]
struct Found {
    deposits: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    outpoint: String,
    address: String,
    amount_sat: u64,
    confirmations: u32,
    confirmations_needed: u32,
    status: &'static str,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.deposits.is_empty() {
            return f.write_str("no deposits yet");
        }
        for deposit in &self.deposits {
            writeln!(
                f,
                "{} sat  {}  {} of {} confirmations  {}",
                deposit.amount_sat,
                deposit.status,
                deposit.confirmations.min(deposit.confirmations_needed),
                deposit.confirmations_needed,
                deposit.outpoint
            )?;
        }
        Ok(())
    }
}

fn status(seen: &Seen) -> &'static str {
    use federation_client::ops::deposit::State;
    match &seen.state {
        _ if seen.too_small => "too small",
        Some(State::Done { .. }) => "received",
        Some(State::Claiming) => "claiming",
        Some(State::Failed { .. }) => "failed",
        None => "unconfirmed",
    }
}

fn say(seen: &[Seen]) -> String {
    match seen.last() {
        None => "waiting for a payment to the address".to_owned(),
        Some(seen) if seen.too_small => format!("{} sat are too little to be credited", seen.amount_sat),
        Some(seen) if seen.state.is_some() => format!("{} sat: turning them into e-cash", seen.amount_sat),
        Some(seen) => {
            format!("{} sat seen: {} of {} confirmations", seen.amount_sat, seen.confirmations, seen.needed)
        }
    }
}

pub async fn run(client: &Client, deposit: &Deposit, json: bool) -> Result<()> {
    if deposit.check {
        let progress = Progress::new("asking the guardians");
        client.check_deposits().await?;
        client.settle_all(std::time::Duration::from_secs(10)).await?;
        let seen = client.check_deposits().await?;
        drop(progress);
        let lines = seen.into_iter().map(|seen| Line {
            status: status(&seen),
            outpoint: seen.outpoint,
            address: seen.address,
            amount_sat: seen.amount_sat,
            confirmations: seen.confirmations,
            confirmations_needed: seen.needed,
        });
        return print(&Found { deposits: lines.collect() }, json);
    }
    let address = client.deposit_address().await?;
    let shown = Address {
        address: address.address.clone(),
        min_deposit_sat: address.minimum_sat,
        confirmations: address.confirmations,
    };
    print_scannable(&shown, &shown.address, deposit.qr, json)?;
    if !deposit.wait {
        return Ok(());
    }
    let progress = Progress::new(say(&[]));
    let received_msat = client.wait_deposit(&address, |seen| progress.say(say(seen))).await?;
    drop(progress);
    print(&Received { received_msat }, json)
}

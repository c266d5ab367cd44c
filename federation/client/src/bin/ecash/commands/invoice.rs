//! `ecash invoice AMOUNT [--description TEXT] [--wait]`

use std::fmt;

use federation_client::{Client, Result};
use federation_core::Amount;
use serde::Serialize;

use crate::output::{print, print_scannable, sat};
use crate::progress::Progress;
use crate::qr::Qr;

/// Make a Lightning invoice.
#[derive(Debug, clap::Args)]
pub struct Invoice {
    /// How much the payer pays: 1000sat, 2500msat; satoshi without a unit
    amount: Amount,
    /// What the payer reads
    #[arg(long, default_value = "")]
    description: String,
    /// The URL or key of the gateway to use, instead of the cheapest one that is alive
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
    /// Wait until it is paid
    #[arg(long)]
    wait: bool,
    /// A note for your own history
    #[arg(long, default_value = "")]
    memo: String,
    #[command(flatten)]
    qr: Qr,
}

#[derive(Serialize)]
struct Output {
    invoice: String,
    /// What comes in when it is paid, before the federation's own fees.
    receives_msat: Amount,
    gateway: String,
    operation: String,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.invoice)
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

pub async fn run(client: &Client, invoice: &Invoice, json: bool) -> Result<()> {
    let progress = Progress::new("asking a gateway for an invoice");
    let (gateway, description) = (invoice.gateway.as_deref(), invoice.description.as_str());
    let made = client.invoice(invoice.amount, description, gateway, &invoice.memo).await?;
    drop(progress);
    let output = Output {
        invoice: made.invoice,
        receives_msat: made.receives,
        gateway: made.gateway,
        operation: hex::encode(made.operation),
    };
    print_scannable(&output, &output.invoice, invoice.qr, json)?;
    if !invoice.wait {
        return Ok(());
    }
    let progress = Progress::new("waiting for the payment");
    let received_msat = client.wait_invoice(made.operation).await?;
    drop(progress);
    print(&Received { received_msat }, json)
}

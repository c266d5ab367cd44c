//! `ecash pay INVOICE [--gateway URL]`

use std::fmt;

use federation_client::{Client, Result};
use federation_core::Amount;
use serde::Serialize;

use crate::output::{print, sat};
use crate::progress::Progress;

/// Pay a Lightning invoice.
#[derive(Debug, clap::Args)]
pub struct Pay {
    /// The BOLT 11 invoice
    invoice: String,
    /// The URL or key of the gateway to use, instead of the cheapest one that is alive
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
    /// A note for your own history
    #[arg(long, default_value = "")]
    memo: String,
}

#[derive(Serialize)]
struct Output {
    preimage: String,
    amount_msat: Amount,
    fee_msat: Amount,
    gateway: String,
    operation: String,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "paid {} and a fee of {} through {}",
            sat(self.amount_msat),
            sat(self.fee_msat),
            self.gateway
        )?;
        write!(f, "preimage {}", self.preimage)
    }
}

pub async fn run(client: &Client, pay: &Pay, json: bool) -> Result<()> {
    let progress = Progress::new("looking for a gateway");
    let op = client.begin_pay(&pay.invoice, pay.gateway.as_deref(), &pay.memo).await?;
    progress.say("paying");
    let paid = client.wait_paid(op).await?;
    drop(progress);
    let output = Output {
        preimage: paid.preimage.to_string(),
        amount_msat: paid.amount,
        fee_msat: paid.fee,
        gateway: paid.gateway,
        operation: hex::encode(op),
    };
    print(&output, json)
}

//! `ecash send AMOUNT`

use std::fmt;

use federation_client::{Client, Result};
use federation_core::Amount;
use serde::Serialize;

use crate::output::print_scannable;
use crate::progress::Progress;
use crate::qr::Qr;

/// Hand out e-cash.
#[derive(Debug, clap::Args)]
pub struct Send {
    /// How much: 1000sat, 2500msat; satoshi without a unit
    pub amount: Amount,
    /// A note for your own history
    #[arg(long, default_value = "")]
    memo: String,
    #[command(flatten)]
    qr: Qr,
}

#[derive(Serialize)]
struct Output {
    /// For `ecash reclaim`.
    operation: String,
    amount_msat: Amount,
    ecash: String,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.ecash)
    }
}

pub async fn run(client: &Client, send: &Send, json: bool) -> Result<()> {
    let progress = Progress::new("making exact change");
    let sent = client.send(send.amount, &send.memo).await?;
    drop(progress);
    let operation = hex::encode(sent.operation);
    let output = Output { operation, amount_msat: send.amount, ecash: sent.ecash };
    print_scannable(&output, &output.ecash, send.qr, json)
}

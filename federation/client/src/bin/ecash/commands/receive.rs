//! `ecash receive STRING`

use std::fmt;
use std::io::Read as _;

use federation_client::{Client, ClientError, Result};
use federation_core::Amount;
use serde::Serialize;

use crate::output::{print, sat};
use crate::progress::Progress;

/// The longest text that is read from stdin, in bytes: more than the longest e-cash.
const MAX_TEXT: u64 = 1 << 20;

/// Take in e-cash.
#[derive(Debug, clap::Args)]
pub struct Receive {
    /// The e-cash, clnecash1…; `-` reads it from stdin, so that no list of processes shows it
    ecash: String,
    /// Take in those notes that are good, should others not be signed by the federation
    #[arg(long)]
    part: bool,
    /// A note for your own history
    #[arg(long, default_value = "")]
    memo: String,
}

#[derive(Serialize)]
struct Output {
    received_msat: Amount,
    fees_msat: Amount,
    /// Of notes that somebody had spent before.
    spent_before_msat: Amount,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "received {}", sat(self.received_msat))?;
        if !self.spent_before_msat.is_zero() {
            write!(f, "; notes of {} had been spent before", sat(self.spent_before_msat))?;
        }
        Ok(())
    }
}

fn stdin() -> Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_TEXT)
        .read_to_string(&mut text)
        .map_err(|error| ClientError::Files { path: "stdin".to_owned(), reason: error.to_string() })?;
    Ok(text)
}

pub async fn run(client: &Client, receive: &Receive, json: bool) -> Result<()> {
    let text = if receive.ecash == "-" { stdin()? } else { receive.ecash.clone() };
    let progress = Progress::new("reissuing the notes");
    let received = match receive.part {
        true => client.receive_part(&text, &receive.memo).await?,
        false => client.receive(&text, &receive.memo).await?,
    };
    drop(progress);
    let missing = received.face.checked_sub(received.amount).and_then(|rest| rest.checked_sub(received.fees));
    let output = Output {
        received_msat: received.amount,
        fees_msat: received.fees,
        spent_before_msat: missing.unwrap_or(Amount::ZERO),
    };
    print(&output, json)
}

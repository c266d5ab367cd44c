//! `ecash reclaim OPERATION`

use std::fmt;

use federation_client::{Client, Result};
use federation_core::Amount;
use serde::Serialize;

use crate::output::{print, sat};
use crate::progress::Progress;

/// Take back e-cash that nobody has received.
#[derive(Debug, clap::Args)]
pub struct Reclaim {
    /// The operation, as `ecash history` shows it; its first digits are enough
    operation: String,
}

#[derive(Serialize)]
struct Output {
    reclaimed_msat: Amount,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "took back {}", sat(self.reclaimed_msat))
    }
}

pub async fn run(client: &Client, reclaim: &Reclaim, json: bool) -> Result<()> {
    let op = client.find_operation(&reclaim.operation).await?;
    let progress = Progress::new("reissuing the notes");
    let reclaimed_msat = client.reclaim(op).await?;
    drop(progress);
    print(&Output { reclaimed_msat }, json)
}

//! `ecash balance`

use std::fmt;
use std::time::Duration;

use federation_client::{Client, Result};
use federation_core::Amount;
use serde::Serialize;

use crate::output::{print, sat};

/// How long change that is on its way is waited for before the balance is shown.
const WAIT: Duration = Duration::from_secs(3);

#[derive(Serialize)]
struct Output {
    /// Can be spent now.
    balance_msat: Amount,
    /// Comes back when transactions under way are decided.
    pending_msat: Amount,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&sat(self.balance_msat))?;
        if !self.pending_msat.is_zero() {
            write!(f, " ({} more on the way)", sat(self.pending_msat))?;
        }
        Ok(())
    }
}

pub async fn run(client: &Client, json: bool) -> Result<()> {
    // Who has paid in and closed the shell finds it here. Without the guardians the balance is still known.
    let _ = tokio::time::timeout(WAIT, client.check_deposits()).await;
    client.settle_all(WAIT).await?;
    let output = Output { balance_msat: client.balance().await?, pending_msat: client.incoming().await? };
    print(&output, json)
}

//! Ordinary payments received: those whose preimage LDK makes and claims by itself.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::error::LdkError;
use super::ledger::Ledger;
use super::table::Table;

/// A received payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    amount_msat: u64,
}

/// The table, and who waits for it.
pub(super) struct Received {
    table: Table<Row>,
    changed: watch::Sender<()>,
}

impl Received {
    pub fn new(ledger: Arc<Ledger>) -> Self {
        Received { table: Table::new(ledger, "received"), changed: watch::Sender::new(()) }
    }

    /// What was received to a hash, in msat.
    pub fn amount_msat(&self, hash: &[u8; 32]) -> Result<Option<u64>, LdkError> {
        Ok(self.table.get(hash)?.map(|row| row.amount_msat))
    }

    /// A payment was claimed.
    pub fn claimed(&self, hash: &[u8; 32], amount_msat: u64) -> Result<(), LdkError> {
        self.table.put(hash, &Row { amount_msat })?;
        self.changed.send_replace(());
        Ok(())
    }

    /// Resolves when something was received since it was made.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

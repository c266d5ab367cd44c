//! Outgoing payments, once each.
//!
//! LDK forgets a payment a while after it is done, and never repeats an event that was handled.
//! So each payment has a row of its own, written before it is handed to LDK, and changed before
//! the event that decides it is acknowledged. A row in a final state never changes, with one
//! exception: a preimage is the truth, whatever was believed before.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::error::LdkError;
use super::ledger::Ledger;
use super::table::Table;
use crate::node::PaymentStatus;

/// A payment's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
enum Row {
    /// Being handed to LDK, or under way.
    Started,
    /// Paid.
    Succeeded {
        #[serde(with = "hex::serde")]
        preimage: [u8; 32],
        fee_msat: u64,
    },
    /// No HTLC of it is or will be under way.
    Failed { reason: String },
}

/// The table, and who waits for it.
pub(super) struct Payments {
    table: Table<Row>,
    /// Between looking for a row and writing the first one.
    starting: std::sync::Mutex<()>,
    changed: watch::Sender<()>,
}

impl Payments {
    pub fn new(ledger: Arc<Ledger>) -> Self {
        Payments {
            table: Table::new(ledger, "payments"),
            starting: std::sync::Mutex::new(()),
            changed: watch::Sender::new(()),
        }
    }

    /// Writes the first row of a payment; `false` if it has one.
    pub fn start(&self, hash: &[u8; 32]) -> Result<bool, LdkError> {
        let _starting = super::types::lock(&self.starting);
        if self.table.get(hash)?.is_some() {
            return Ok(false);
        }
        self.table.put(hash, &Row::Started)?;
        Ok(true)
    }

    /// It is paid.
    pub fn succeeded(&self, hash: &[u8; 32], preimage: [u8; 32], fee_msat: u64) -> Result<(), LdkError> {
        match self.table.get(hash)? {
            Some(Row::Succeeded { .. }) => return Ok(()),
            Some(Row::Failed { reason }) => tracing::error!(
                hash = hex::encode(hash),
                reason,
                "a payment that was reported as failed is paid; please report this"
            ),
            Some(Row::Started) | None => {}
        }
        self.table.put(hash, &Row::Succeeded { preimage, fee_msat })?;
        self.changed.send_replace(());
        Ok(())
    }

    /// It is over, provably.
    pub fn failed(&self, hash: &[u8; 32], reason: String) -> Result<(), LdkError> {
        if let Some(Row::Started) = self.table.get(hash)? {
            self.table.put(hash, &Row::Failed { reason })?;
            self.changed.send_replace(());
        }
        Ok(())
    }

    /// Where it stands.
    pub fn status(&self, hash: &[u8; 32]) -> Result<PaymentStatus, LdkError> {
        Ok(match self.table.get(hash)? {
            None => PaymentStatus::Unknown,
            Some(Row::Started) => PaymentStatus::Pending,
            Some(Row::Succeeded { preimage, fee_msat }) => PaymentStatus::Succeeded { preimage, fee_msat },
            Some(Row::Failed { reason }) => PaymentStatus::Failed { reason },
        })
    }

    /// Resolves when a payment may have changed since `seen` was made.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// At a start: what is `started` but unknown to LDK.
    ///
    /// The row was committed before LDK got the payment, its HTLCs leave after a commit that
    /// holds LDK's own record of it, and LDK forgets that only after its event was handled, which
    /// ends `started`. So nothing of these was ever sent.
    pub fn never_sent(&self, known: impl Fn(&[u8; 32]) -> bool) -> Result<(), LdkError> {
        for (hash, row) in self.table.all()? {
            if row == Row::Started && !known(&hash) {
                tracing::warn!(hash = hex::encode(hash), "a payment was never sent");
                self.failed(&hash, "the node stopped before it was sent".to_owned())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payments(dir: &tempfile::TempDir) -> Payments {
        Payments::new(Arc::new(Ledger::open(&dir.path().join("log")).unwrap()))
    }

    #[test]
    fn a_payment_starts_once_and_keeps_its_result() {
        let dir = tempfile::tempdir().unwrap();
        let hash = [1; 32];
        let table = payments(&dir);
        assert_eq!(table.status(&hash).unwrap(), PaymentStatus::Unknown);
        assert!(table.start(&hash).unwrap());
        assert!(!table.start(&hash).unwrap());
        table.succeeded(&hash, [2; 32], 7).unwrap();
        table.failed(&hash, "late".to_owned()).unwrap();
        drop(table);
        let paid = PaymentStatus::Succeeded { preimage: [2; 32], fee_msat: 7 };
        assert_eq!(payments(&dir).status(&hash).unwrap(), paid);
        assert!(!payments(&dir).start(&hash).unwrap());
    }

    #[test]
    fn only_what_ldk_does_not_know_was_never_sent() {
        let dir = tempfile::tempdir().unwrap();
        let table = payments(&dir);
        table.start(&[1; 32]).unwrap();
        table.start(&[2; 32]).unwrap();
        table.never_sent(|hash| *hash == [2; 32]).unwrap();
        assert!(matches!(table.status(&[1; 32]).unwrap(), PaymentStatus::Failed { .. }));
        assert_eq!(table.status(&[2; 32]).unwrap(), PaymentStatus::Pending);
    }
}

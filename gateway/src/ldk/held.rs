//! Hold invoices and what is held to them.
//!
//! ```text
//! open ──HTLCs in──▶ held ──settle──▶ settling ──claimed──▶ settled
//!   │                 │ └──deadline──▶ (failed by LDK; open again)
//!   └─────cancel──────┴──▶ cancelled
//! ```
//!
//! LDK reports a claimable payment once; the row is what repeats it. HTLCs to a hash without an
//! open row fail back.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::error::LdkError;
use super::ledger::Ledger;
use super::table::Table;
use crate::node::{HeldPayment, HoldInvoiceRequest};

/// How long a row outlives its invoice's expiry, in seconds, so that repeated calls are answered.
const KEEP: u64 = 90 * 24 * 3600;

/// A hold invoice's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub request: HoldInvoiceRequest,
    /// The invoice, as given out.
    pub invoice: String,
    /// Seconds since 1970.
    expires: u64,
    pub state: State,
}

/// Where a hold invoice stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Open,
    /// A complete set is in. It must be claimed while the height is below `deadline`.
    Held {
        amount_msat: u64,
        deadline: u32,
    },
    /// The preimage is ours to use; LDK has it or gets it again at a start.
    Settling {
        #[serde(with = "hex::serde")]
        preimage: [u8; 32],
    },
    Settled,
    Cancelled,
}

/// What to do with HTLCs that came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    Hold,
    Claim([u8; 32]),
    Fail,
}

/// The table, and who waits for it.
pub(super) struct Held {
    table: Table<Row>,
    /// Over reading and writing a row.
    turn: std::sync::Mutex<()>,
    changed: watch::Sender<u64>,
}

impl Held {
    pub fn new(ledger: Arc<Ledger>) -> Self {
        Held {
            table: Table::new(ledger, "held"),
            turn: std::sync::Mutex::new(()),
            changed: watch::Sender::new(1),
        }
    }

    /// The row of a payment hash.
    pub fn get(&self, hash: &[u8; 32]) -> Result<Option<Row>, LdkError> {
        self.table.get(hash)
    }

    /// All rows.
    pub fn all(&self) -> Result<Vec<([u8; 32], Row)>, LdkError> {
        self.table.all()
    }

    /// A new invoice. `false`: the hash has one already, and it stays.
    pub fn open(&self, request: HoldInvoiceRequest, invoice: String) -> Result<bool, LdkError> {
        let _turn = super::types::lock(&self.turn);
        let hash = request.payment_hash;
        if self.table.get(&hash)?.is_some() {
            return Ok(false);
        }
        let expires = now().saturating_add(request.expiry.as_secs());
        self.table.put(&hash, &Row { request, invoice, expires, state: State::Open })?;
        Ok(true)
    }

    /// A complete set of HTLCs came in.
    pub fn arrived(&self, hash: &[u8; 32], amount_msat: u64, deadline: u32) -> Result<Arrived, LdkError> {
        let mut arrived = Arrived::Fail;
        self.change(hash, |row| match &row.state {
            State::Open | State::Held { .. } => {
                if amount_msat >= row.request.amount_msat {
                    arrived = Arrived::Hold;
                    row.state = State::Held { amount_msat, deadline };
                }
            }
            State::Settling { preimage } => arrived = Arrived::Claim(*preimage),
            State::Settled | State::Cancelled => {}
        })?;
        Ok(arrived)
    }

    /// Changes a row, if there is one, and wakes those who wait. Returns the new row.
    pub fn change(&self, hash: &[u8; 32], change: impl FnOnce(&mut Row)) -> Result<Option<Row>, LdkError> {
        let _turn = super::types::lock(&self.turn);
        let Some(before) = self.table.get(hash)? else {
            return Ok(None);
        };
        let mut row = before.clone();
        change(&mut row);
        if row != before {
            self.table.put(hash, &row)?;
            self.changed.send_modify(|count| *count += 1);
        }
        Ok(Some(row))
    }

    /// What is held at a height.
    pub fn held(&self, height: u32) -> Result<Vec<HeldPayment>, LdkError> {
        let rows = self.table.all()?;
        Ok(rows
            .into_iter()
            .filter_map(|(payment_hash, row)| match row.state {
                State::Held { amount_msat, deadline } if height < deadline => Some(HeldPayment {
                    payment_hash,
                    amount_msat,
                    claim_deadline_height: deadline.saturating_sub(1),
                }),
                _ => None,
            })
            .collect())
    }

    /// At a new height: what LDK has failed because of its deadline is open again.
    pub fn expire(&self, height: u32) -> Result<(), LdkError> {
        for (hash, row) in self.table.all()? {
            if matches!(row.state, State::Held { deadline, .. } if height >= deadline) {
                tracing::warn!(hash = hex::encode(hash), height, "a held payment expired");
                self.change(&hash, |row| {
                    if matches!(row.state, State::Held { deadline, .. } if height >= deadline) {
                        row.state = State::Open;
                    }
                })?;
            }
        }
        Ok(())
    }

    /// Forgets what is over for long.
    pub fn prune(&self) -> Result<(), LdkError> {
        let now = now();
        let old: Vec<_> = self
            .table
            .all()?
            .into_iter()
            .filter(|(_, row)| {
                !matches!(row.state, State::Held { .. } | State::Settling { .. })
                    && row.expires.saturating_add(KEEP) < now
            })
            .map(|(hash, _)| hash)
            .collect();
        self.table.remove(&old)
    }

    /// Counts the changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn held() -> (tempfile::TempDir, Held) {
        let dir = tempfile::tempdir().unwrap();
        let held = Held::new(Arc::new(Ledger::open(&dir.path().join("log")).unwrap()));
        let request = HoldInvoiceRequest {
            payment_hash: [1; 32],
            amount_msat: 1000,
            description: String::new(),
            expiry: Duration::from_secs(3600),
        };
        assert!(held.open(request.clone(), "lnbcrt1".to_owned()).unwrap());
        assert!(!held.open(request, "another".to_owned()).unwrap());
        (dir, held)
    }

    #[test]
    fn holds_what_is_open_and_fails_the_rest() {
        let (_dir, held) = held();
        assert_eq!(held.arrived(&[9; 32], 1000, 500).unwrap(), Arrived::Fail);
        assert_eq!(held.arrived(&[1; 32], 999, 500).unwrap(), Arrived::Fail);
        assert_eq!(held.arrived(&[1; 32], 1000, 500).unwrap(), Arrived::Hold);
        let expected = HeldPayment { payment_hash: [1; 32], amount_msat: 1000, claim_deadline_height: 499 };
        assert_eq!(held.held(499).unwrap(), [expected]);
        assert_eq!(held.held(500).unwrap(), []);
        held.expire(500).unwrap();
        assert_eq!(held.get(&[1; 32]).unwrap().unwrap().state, State::Open);
        assert_eq!(held.arrived(&[1; 32], 1000, 700).unwrap(), Arrived::Hold);
        held.change(&[1; 32], |row| row.state = State::Settling { preimage: [3; 32] }).unwrap();
        assert_eq!(held.arrived(&[1; 32], 1000, 700).unwrap(), Arrived::Claim([3; 32]));
        held.change(&[1; 32], |row| row.state = State::Settled).unwrap();
        assert_eq!(held.arrived(&[1; 32], 1000, 700).unwrap(), Arrived::Fail);
    }
}

//! Making foreign notes our own: by reissuing them at once. Of several notes one may be spent already; the others are not
//! lost for that.

use federation_core::Amount;
use federation_core::module::Value;
use federation_mint::client::{Note, spend_input};
use federation_store::WriteBatch;

use super::step_id;
use crate::client::Client;
use crate::engine::Plan;
use crate::store::{OpId, TRANSACTIONS, TxRecord, TxState};
use crate::{ClientError, Result};

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Reissued: what came into the balance, and what it cost.
    Notes {
        /// Into the balance.
        amount: Amount,
        /// Fees of the federation.
        fees: Amount,
    },
    /// All of them were spent by somebody else.
    Spent,
    /// Refused for another reason.
    Refused {
        /// The stable code.
        code: String,
        /// The reason.
        reason: String,
    },
}

impl Client {
    /// A new try, unless one is under way; written together with `extra`.
    pub(super) async fn begin_take(
        &self,
        op: &OpId,
        notes: &[Note],
        extra: impl FnOnce(&mut WriteBatch, &TxRecord) -> Result<()> + Send,
    ) -> Result<TxRecord> {
        let mut round = 0u32;
        // An earlier try that was refused for a passing reason is over: the next round is a new try.
        while let Some(record) = TRANSACTIONS.get(self.db(), &step_id(op, STEP, round)).await? {
            let next = round.saturating_add(1);
            let passing = match &record.state {
                TxState::Rejected { code, .. } if code != crate::engine::DOUBLE_SPEND => true,
                TxState::Rejected { .. } => {
                    TRANSACTIONS.get(self.db(), &step_id(op, STEP, next)).await?.is_some()
                }
                _ => false,
            };
            if !passing {
                return Ok(record);
            }
            round = next;
        }
        self.begin(self.take_plan(op, notes, round), extra).await
    }

    /// The first try, unless there was one.
    pub(super) async fn begin_first_take(&self, op: &OpId, notes: &[Note]) -> Result<()> {
        if TRANSACTIONS.contains(self.db(), &step_id(op, STEP, 0)).await? {
            return Ok(());
        }
        self.begin(self.take_plan(op, notes, 0), |_, _| Ok(())).await.map(drop)
    }

    /// Goes on with whatever round it is at; may be called again after a crash.
    pub(super) async fn finish_take(&self, op: &OpId, notes: &[Note]) -> Result<Taken> {
        let mut left = notes.to_vec();
        for round in 0u32.. {
            match self.wait_transaction(step_id(op, STEP, round), true).await {
                Ok(record) => return taken(&record),
                Err(ClientError::Rejected { code, reason }) => {
                    let next = round.saturating_add(1);
                    if TRANSACTIONS.get(self.db(), &step_id(op, STEP, next)).await?.is_some() {
                        continue;
                    }
                    if code != crate::engine::DOUBLE_SPEND {
                        return Ok(Taken::Refused { code, reason });
                    }
                    let before = left.len();
                    left = self.unspent(left).await?;
                    if left.is_empty() {
                        return Ok(Taken::Spent);
                    }
                    if left.len() == before {
                        return Ok(Taken::Refused { code, reason });
                    }
                    match self.begin(self.take_plan(op, &left, next), |_, _| Ok(())).await {
                        Ok(_) => {}
                        // What is left is not worth its fees.
                        Err(ClientError::BelowFees(_)) => return Ok(Taken::Spent),
                        Err(error) => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(ClientError::Internal("too many rounds".to_owned()))
    }

    fn take_plan(&self, op: &OpId, notes: &[Note], round: u32) -> Plan {
        let mint = &self.inner.mint;
        let inputs = notes.iter().map(|note| {
            let (input, key) = spend_input(note, mint.id);
            (input, key, Value { amount: note.amount(), fee: mint.config.fee_in })
        });
        Plan::new(step_id(op, STEP, round), inputs.collect(), Vec::new())
    }

    async fn unspent(&self, notes: Vec<Note>) -> Result<Vec<Note>> {
        let mut unspent = Vec::new();
        for note in notes {
            if !self.is_spent(&note.nonce().serialize()).await? {
                unspent.push(note);
            }
        }
        Ok(unspent)
    }
}

const STEP: &str = "take";

fn taken(record: &TxRecord) -> Result<Taken> {
    let amount = Amount::checked_sum(record.issues.iter().map(|issue| issue.denomination.amount()));
    Ok(Taken::Notes { amount: amount.ok_or(ClientError::AmountTooLarge)?, fees: record.fees })
}

//! Putting it into a wallet whose notes have been found.
//!
//! An operation comes back in a state from which its steps find out the truth; nothing that was going on in another transaction
//! is taken for done or undone.

use std::collections::BTreeMap;

use federation_core::Amount;
use federation_store::WriteBatch;

use super::contents::{Contents, Saved};
use super::write::due;
use crate::client::Client;
use crate::ops::{Kind, Operation, deposit, invoice, put, send};
use crate::store::{BACKUP, Held, NOTES, OPERATIONS, OpId, PAYMENTS, RESTORED, SENT};
use crate::{ClientError, Result};

use super::Fetched;

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    pub operations: usize,
    /// What is in strings that may not have been received.
    pub sent: Amount,
}

type Own = BTreeMap<u64, ([u8; 32], Held)>;

impl Client {
    /// Writes it into the last commit of a restore. The caller holds the money lock.
    pub(crate) async fn apply_backup(&self, batch: &mut WriteBatch, fetched: &Fetched) -> Result<Applied> {
        BACKUP.put(batch, &(), &fetched.written);
        let Some(Contents { operations, .. }) = &fetched.contents else { return Ok(Applied::default()) };
        let notes = NOTES.all(batch).await?;
        let mut own: Own = notes.into_iter().map(|(nonce, held)| (held.index, (nonce, held))).collect();
        let mut operations: Vec<&Saved> = operations.iter().collect();
        // So that of several payments of an invoice the newest one counts.
        operations.sort_by_key(|saved| saved.operation.created);
        let mut applied = Applied::default();
        for saved in operations {
            let Saved { op, operation, numbers, txid } = saved;
            if OPERATIONS.get(batch, op).await?.is_some() {
                continue;
            }
            let kind = match operation.kind.clone() {
                Kind::Send(send) => {
                    let sent = hand_out(batch, &mut own, op, numbers);
                    let sent = Amount::checked_sum(sent).ok_or(ClientError::AmountTooLarge)?;
                    applied.sent = applied.sent.checked_add(sent).ok_or(ClientError::AmountTooLarge)?;
                    Kind::Send(send::Send { state: send_state(send.state, !sent.is_zero()), ..send })
                }
                Kind::Pay(pay) => {
                    PAYMENTS.put(batch, &pay.contract.payment_hash.0, op);
                    Kind::Pay(pay)
                }
                Kind::Invoice(mut made) => {
                    if let invoice::State::Claiming { .. } = made.state {
                        made.state = invoice::State::Waiting;
                    }
                    Kind::Invoice(made)
                }
                // The guardians know of it, and of whether it was claimed.
                Kind::Deposit(deposit) if deposit.state == deposit::State::Claiming => continue,
                other => other,
            };
            if let Some(txid) = txid {
                RESTORED.put(batch, op, txid);
            }
            put(batch, op, &Operation { kind, ..operation.clone() });
            applied.operations = applied.operations.saturating_add(1);
        }
        if applied.operations > 0 {
            due(batch);
        }
        Ok(applied)
    }
}

/// Sets the notes of a string aside, as far as they are unspent: they were handed out, and are not to be spent by accident.
fn hand_out(batch: &mut WriteBatch, own: &mut Own, op: &OpId, numbers: &[u64]) -> Vec<Amount> {
    let mut amounts = Vec::new();
    for (nonce, held) in numbers.iter().filter_map(|number| own.remove(number)) {
        NOTES.delete(batch, &nonce);
        SENT.put(batch, &(*op, nonce), &held);
        amounts.push(held.denomination.amount());
    }
    amounts
}

fn send_state(state: send::State, has_notes: bool) -> send::State {
    match state {
        send::State::Preparing | send::State::Ready | send::State::Reclaiming if has_notes => {
            send::State::Ready
        }
        send::State::Ready | send::State::Reclaiming => send::State::Claimed,
        send::State::Preparing => send::State::Failed {
            code: "not_made".to_owned(),
            reason: "the wallet was lost before the notes were made".to_owned(),
        },
        other => other,
    }
}

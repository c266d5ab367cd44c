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
use crate::ops::{Kind, Operation, deposit, invoice, put, send, withdraw};
use crate::restore::GAP;
use crate::store::{BACKUP, Held, NEXT, NOTES, OPERATIONS, PAYMENTS, RESERVED, RESTORED, SENT, counter};
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
            let Saved { op, operation, numbers, transaction } = saved;
            if OPERATIONS.get(batch, op).await?.is_some() {
                continue;
            }
            let kind = match operation.kind.clone() {
                Kind::Send(send) => {
                    let mut amounts = Vec::new();
                    for (nonce, held) in set_aside(batch, &mut own, numbers) {
                        SENT.put(batch, &(*op, nonce), &held);
                        amounts.push(held.denomination.amount());
                    }
                    let sent = Amount::checked_sum(amounts).ok_or(ClientError::AmountTooLarge)?;
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
            if let Some(transaction) = transaction {
                RESTORED.put(batch, op, transaction);
                // Whoever has it may hand it in: its numbers are not to be used by another one.
                let next = NEXT.get(batch, &counter::NOTES).await?.unwrap_or_default();
                let most = NEXT.get(batch, &counter::ISSUED).await?.unwrap_or_default().saturating_add(GAP);
                let after = transaction.asks.iter().max().map_or(0, |last| last.saturating_add(1));
                NEXT.put(batch, &counter::NOTES, &next.max(after.min(most)));
                if let Kind::Withdraw(withdraw::Withdraw { state: withdraw::State::Submitting, .. }) = &kind {
                    for (nonce, held) in set_aside(batch, &mut own, &transaction.spends) {
                        RESERVED.put(batch, &(*op, nonce), &held);
                    }
                }
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

/// Takes those of the notes that are unspent out of the balance: they are not to be spent by accident.
fn set_aside(batch: &mut WriteBatch, own: &mut Own, numbers: &[u64]) -> Vec<([u8; 32], Held)> {
    let taken: Vec<_> = numbers.iter().filter_map(|number| own.remove(number)).collect();
    taken.iter().for_each(|(nonce, _)| NOTES.delete(batch, nonce));
    taken
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

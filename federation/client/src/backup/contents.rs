//! What is in a backup.

use std::collections::BTreeSet;

use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::db::Reader;
use federation_core::encoding::encode;

use super::seal::MAX_CONTENT;
use crate::Result;
use crate::client::Client;
use crate::ops::{Kind, Operation, deposit, now, send, withdraw};
use crate::store::{
    Destination, HISTORY, OPEN, OPERATIONS, OpId, RESERVED, RESTORED, Remembered, SENT, TRANSACTIONS, TxState,
};

/// The most operations that are looked at.
const MAX_OPERATIONS: usize = 1000;
/// How much of the user's own note is kept, in characters.
const MAX_MEMO: usize = 200;

/// A backup's content.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Contents {
    /// When it was written, in milliseconds since 1970.
    pub written: u64,
    /// Operations.
    pub operations: Vec<Saved>,
}

/// An operation, with what of it is in other tables.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Saved {
    pub op: OpId,
    pub operation: Operation,
    /// Of a send: the numbers of its notes.
    pub numbers: Vec<u64>,
    /// Of a withdrawal: its transaction.
    pub transaction: Option<Remembered>,
}

impl Client {
    /// What there is to be saved now, with an operation that is about to begin.
    pub(super) async fn backup_contents(&self, about: Option<(OpId, Operation)>) -> Result<Contents> {
        let db = self.inner.db.view().await?;
        let open: BTreeSet<OpId> = OPEN.all(&*db).await?.into_iter().map(|(op, ())| op).collect();
        let order = HISTORY.all(&*db).await?.into_iter().rev().map(|((_, op), ())| op);
        let (first, rest): (Vec<OpId>, Vec<OpId>) = order.partition(|op| open.contains(op));
        let order: Vec<OpId> = first.into_iter().chain(rest).take(MAX_OPERATIONS).collect();
        let found = OPERATIONS.get_many(&*db, &order).await?;
        let found = order.into_iter().zip(found).filter_map(|(op, operation)| Some((op, operation?)));
        let written = u64::try_from(now().as_millis()).unwrap_or(u64::MAX);
        let mut contents = Contents { written, operations: Vec::new() };
        let mut size = encode(&contents).len();
        for (op, operation) in about.into_iter().chain(found) {
            let saved = saved(&*db, op, operation).await?;
            let with = size.saturating_add(encode(&saved).len());
            // A smaller one may still fit.
            if with <= MAX_CONTENT {
                size = with;
                contents.operations.push(saved);
            }
        }
        Ok(contents)
    }
}

async fn saved(db: &dyn Reader, op: OpId, mut operation: Operation) -> Result<Saved> {
    if let Some((end, _)) = operation.memo.char_indices().nth(MAX_MEMO) {
        operation.memo.truncate(end);
    }
    let (mut numbers, mut transaction) = (Vec::new(), None);
    match &mut operation.kind {
        Kind::Send(send) => match send.state {
            send::State::Preparing => {
                let record = TRANSACTIONS.get(db, &send::change_id(&op)).await?;
                let issues = record.into_iter().flat_map(|record| record.issues);
                numbers.extend(
                    issues
                        .filter(|issue| issue.destination == Destination::Send(op))
                        .map(|issue| issue.index),
                );
            }
            send::State::Ready | send::State::Reclaiming => {
                let sent = SENT.all_under(db, &op).await?;
                numbers.extend(sent.into_iter().map(|(_, held)| held.index));
            }
            send::State::Reclaimed { .. } | send::State::Claimed | send::State::Failed { .. } => {}
        },
        Kind::Withdraw(withdraw) if withdraw.state.is_open() => {
            let id = withdraw::transaction_id(&op);
            if let Some(record) = TRANSACTIONS.get(db, &id).await? {
                let reserved = RESERVED.all_under(db, &id).await?;
                transaction = Some(Remembered {
                    txid: record.txid,
                    spends: reserved.into_iter().map(|(_, held)| held.index).collect(),
                    asks: record.issues.iter().map(|issue| issue.index).collect(),
                });
                withdraw.state = match record.state {
                    TxState::Pending => withdraw.state.clone(),
                    TxState::Accepted | TxState::Done => withdraw::State::Accepted,
                    // What it would have spent is free again, and reserved no more.
                    TxState::Rejected { code, reason } => withdraw::State::Failed { code, reason },
                };
            } else {
                // One that came back with a backup itself.
                transaction = RESTORED.get(db, &op).await?;
            }
        }
        // It has done its work, and is long.
        Kind::Deposit(deposit) if deposit.state != deposit::State::Claiming => deposit.proof.clear(),
        _ => {}
    }
    Ok(Saved { op, operation, numbers, transaction })
}

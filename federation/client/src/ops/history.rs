//! What this wallet has done.

use federation_core::Amount;

use super::{Kind, Operation, deposit, invoice, pay, receive, send, withdraw};
use crate::client::Client;
use crate::store::{HISTORY, OPERATIONS, OpId};
use crate::{ClientError, Result};

/// One line of the history.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Entry {
    /// The operation's id, in hex.
    pub id: String,
    /// When it began, in seconds since 1970.
    pub time: u64,
    /// `send`, `receive`, `pay`, `invoice`, `deposit` or `withdraw`.
    pub kind: &'static str,
    /// What it is about.
    pub amount_msat: Amount,
    /// Where it stands, in a word.
    pub status: &'static str,
    /// Whether it goes on by itself.
    pub open: bool,
    /// What else there is to say: why it failed, a preimage, a Bitcoin transaction.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The user's own note.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub memo: String,
}

impl Client {
    /// All operations, the newest first.
    ///
    /// # Errors
    /// [`ClientError::Db`].
    pub async fn history(&self) -> Result<Vec<Entry>> {
        let order: Vec<OpId> =
            HISTORY.all(self.db()).await?.into_iter().rev().map(|((_, op), ())| op).collect();
        let operations = OPERATIONS.get_many(self.db(), &order).await?;
        Ok(order.iter().zip(operations).filter_map(|(op, found)| Some(entry(op, &found?))).collect())
    }

    /// The operation whose id begins with this text.
    ///
    /// # Errors
    /// [`ClientError::NoOperation`] if there is none, or more than one.
    pub async fn find_operation(&self, prefix: &str) -> Result<OpId> {
        let all = HISTORY.all(self.db()).await?.into_iter().map(|((_, op), ())| op);
        let mut found = all.filter(|op| hex::encode(op).starts_with(&prefix.to_ascii_lowercase()));
        match (found.next(), found.next()) {
            (Some(op), None) if !prefix.is_empty() => Ok(op),
            _ => Err(ClientError::NoOperation(prefix.to_owned())),
        }
    }
}

fn entry(op: &OpId, operation: &Operation) -> Entry {
    let none = String::new;
    let (kind, amount, (status, detail)) = match &operation.kind {
        Kind::Send(send) => (
            "send",
            send.amount,
            match &send.state {
                send::State::Preparing => ("preparing", none()),
                send::State::Ready => ("sent", none()),
                send::State::Reclaiming => ("reclaiming", none()),
                send::State::Reclaimed { .. } => ("reclaimed", none()),
                send::State::Claimed => ("claimed", none()),
                send::State::Failed { reason, .. } => ("failed", reason.clone()),
            },
        ),
        Kind::Receive(receive) => (
            "receive",
            receive.amount,
            match &receive.state {
                receive::State::Pending => ("pending", none()),
                receive::State::Done { .. } => ("received", none()),
                receive::State::Spent => ("failed", "spent before".to_owned()),
                receive::State::Failed { reason, .. } => ("failed", reason.clone()),
            },
        ),
        Kind::Pay(pay) => (
            "pay",
            pay.amount,
            match &pay.state {
                pay::State::Funding => ("funding", none()),
                pay::State::Waiting => ("pending", none()),
                pay::State::Paid { preimage } => ("paid", format!("preimage {preimage}")),
                pay::State::Refunding { reason, .. } => ("refunding", reason.clone()),
                pay::State::Refunded { reason } => ("refunded", reason.clone()),
                pay::State::Failed { reason, .. } => ("failed", reason.clone()),
            },
        ),
        Kind::Invoice(invoice) => (
            "invoice",
            invoice.amount,
            match &invoice.state {
                invoice::State::Waiting => ("waiting", invoice.invoice.clone()),
                invoice::State::Claiming { .. } => ("claiming", none()),
                invoice::State::Received { .. } => ("received", none()),
                invoice::State::Expired => ("expired", none()),
                invoice::State::Failed { reason } => ("failed", reason.clone()),
            },
        ),
        Kind::Deposit(deposit) => (
            "deposit",
            deposit.amount,
            match &deposit.state {
                deposit::State::Claiming => ("claiming", deposit.outpoint.clone()),
                deposit::State::Done { .. } => ("received", deposit.outpoint.clone()),
                deposit::State::Failed { reason, .. } => ("failed", reason.clone()),
            },
        ),
        Kind::Withdraw(withdraw) => (
            "withdraw",
            withdraw.amount,
            match &withdraw.state {
                withdraw::State::Submitting => ("submitting", withdraw.address.clone()),
                withdraw::State::Accepted => ("signing", withdraw.address.clone()),
                withdraw::State::Sent { txid } => ("sent", format!("transaction {txid}")),
                withdraw::State::Failed { reason, .. } => ("failed", reason.clone()),
            },
        ),
    };
    Entry {
        id: hex::encode(op),
        time: operation.created / 1000,
        kind,
        amount_msat: amount,
        status,
        open: operation.is_open(),
        detail,
        memo: operation.memo.clone(),
    }
}

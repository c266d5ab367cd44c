//! What a user asks for. Each operation is a state on disk and a step that leads to the next one; a step may be repeated
//! after a crash at any point, since all it does is idempotent: transactions by their operation's id, requests to gateways by
//! the contract's.
//!
//! | operation | states |
//! |---|---|
//! | [`send`] | preparing → ready → (reclaiming → reclaimed or claimed) |
//! | [`receive`] | pending → done or failed |
//! | [`pay`] | funding → waiting → paid, or refunding → refunded; failed |
//! | [`invoice`] | waiting → claiming → received, or expired |
//! | [`deposit`] | claiming → done or failed |
//! | [`withdraw`] | submitting → accepted → sent; failed |

mod contract;
pub mod deposit;
mod flow;
mod gateways;
pub mod history;
pub mod invoice;
mod lost;
pub mod pay;
pub mod receive;
pub mod send;
mod take;
pub mod withdraw;

pub(crate) use flow::put;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::encoding::tagged_hash;
use rand::RngCore as _;

use crate::store::OpId;

/// One thing that the user asked for.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Operation {
    /// When it began, in milliseconds since 1970.
    pub created: u64,
    /// The user's own note about it; never leaves the wallet.
    pub memo: String,
    /// What it is, and where it stands.
    pub kind: Kind,
}

/// The kinds of operation.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Kind {
    /// Notes handed out.
    Send(send::Send),
    /// Notes taken in.
    Receive(receive::Receive),
    /// An invoice paid.
    Pay(Box<pay::Pay>),
    /// An invoice made.
    Invoice(Box<invoice::Invoice>),
    /// Bitcoin paid in.
    Deposit(deposit::Deposit),
    /// Bitcoin paid out.
    Withdraw(withdraw::Withdraw),
}

impl Operation {
    /// Begins now.
    pub(crate) fn new(kind: Kind, memo: &str) -> Self {
        let created = u64::try_from(now().as_millis()).unwrap_or(u64::MAX);
        Self { created, memo: memo.to_owned(), kind }
    }

    /// Whether it goes on by itself.
    pub fn is_open(&self) -> bool {
        match &self.kind {
            Kind::Send(send) => send.state.is_open(),
            Kind::Receive(receive) => receive.state == receive::State::Pending,
            Kind::Pay(pay) => pay.state.is_open(),
            Kind::Invoice(invoice) => invoice.state.is_open(),
            Kind::Deposit(deposit) => deposit.state == deposit::State::Claiming,
            Kind::Withdraw(withdraw) => withdraw.state.is_open(),
        }
    }
}

/// The time since 1970.
pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A name that nobody has used.
pub(crate) fn fresh_id() -> OpId {
    let mut id = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut id);
    id
}

/// The name of a transaction that belongs to an operation: always the same for the same step.
pub(crate) fn step_id(op: &OpId, step: &str, round: u32) -> OpId {
    tagged_hash("cln-federation/client/step", &[op, &round.to_be_bytes(), step.as_bytes()])
}

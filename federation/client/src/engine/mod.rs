//! Transactions that survive any crash.
//!
//! ```text
//! begin    ONE commit: notes NOTES → RESERVED, indexes advanced, the signed transaction in TRANSACTIONS and UNFINISHED
//! drive    submit ─▶ accepted ─▶ outcomes ─▶ unblind      (repeated as often as it takes; all of it is idempotent)
//!                       └─ shares of T guardians ─▶ combine, unblind: an epoch earlier, where it works (early)
//! finish   ONE commit: new notes into NOTES or SENT, RESERVED emptied, UNFINISHED left
//!          refused: RESERVED → NOTES, but for those that somebody has spent
//! ```
//!
//! A crash before the first commit has done nothing; after it, [`Client::resume`] goes on.

mod balance;
mod begin;
mod drive;
mod early;
mod finish;
mod numbers;
mod tidy;
mod wait;

pub(crate) use begin::Plan;
pub(crate) use finish::DOUBLE_SPEND;

//! What every part of cln-federation shares: amounts, ids, transactions, the module traits, the
//! public configuration and invite codes. No I/O happens here.
//!
//! Read in this order: [`amount`], [`ids`], [`transaction`] (what users submit), [`module`] (who
//! processes it), [`db`] (what a module sees of the store), [`config`] and [`invite`] (how a client
//! gets to know a federation). [`encoding`] is the one canonical byte format of all of it.

pub mod amount;
pub mod api;
pub mod backup;
pub mod config;
pub mod db;
pub mod encoding;
#[cfg(test)]
mod foreign_tests;
pub mod ids;
pub mod invite;
pub mod module;
pub mod rest;
pub mod transaction;

pub use amount::Amount;
pub use ids::{FederationId, ModuleId, OutPoint, PeerId, TxId};
pub use transaction::{ConsensusItem, Input, Output, Transaction};

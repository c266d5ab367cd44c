//! The user's wallet as a library; the command line `ecash` and the gateway are built on it.
//!
//! ```text
//! Folder / Client::join, open
//!    │
//! ops: send receive pay invoice deposit withdraw      states on disk, each with the step to the next one
//!    │
//! engine: transact                                     notes reserved, signed, submitted, unblinded; survives any crash
//!    │                 │
//! store (SQLite)      api (guardians: one, any, f + 1 alike, all)      backup (what the words do not give, sealed)
//! ```
//!
//! [`Client`] is cheap to clone and to be shared. What it begins it finishes: at the latest when it is opened again.

pub mod api;
pub mod backup;
pub mod client;
mod engine;
pub mod error;
pub mod folder;
pub mod gateway;
mod join;
pub mod ops;
pub mod restore;
pub mod store;
mod tasks;
pub mod words;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use client::Client;
pub use error::{ClientError, Result};
pub use folder::Folder;
pub use ops::history::Entry;
pub use words::Words;

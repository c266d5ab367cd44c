//! The user's wallet as a library; the command line `ecash` and the gateway are built on it.
//!
//! Read in this order: [`client`] (the wallet), its
//! engine (transactions that survive any crash), its operations (send, receive, pay, …).

pub mod api;
pub mod client;
pub mod error;
pub mod gateway;

pub use client::Client;
pub use error::{ClientError, Result};

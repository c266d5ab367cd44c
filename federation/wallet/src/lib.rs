//! On-chain custody: the wallet module.
//!
//! The federation's bitcoin lie on `wsh(sortedmulti(T, …))` of all guardians. How they come and go:
//!
//! ```text
//! deposit     user's key ─▶ address (descriptor, tweaked by it) ─▶ a block, final for the federation
//!             ─▶ proof (transaction, Merkle path, height) ─▶ input of a federation transaction
//! withdrawal  output (script, amount, fee) ─▶ end of epoch: one PSBT for all that wait ─▶ T guardians' signatures
//!             as consensus items ─▶ broadcast ─▶ proof that it is in a final block ─▶ its change is a coin again
//! ```
//!
//! Read in this order: [`config`] (keys and parameters), [`descriptor`] (addresses and tweaks), [`body`] (inputs, outputs,
//! items, outcomes), [`proof`] (that a transaction is in a block). `server` (feature "server") has the rules and the
//! task that follows the chain, through the trait in `chain`; `client` (feature "client") makes keys, inputs and outputs.

pub mod address;
pub mod beacon;
pub mod body;
pub mod config;
pub mod descriptor;
pub mod proof;

#[cfg(feature = "server")]
pub mod bitcoind;
#[cfg(feature = "server")]
pub mod chain;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod server;
#[cfg(test)]
mod testing;

pub use body::{DepositInput, Item, Outcome, Quote, WithdrawalOutput};
pub use config::{ConfigError, WalletConfig, WalletParams, WalletSecret};
pub use descriptor::{Descriptor, Tweak};
#[cfg(feature = "server")]
pub use server::{Wallet, WalletError};

/// The kind of this module, and the name of its API: `/v1/modules/wallet/…`.
pub const KIND: &str = "wallet";

//! Swaps e-cash notes for Lightning payments.
//!
//! ```text
//! wallets ──REST──▶ api ──▶ swap (one persisted state machine each) ──▶ federation (the gateway's e-cash wallets)
//! operator ─REST──▶ admin ─▶ gateway                        └─────────▶ node (a Lightning node: LDK here, CLN in the plugin)
//! ```
//!
//! Read in this order: [`node`] (what a Lightning node is asked for), [`federation`] (what a federation is), [`store`] (tables),
//! [`swap`] (the state machines), [`gateway`] (what starts and joins it all), [`api`].

mod announce;
pub mod api;
mod config;
#[cfg(feature = "ldk")]
pub mod daemon;
mod error;
mod federation;
mod gateway;
#[cfg(feature = "ldk")]
pub mod ldk;
mod liquidity;
pub mod node;
mod store;
mod swap;
mod words;

pub use config::{Fees, GatewayConfig, Limits};
pub use error::GatewayError;
pub use gateway::{FederationSummary, Gateway, GatewayStatus};
pub use liquidity::{Deposit, Withdrawal};
pub use store::Totals;
pub use swap::{SwapCounts, SwapReport};

//! Payment contracts: money that waits for a preimage, so that nobody has to trust a Lightning gateway.
//!
//! ```text
//! pay      user ──FundOutgoing──▶ contract ──ClaimOutgoing(preimage)──▶ gateway, who has paid the invoice
//!                                     └──────RefundOutgoing───────────▶ user, after the expiry height or cancelled
//!
//! receive  gateway ──FundIncoming──▶ contract ──decryption shares──▶ preimage right ──ClaimIncoming──▶ user
//!            ▲ holds the HTLCs           │                                  └──▶ gateway settles the HTLCs
//!            └───────────ReclaimIncoming─┴── preimage wrong
//! ```
//!
//! [`contract`] has the two kinds of contract, [`message`] what transactions and guardians say about them, [`report`]
//! what a guardian tells about one, [`gateway`] how a gateway makes itself known, [`config`] the keys and parameters.
//! The guardian's side is `server` (feature `server`), pure functions for users and gateways are `client` (feature
//! `client`).

pub mod config;
pub mod contract;
pub mod gateway;
pub mod hash;
pub mod message;
pub mod report;

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod server;

#[cfg(test)]
mod tests;

pub use config::{LightningConfig, LightningFees, LightningSecret};
pub use contract::{Contract, IncomingContract, IncomingTerms, OutgoingContract};
pub use gateway::{Announcement, GatewayFees, GatewayInfo};
pub use hash::{ContractId, PaymentHash, Preimage};
pub use message::{LightningInput, LightningItem, LightningOutcome, LightningOutput};
pub use report::{ContractReport, ContractState};

/// The kind of this module in a federation's configuration, and the name of its API.
pub const KIND: &str = "lightning";

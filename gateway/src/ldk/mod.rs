//! An embedded Lightning node on LDK, as [`LightningNode`](crate::node::LightningNode).
//!
//! # The one rule: nothing leaves before it is on disk
//!
//! LDK as usually run writes each channel monitor at once and the channel manager a little later.
//! A process that is killed in between finds a monitor ahead of its manager at the next start,
//! and force-closes the channel. Here both go to disk in **one atomic commit** (`ledger`),
//! together with the node's own tables (payments, held payments, the on-chain wallet), and what
//! follows from a state leaves only after its commit:
//!
//! - messages to peers (`gate`),
//! - transactions to the network (`chain`),
//! - events, and so the answers to callers (`events`).
//!
//! Whenever the process dies, the next start finds the last commit, and nobody outside has ever
//! seen more. A payment that is `started` in the table but unknown to LDK at a start was never
//! sent, by the same argument: that is a proof, so it may be reported as failed.
//!
//! ```text
//! peers ─▶ PeerManager ─▶ ChannelManager ─▶ ChainMonitor ─▶ ledger (in memory)
//!              ▲                                               │ commit: log, fdatasync
//!              └──────────── gate ◀────────────────────────────┘
//! ```
//!
//! Read on in this order: `log`, `ledger`, `gate`, `chain`, `wallet`, `payments`,
//! `held`, `events`, `start`, `channels`, `node`.

mod builder;
mod chain;
mod channels;
mod config;
mod error;
mod events;
mod gate;
mod held;
mod ledger;
mod log;
mod logger;
mod node;
mod outbox;
mod payments;
mod received;
mod seed;
mod start;
mod store;
mod table;
mod tasks;
mod types;
mod wallet;

pub use channels::{ChannelSummary, OpenChannel};
pub use config::{BitcoindAuth, LdkConfig};
pub use error::LdkError;
pub use start::LdkNode;

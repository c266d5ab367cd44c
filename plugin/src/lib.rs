//! The Core Lightning plugin: a whole guardian of a federation and, if its operator wants, a Lightning
//! gateway, in the process that lightningd starts.
//!
//! ```text
//! lightningd ⇄ wire ─┬─ hook      HTLCs that are held: answers at once, waits for nobody
//!                    ├─ cln-plugin ─ rpc   the operator's commands
//!                    └─ role      guardian and gateway
//!                          └─ cln   lightningd's RPC: payments, invoices, chain, coins
//! ```
//!
//! [`wire`] and [`hook`] know nothing of network and database. They are to become a process of their own, the keeper,
//! that outlives the rest; until then everything is in [`app`].

pub mod app;
mod checked;
pub mod cln;
pub mod hook;
pub mod logging;
pub mod options;
pub mod role;
pub mod rpc;
pub mod wire;

//! The load generator: real guardians, and clients that reissue notes over REST without a pause.
//!
//! ```text
//! Setup ─▶ World (guardians, purse) ─▶ Clients ─ prepare, reissue ─▶ Done ┐
//!                                      Curve: what it needs at least ─────┼─▶ Report
//!                                      usage, disk: what it took ─────────┘
//! ```
//!
//! [`measures`] runs it several times for one table of values and bars; [`restoring`] is about wallets that come back.

pub mod clients;
pub mod curve;
pub mod disk;
pub mod early;
pub mod holder;
pub mod measures;
pub mod pairings;
pub mod parts;
pub mod report;
pub mod restoring;
pub mod run;
pub mod shape;
pub mod teller;
pub mod usage;
pub mod world;

// What the benchmarks of other crates measure with.
#[path = "../../../federation/consensus/benches/measures/cpu.rs"]
pub mod cpu;
#[path = "../../../federation/consensus/benches/measures/engines.rs"]
pub mod engines;
#[path = "../../../federation/tbs/benches/measures/table.rs"]
pub mod table;

pub use clients::Clients;
pub use curve::Curve;
pub use holder::Holder;
pub use report::Report;
pub use run::{Load, Options};
pub use shape::Shape;
pub use teller::Teller;
pub use world::{Setup, World};

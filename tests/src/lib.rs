//! The regtest harness: starts, watches and stops real processes on free ports in a temporary folder. The end-to-end
//! tests and the demo use it.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use federation_tests::{Bitcoind, Sandbox};
//!
//! let sandbox = Sandbox::new("example")?;
//! let bitcoind = Bitcoind::start(&sandbox).await?;
//! bitcoind.mine(1).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Sandbox`] is a temporary folder with everything in it; it is kept, and said where, when a test fails. A
//! [`Process`] ends with the value that stands for it, and with the process that started it, even by `kill -9`. Nothing
//! sleeps: [`wait_for`] asks for a condition until a deadline.

pub mod binaries;
pub mod bitcoind;
pub mod chaos;
pub mod costs;
pub mod ecash;
#[cfg(feature = "e2e")]
pub mod embedded_world;
pub mod federation;
pub mod lightningd;
mod lightningd_rpc;
pub mod lightningd_world;
pub mod load;
pub mod network;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod sandbox;
pub mod scenario;
pub mod setting;
mod spawn;
pub mod wait;

pub use bitcoind::{Bitcoind, FIRST_BLOCKS};
pub use ecash::Ecash;
pub use federation::Federation;
pub use lightningd::Lightningd;
pub use lightningd_world::LightningdWorld;
pub use network::Network;
pub use postgres::Postgres;
pub use process::{Process, Signal, Spec};
pub use sandbox::Sandbox;
pub use spawn::which;
pub use wait::wait_for;

//! A guardian: setup, main loop and REST API.
//!
//! [`Guardian::start`] opens the database and serves the API. Before the federation exists, the
//! [`setup`] steps are offered; afterwards, and at every later start at once, [`running`] is what
//! serves requests and [`epoch::main_loop`] what applies agreed batches.

pub mod api;
mod assemble;
pub mod backups;
pub mod epoch;
pub mod error;
pub mod guardian;
pub mod health;
pub mod history;
pub mod metrics;
pub mod running;
pub mod secrets;
pub mod setup;
pub mod state;
mod status;
#[cfg(test)]
mod stop_tests;

pub use error::GuardianError;
pub use guardian::{Guardian, GuardianConfig, SNAPSHOT_INTERVAL};
pub use history::backup::{Backup, KeySource};
pub use secrets::SealingKey;
pub use setup::{FederationParams, SetupPhase, SetupStatus};

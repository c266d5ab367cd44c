//! State snapshots: how a guardian whose state is lost, or that is too far behind, gets the federation's state from others.
//!
//! [`manifest`] is what one consists of, [`store`] takes and keeps them, [`exchange`] is what guardians say about them;
//! [`fetch`] gets one from the others as [`plan`] has it, [`restore`] puts it into the database, and [`recover`] is all of that.

pub mod exchange;
pub mod fetch;
pub mod mailbox;
pub mod manifest;
pub mod plan;
pub mod recover;
pub mod restore;
pub mod store;
#[cfg(test)]
mod tests;

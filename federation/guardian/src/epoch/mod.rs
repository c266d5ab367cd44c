//! An epoch, from the guardians' contributions to one commit.
//!
//! [`contribution`] is what a guardian proposes, [`pool`] where its transactions wait, [`verify`]
//! checks signatures and inputs without state, [`apply`] applies an agreed batch, and
//! [`main_loop`] drives it all.

pub mod apply;
pub mod contribution;
pub mod main_loop;
pub mod pool;
#[cfg(test)]
mod tests;
pub mod verify;
#[cfg(test)]
mod verify_tests;

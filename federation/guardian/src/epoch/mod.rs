//! An epoch, from the guardians' contributions to one commit.
//!
//! [`contribution`] is what a guardian proposes, [`pool`] where its transactions wait (its rules are in [`entries`]), [`verify`]
//! checks signatures and inputs without state, [`apply`] applies an agreed batch, and
//! [`main_loop`] drives it all.

pub mod apply;
pub mod contribution;
pub mod entries;
#[cfg(test)]
mod entries_tests;
pub mod main_loop;
pub mod pool;
#[cfg(test)]
mod pool_tests;
#[cfg(test)]
mod tests;
pub mod verify;
#[cfg(test)]
mod verify_tests;

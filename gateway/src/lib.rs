//! Swaps e-cash notes for Lightning payments.

#[cfg(feature = "ldk")]
pub mod ldk;
pub mod node;

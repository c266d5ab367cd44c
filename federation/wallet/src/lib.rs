//! On-chain custody: the wallet module.

#[cfg(feature = "server")]
pub mod chain;

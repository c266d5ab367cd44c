//! Flows of whole wallets over stores in memory and a made-up chain: everything but real signatures checks by a node, which
//! `tests/regtest.rs` has.

mod blocks;
mod deposits;
mod encodings;
mod federation;
mod withdrawals;

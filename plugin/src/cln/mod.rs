//! Core Lightning as the gateway's Lightning node and as the guardian's view of the chain.

pub mod asked;
pub mod chain;
pub mod invoice;
pub mod node;
pub mod pay;
pub mod rpc;
pub mod wallet;

pub use asked::AskedFile;
pub use chain::ClnChain;
pub use node::ClnNode;
pub use rpc::{CallError, Rpc};

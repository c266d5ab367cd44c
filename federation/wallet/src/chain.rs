//! Where a guardian sees the Bitcoin chain: one trait, so that any node will do.
//!
//! Two backends implement it: [`crate::bitcoind`] (Bitcoin Core's JSON-RPC) and the plugin's, over lightningd's
//! `getchaininfo`, `getrawblockbyheight`, `estimatefees` and `sendrawtransaction`. What they have in common is little:
//! blocks are asked for by height, there is no mempool and no push. Nothing an implementation answers is agreed state:
//! it only becomes part of this guardian's votes.

use async_trait::async_trait;
use bitcoin::{Block, Network, Transaction};

/// The end of the chain, as the node has it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// The height of the last block whose content the node holds.
    pub height: u32,
    /// Whether the node itself says that it is still behind (initial block download).
    pub syncing: bool,
}

/// Why the chain could not be asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ChainError {
    /// The node doesn't answer. It is asked again at the next poll.
    #[error("the Bitcoin node cannot be reached ({0}): check that it runs and that its address is right")]
    Unreachable(String),
    /// The node refuses our credentials.
    #[error("the Bitcoin node refuses the credentials ({0}): check the cookie file or user and password")]
    Credentials(String),
    /// The node follows another network than the federation.
    #[error(
        "the Bitcoin node follows {node}, but the federation is on {federation}: use a node of {federation}"
    )]
    WrongNetwork {
        /// The node's network.
        node: Network,
        /// The federation's.
        federation: Network,
    },
    /// The node does not keep that block (pruned).
    #[error(
        "the Bitcoin node no longer has block {0}: it is pruned; use one that keeps blocks since the federation's birthday"
    )]
    Pruned(u32),
    /// The node answered with an error.
    #[error("the Bitcoin node answered with an error: {0}")]
    Node(String),
    /// The node's answer makes no sense.
    #[error("the Bitcoin node's answer cannot be read: {0}")]
    Malformed(String),
}

/// A node of the Bitcoin network.
///
/// Every call may take as long as the node does; the wallet calls from a background task only.
#[async_trait]
pub trait ChainSource: Send + Sync + 'static {
    /// Whom we ask, for logs and alarms, without secrets: `bitcoind at 127.0.0.1:8332`.
    fn describe(&self) -> String;

    /// The network it follows.
    async fn network(&self) -> Result<Network, ChainError>;

    /// The end of its best chain.
    async fn tip(&self) -> Result<Tip, ChainError>;

    /// The block at a height of its best chain; `None` beyond the tip.
    async fn block(&self, height: u32) -> Result<Option<Block>, ChainError>;

    /// The fee rate in sat per 1,000 vbytes for confirmation within `target` blocks; `None` while it has no estimate.
    async fn fee_rate(&self, target: u16) -> Result<Option<u64>, ChainError>;

    /// Hands a signed transaction to the network. That the node knows it already, in its mempool or in a block, is a success.
    async fn broadcast(&self, transaction: &Transaction) -> Result<(), ChainError>;
}

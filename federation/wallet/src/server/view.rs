//! What this guardian sees of the chain, in memory: written by the follower, read by `propose` and the API.
//!
//! None of it is agreed state. The last part is the other way round: what the follower needs to know of the agreed state.

use std::collections::BTreeMap;

use bitcoin::block::Header;
use bitcoin::{BlockHash, OutPoint, Transaction, Txid};

use crate::body::{BlockHeader, MAX_HEADERS};
use crate::chain::Tip;
use crate::proof::TxProof;

/// How many headers below the final one are kept, to notice reorganisations.
const KEPT: u32 = 1_000;

/// One guardian's view.
#[derive(Default)]
pub(super) struct View {
    /// The end of our node's chain.
    pub tip: Option<Tip>,
    /// The headers of the blocks that we hold, without a gap.
    pub headers: BTreeMap<u32, Header>,
    /// Our node's estimate, sat per 1,000 vbytes.
    pub fee_rate: Option<u64>,
    /// Blocks that hold transactions of the federation.
    pub proofs: BTreeMap<Txid, TxProof>,
    /// Why the node could not be asked, as long as it can't.
    pub trouble: Option<String>,
    /// The end of the federation's final chain.
    pub last_final: Option<(u32, BlockHash)>,
    /// The federation's unconfirmed transactions.
    pub active: BTreeMap<Txid, Pending>,
}

/// A transaction of the federation that is not final.
#[derive(Clone)]
pub(super) struct Pending {
    /// What it spends; whoever sees it spent has found the transaction.
    pub spends: Option<OutPoint>,
    /// Complete, so it is handed to the network.
    pub signed: Option<Transaction>,
    /// The final height when it was made: it is in no block up to there.
    pub made_at: u32,
}

impl View {
    /// The headers from a height on that are `finality` deep, at most as many as fit into a vote.
    pub fn deep_headers(&self, from: u32, finality: u32) -> Vec<BlockHeader> {
        let Some(tip) = self.tip else { return Vec::new() };
        let Some(deep) = tip.height.saturating_add(1).checked_sub(finality) else { return Vec::new() };
        (from..=deep)
            .take(MAX_HEADERS)
            .map_while(|height| self.headers.get(&height))
            .map(|header| BlockHeader(*header))
            .collect()
    }

    /// Takes over what the agreed state is now.
    pub fn agreed(&mut self, last_final: Option<(u32, BlockHash)>, active: BTreeMap<Txid, Pending>) {
        self.last_final = last_final;
        self.proofs.retain(|txid, _| active.contains_key(txid));
        self.active = active;
        if let Some((height, _)) = last_final {
            self.headers = self.headers.split_off(&height.saturating_sub(KEPT));
        }
    }

    /// Forgets a block that is no longer in our node's chain.
    pub fn drop_block(&mut self, height: u32) {
        self.headers.remove(&height);
        self.proofs.retain(|_, proof| proof.height != height);
    }
}

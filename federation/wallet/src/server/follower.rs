//! The task that follows our node's chain: the only place where the module waits for a Bitcoin node.
//!
//! Each poll takes the blocks that are new, looks through each once, and leaves what it saw in the view and among the watched
//! deposits; then it hands the federation's signed transactions to the network. A node that fails is asked again at the
//! next poll; as long as it fails, the view says so and no new block is voted for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bitcoin::{Block, Network, Txid};
use federation_core::db::{DbError, NamespacedReader};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Wallet;
use super::blocks::last_final;
use crate::chain::ChainError;
use crate::proof::TxProof;

/// How far back blocks are looked through again for newly registered keys: users register before they pay.
pub(super) const RESCAN_BLOCKS: u32 = 36;
/// The target of the fee estimate, in blocks.
const FEE_TARGET: u16 = 6;
/// Blocks between two notes of how far we are, when they bring nothing.
const NOTE_EVERY: u32 = 100;

/// What goes wrong in a poll.
#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// How often things are done.
#[derive(Clone, Copy)]
struct Pace {
    poll: Duration,
    fees: Duration,
    broadcast: Duration,
    rescan: Duration,
}

impl Pace {
    fn of(network: Network) -> Self {
        if network == Network::Regtest {
            let second = Duration::from_secs(1);
            Self { poll: second / 2, fees: 5 * second, broadcast: second, rescan: second / 2 }
        } else {
            let second = Duration::from_secs(1);
            Self { poll: 5 * second, fees: 60 * second, broadcast: 60 * second, rescan: 60 * second }
        }
    }
}

/// Where the task stands.
pub(super) struct Follower {
    pace: Pace,
    network_checked: bool,
    /// The height of the next block to look through.
    next: u32,
    fees_at: Option<Instant>,
    rescan_at: Option<Instant>,
    /// How many keys were watched at the last look back, in this run or an earlier one.
    keys_seen: usize,
    broadcast_at: BTreeMap<Txid, Instant>,
    /// Transactions that earlier blocks were looked through for.
    searched: BTreeSet<Txid>,
}

/// Whether the node is of the federation's network.
pub(super) async fn check_network(wallet: &Wallet) -> Result<(), ChainError> {
    let (node, federation) = (wallet.source.network().await?, wallet.config.network);
    if node == federation { Ok(()) } else { Err(ChainError::WrongNetwork { node, federation }) }
}

/// Whether a deadline has passed; sets the next one if so.
fn due(at: &mut Option<Instant>, every: Duration) -> bool {
    let now = Instant::now();
    if at.is_some_and(|at| now < at) {
        return false;
    }
    *at = Some(now + every);
    true
}

impl Follower {
    /// Starts where the last run ended, or where the federation's final chain does, whichever is lower: less than the
    /// finality below it a reorganisation may have happened meanwhile.
    pub async fn new(wallet: &Wallet, state: &NamespacedReader) -> Result<Self, DbError> {
        let open = wallet.next_height(last_final(state).await?);
        let scanned =
            wallet.watch.scanned().await?.map_or(wallet.config.birthday, |height| height.saturating_add(1));
        let oldest = wallet.view().active.values().map(|pending| pending.made_at).min();
        let from =
            open.min(scanned).saturating_sub(wallet.config.params.finality).min(oldest.unwrap_or(u32::MAX));
        Ok(Self {
            pace: Pace::of(wallet.config.network),
            network_checked: false,
            next: from.max(wallet.config.birthday),
            fees_at: None,
            rescan_at: None,
            keys_seen: wallet.watch.seen().await?,
            broadcast_at: BTreeMap::new(),
            searched: wallet.view().active.keys().copied().collect(),
        })
    }

    /// Polls until the module is dropped.
    pub async fn run(mut self, wallet: Weak<Wallet>) {
        loop {
            let Some(wallet) = wallet.upgrade() else { return };
            let outcome = self.poll(&wallet).await;
            let trouble = outcome.err().map(|error| match error {
                PollError::Db(error) => format!("deposits cannot be recorded: {error}"),
                PollError::Chain(error) => error.to_string(),
            });
            {
                let mut view = wallet.view();
                if view.trouble != trouble {
                    match &trouble {
                        Some(trouble) => warn!("{}: {trouble}", wallet.source.describe()),
                        None => info!("{} answers again", wallet.source.describe()),
                    }
                    view.trouble = trouble;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.pace.poll) => {}
                () = wallet.nudge.notified() => {}
            }
        }
    }

    async fn poll(&mut self, wallet: &Arc<Wallet>) -> Result<(), PollError> {
        if !self.network_checked {
            check_network(wallet).await?;
            self.network_checked = true;
        }
        let mut news = false;
        if due(&mut self.fees_at, self.pace.fees) {
            match wallet.source.fee_rate(FEE_TARGET).await {
                Ok(rate) => wallet.view().fee_rate = rate,
                // The last one still holds: the others' votes are there too. Blocks matter more.
                Err(error) => tracing::debug!("no fee estimate: {error}"),
            }
        }
        news |= self.follow(wallet).await?;
        self.look_back(wallet).await?;
        self.broadcast(wallet).await;
        if news {
            (wallet.wake)();
        }
        Ok(())
    }

    /// Takes the blocks that are new. Whether there were any.
    async fn follow(&mut self, wallet: &Arc<Wallet>) -> Result<bool, PollError> {
        let tip = wallet.source.tip().await?;
        let mut news = false;
        while self.next > tip.height.saturating_add(1) && self.next > wallet.config.birthday {
            self.step_back(wallet).await?;
        }
        wallet.view().tip = Some(tip);
        while self.next <= tip.height {
            let Some(block) = wallet.source.block(self.next).await? else { break };
            let parent =
                self.next.checked_sub(1).and_then(|height| wallet.view().headers.get(&height).copied());
            if parent.is_some_and(|parent| parent.block_hash() != block.header.prev_blockhash) {
                self.step_back(wallet).await?;
                continue;
            }
            let note = self.next == tip.height || self.next.is_multiple_of(NOTE_EVERY);
            scan(wallet, &block, self.next, note).await?;
            wallet.view().headers.insert(self.next, block.header);
            self.next += 1;
            news = true;
            // A long way to catch up: others may be waiting for our votes.
            if note {
                (wallet.wake)();
            }
        }
        Ok(news)
    }

    /// The last block is no longer in the node's chain.
    async fn step_back(&mut self, wallet: &Wallet) -> Result<(), DbError> {
        self.next = self.next.saturating_sub(1);
        wallet.view().drop_block(self.next);
        wallet.watch.drop_block(self.next).await
    }

    /// Looks through earlier blocks once more, for keys and transactions that were not known when they came.
    async fn look_back(&mut self, wallet: &Arc<Wallet>) -> Result<(), PollError> {
        let keys = wallet.watch.len();
        let mut from = (keys > self.keys_seen).then(|| self.next.saturating_sub(RESCAN_BLOCKS));
        let active: Vec<(Txid, u32)> =
            wallet.view().active.iter().map(|(txid, pending)| (*txid, pending.made_at)).collect();
        self.searched.retain(|txid| active.iter().any(|(known, _)| known == txid));
        // A transaction is normally known before it is in a block; one that stays unconfirmed this long was perhaps not.
        let patience = wallet.config.params.finality.saturating_mul(2).saturating_add(4);
        let late: Vec<(Txid, u32)> = active
            .into_iter()
            .filter(|(txid, made_at)| {
                !self.searched.contains(txid)
                    && !wallet.view().proofs.contains_key(txid)
                    && made_at.saturating_add(patience) < self.next
            })
            .collect();
        if let Some(earliest) = late.iter().map(|(_, made_at)| *made_at).min() {
            from = Some(from.map_or(earliest, |from| from.min(earliest)));
        }
        let Some(from) = from else { return Ok(()) };
        if !due(&mut self.rescan_at, self.pace.rescan) {
            return Ok(());
        }
        for height in from.max(wallet.config.birthday)..self.next {
            let Some(block) = wallet.source.block(height).await? else { break };
            // On another branch by now: the next poll steps back and takes it.
            let known = wallet.view().headers.get(&height).copied();
            if known.is_some_and(|known| known != block.header) {
                break;
            }
            scan(wallet, &block, height, false).await?;
        }
        if keys > self.keys_seen {
            wallet.watch.set_seen(keys).await?;
            self.keys_seen = keys;
        }
        self.searched.extend(late.into_iter().map(|(txid, _)| txid));
        if !wallet.view().proofs.is_empty() {
            (wallet.wake)();
        }
        Ok(())
    }

    /// Hands signed transactions to the network, again and again until they are in a block.
    async fn broadcast(&mut self, wallet: &Arc<Wallet>) {
        let waiting: Vec<_> = {
            let view = wallet.view();
            let open = view.active.iter().filter(|(txid, _)| !view.proofs.contains_key(*txid));
            open.filter_map(|(txid, pending)| Some((*txid, pending.signed.clone()?))).collect()
        };
        self.broadcast_at.retain(|txid, _| waiting.iter().any(|(known, _)| known == txid));
        for (txid, transaction) in waiting {
            let first = !self.broadcast_at.contains_key(&txid);
            let mut at = self.broadcast_at.get(&txid).copied();
            if !due(&mut at, self.pace.broadcast) {
                continue;
            }
            self.broadcast_at.extend(at.map(|at| (txid, at)));
            match wallet.source.broadcast(&transaction).await {
                Ok(()) if first => info!("transaction {txid} is handed to the network"),
                Ok(()) => {}
                Err(error) if first => warn!("transaction {txid} is not accepted yet: {error}"),
                Err(error) => tracing::debug!("transaction {txid} is not accepted yet: {error}"),
            }
        }
    }
}

/// Looks through a block: deposits to watched keys, and transactions of the federation.
async fn scan(wallet: &Wallet, block: &Block, height: u32, note: bool) -> Result<(), DbError> {
    wallet.watch.scan(&wallet.descriptor, block, height, note).await?;
    let mut view = wallet.view();
    let wanted: BTreeMap<_, _> =
        view.active.iter().filter_map(|(txid, pending)| Some((pending.spends?, *txid))).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    for (position, transaction) in block.txdata.iter().enumerate() {
        let spends = transaction.input.iter().find_map(|input| wanted.get(&input.previous_output));
        let Some(txid) = spends else { continue };
        if transaction.compute_txid() == *txid {
            view.proofs.extend(TxProof::new(block, height, position).map(|proof| (*txid, proof)));
        }
    }
    Ok(())
}

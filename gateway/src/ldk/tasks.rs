//! What runs all the time: LDK's background work, the chain, connections.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Transaction;
use lightning::chain::{BestBlock, Listen};
use lightning::ln::msgs::SocketAddress;
use lightning_background_processor::{
    GossipSync, NO_LIQUIDITY_MANAGER, process_events_async_with_kv_store_sync,
};
use lightning_block_sync::SpvClient;
use lightning_block_sync::poll::{ChainPoller, ChainTip};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::builder::{ChainStart, Parts, now};
use super::channels;
use super::error::LdkError;
use super::events;
use super::log::Batch;

/// Starts all tasks; they end when `stop` becomes true.
pub(super) fn spawn(
    parts: &Arc<Parts>,
    chain: ChainStart,
    listener: TcpListener,
    stop: &watch::Sender<bool>,
) -> (JoinHandle<()>, Vec<JoinHandle<()>>) {
    let ChainStart { tip, cache, broadcasts } = chain;
    let background = tokio::spawn(background(parts.clone(), stop.subscribe()));
    let others = vec![
        tokio::spawn(follow(parts.clone(), tip, cache)),
        tokio::spawn(broadcast(parts.clone(), broadcasts)),
        tokio::spawn(accept(parts.clone(), listener)),
        tokio::spawn(arrivals(parts.clone())),
        tokio::spawn(reconnect(parts.clone())),
        tokio::spawn(refresh(parts.clone())),
    ];
    (background, others)
}

/// LDK's timers, events, and the manager's regular commit.
async fn background(parts: Arc<Parts>, stop: watch::Receiver<bool>) {
    let sleeper = |duration: Duration| {
        let mut stop = stop.clone();
        let parts = parts.clone();
        Box::pin(async move {
            tokio::select! {
                () = tokio::time::sleep(duration) => false,
                _ = stop.wait_for(|stop| *stop) => true,
                _ = parts.ledger.failed() => true,
            }
        })
    };
    let result = process_events_async_with_kv_store_sync(
        parts.store.clone(),
        |event| {
            let parts = parts.clone();
            async move { events::handle(&parts, event) }
        },
        parts.monitor.clone(),
        parts.manager.clone(),
        Some(parts.onion.clone()),
        GossipSync::p2p(parts.gossip.clone()),
        parts.peers.clone(),
        NO_LIQUIDITY_MANAGER,
        Some(parts.sweeper.clone()),
        parts.logger.clone(),
        Some(parts.scorer.clone()),
        sleeper,
        false,
        || Some(now()),
    )
    .await;
    if let Err(error) = result {
        let _ = parts.ledger.fail(format!("LDK's background work ended: {error}"));
    } else if !*stop.borrow() {
        let _ = parts.ledger.fail("LDK's background work ended".to_owned());
    }
}

/// Looks at HTLCs as they come in.
///
/// LDK keeps them back for 50 ms on average, 2 s after a start, so that nobody can tell by time
/// which forwarded payment is which. That is a router's concern; here somebody waits.
async fn arrivals(parts: Arc<Parts>) {
    loop {
        parts.arrivals.notified().await;
        parts.manager.process_pending_htlc_forwards();
        parts.peers.process_events();
    }
}

/// All that must hear of blocks.
struct Listeners(Arc<Parts>);

impl Listen for Listeners {
    fn block_connected(&self, block: &bitcoin::Block, height: u32) {
        let Listeners(parts) = self;
        parts.manager.block_connected(block, height);
        parts.monitor.block_connected(block, height);
        parts.wallet.block_connected(block, height);
        parts.sweeper.block_connected(block, height);
    }

    fn filtered_block_connected(
        &self,
        header: &bitcoin::block::Header,
        txs: &lightning::chain::transaction::TransactionData,
        height: u32,
    ) {
        let Listeners(parts) = self;
        parts.manager.filtered_block_connected(header, txs, height);
        parts.monitor.filtered_block_connected(header, txs, height);
        parts.wallet.filtered_block_connected(header, txs, height);
        parts.sweeper.filtered_block_connected(header, txs, height);
    }

    fn blocks_disconnected(&self, fork: BestBlock) {
        let Listeners(parts) = self;
        parts.manager.blocks_disconnected(fork);
        parts.monitor.blocks_disconnected(fork);
        parts.wallet.blocks_disconnected(fork);
        parts.sweeper.blocks_disconnected(fork);
    }
}

/// Follows the chain.
async fn follow(
    parts: Arc<Parts>,
    tip: lightning_block_sync::poll::ValidatedBlockHeader,
    mut cache: lightning_block_sync::UnboundedCache,
) {
    let poller = ChainPoller::new(&*parts.bitcoind, parts.config.network);
    let listeners = Listeners(parts.clone());
    let mut client = SpvClient::new(tip, poller, &mut cache, &listeners);
    let mut ticks = tokio::time::interval(parts.config.poll_interval());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut silent = false;
    loop {
        ticks.tick().await;
        match client.poll_best_tip().await {
            Ok((ChainTip::Better(_) | ChainTip::Worse(_), true)) => {
                if let Err(error) = new_height(&parts).await {
                    tracing::error!(%error, "after a new block");
                }
            }
            Ok(_) => {}
            Err(error) => {
                if !silent {
                    tracing::warn!(error = ?error.into_inner(), "Bitcoin Core is not reachable");
                }
                silent = true;
                continue;
            }
        }
        silent = false;
    }
}

async fn new_height(parts: &Parts) -> Result<(), LdkError> {
    parts.wallet.persist()?;
    parts.ledger.commit(Batch::new())?;
    let height = parts.manager.current_best_block().height;
    parts.held.expire(height)?;
    parts.height.send_replace(height);
    // LDK's own timer does it each 30 s; what has become spendable is so by a block.
    let _ = parts.sweeper.regenerate_and_broadcast_spend_if_necessary();
    parts.monitor.archive_fully_resolved_channel_monitors();
    parts.outbox.send_all().await
}

/// Sends LDK's transactions, each after the commit of what it follows from.
async fn broadcast(parts: Arc<Parts>, mut queue: mpsc::UnboundedReceiver<Vec<Transaction>>) {
    while let Some(txs) = queue.recv().await {
        if parts.ledger.commit(Batch::new()).is_err() {
            return;
        }
        // Until Bitcoin Core answers; what it refuses LDK brings again, with a higher fee.
        while let Err(error) = send(&parts, &txs).await {
            if parts.ledger.failure().is_some() {
                return;
            }
            tracing::warn!(%error, "a transaction waits");
            tokio::time::sleep(parts.config.poll_interval()).await;
        }
    }
}

/// Sends transactions that belong together, and lets the wallet take note of what was accepted.
async fn send(parts: &Parts, txs: &[Transaction]) -> Result<(), LdkError> {
    // A package may be refused for a parent that is there already: then one by one.
    let package = txs.len() > 1 && parts.bitcoind.send_package(txs).await?.is_none();
    for tx in txs {
        let refused = if package { None } else { parts.bitcoind.send_transaction(tx).await? };
        match refused {
            None => parts.wallet.seen(tx)?,
            Some(reason) => tracing::warn!(txid = %tx.compute_txid(), reason, "not broadcast"),
        }
    }
    Ok(())
}

/// Takes connections from peers.
async fn accept(parts: Arc<Parts>, listener: TcpListener) {
    loop {
        match listener.accept().await.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => {
                let connection = lightning_net_tokio::setup_inbound(parts.peers.clone(), stream);
                tokio::spawn(connection);
            }
            Err(error) => {
                // Such as too many open files: it passes.
                tracing::warn!(%error, "a connection failed");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// Connects to peers with whom there are channels.
async fn reconnect(parts: Arc<Parts>) {
    let mut ticks = tokio::time::interval(parts.config.reconnect_interval());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for peer in channels::lost_peers(&parts) {
            if let Some(address) = channels::known_address(&parts, &peer) {
                // Not reachable is nothing new: the next tick tries again.
                let _ = channels::connect(&parts, peer, address).await;
            }
        }
    }
}

/// Fee rates, and the node's announcement.
async fn refresh(parts: Arc<Parts>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(60));
    let mut heights = parts.height.subscribe();
    let addresses: Vec<_> =
        parts.config.announce.iter().map(|address| SocketAddress::from(*address)).collect();
    let mut alias = [0; 32];
    for (to, from) in alias.iter_mut().zip(parts.config.alias.bytes()) {
        *to = from;
    }
    loop {
        tokio::select! {
            _ = ticks.tick() => parts.fees.refresh(&parts.bitcoind).await,
            changed = heights.changed() => if changed.is_err() { return },
        }
        if parts.manager.list_channels().iter().any(|c| c.is_announced && c.is_channel_ready) {
            parts.peers.broadcast_node_announcement([0x3d, 0x85, 0xc6], alias, addresses.clone());
        }
    }
}

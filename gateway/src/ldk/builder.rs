//! Puts the node together from what is on disk, and brings it to the chain's tip.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::{BlockHash, Transaction};
use lightning::chain::channelmonitor::ChannelMonitor;
use lightning::chain::{BestBlock, Filter, Listen};
use lightning::events::bump_transaction::sync::{BumpTransactionEventHandlerSync, WalletSync};
use lightning::io::Cursor;
use lightning::ln::channelmanager::{ChainParameters, ChannelManagerReadArgs};
use lightning::ln::peer_handler::{IgnoringMessageHandler, MessageHandler};
use lightning::routing::scoring::{ProbabilisticScoringDecayParameters, ProbabilisticScoringFeeParameters};
use lightning::sign::{EntropySource as _, InMemorySigner, KeysManager, NodeSigner as _};
use lightning::util::persist::{
    KVStoreSync as _, NETWORK_GRAPH_PERSISTENCE_KEY, OUTPUT_SWEEPER_PERSISTENCE_KEY, SCORER_PERSISTENCE_KEY,
};
use lightning::util::ser::ReadableArgs;
use lightning_block_sync::poll::ValidatedBlockHeader;
use lightning_block_sync::{UnboundedCache, init};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::chain::{Bitcoind, Broadcaster, Fees};
use super::config::LdkConfig;
use super::error::LdkError;
use super::gate::Gate;
use super::held::{Held, State};
use super::ledger::{Ledger, MANAGER, MONITORS};
use super::log::Batch;
use super::logger::Logger;
use super::outbox::Outbox;
use super::payments::Payments;
use super::received::Received;
use super::seed;
use super::store::Store;
use super::types::{
    ChainMonitor, ChannelManager, Gossip, Graph, MessageRouter, OnionMessenger, PeerManager, Router, Scorer,
    Sweeper,
};
use super::wallet::Onchain;

pub(super) type Bumper = BumpTransactionEventHandlerSync<
    Arc<Broadcaster>,
    Arc<WalletSync<Arc<Onchain>, Arc<Logger>>>,
    Arc<KeysManager>,
    Arc<Logger>,
>;

/// The node's parts.
pub(super) struct Parts {
    pub config: LdkConfig,
    pub bitcoind: Arc<Bitcoind>,
    pub fees: Arc<Fees>,
    pub logger: Arc<Logger>,
    pub ledger: Arc<Ledger>,
    pub store: Arc<Store>,
    pub wallet: Arc<Onchain>,
    pub outbox: Outbox,
    pub scorer: Arc<RwLock<Scorer>>,
    pub gossip: Arc<Gossip>,
    pub monitor: Arc<ChainMonitor>,
    pub manager: Arc<ChannelManager>,
    pub onion: Arc<OnionMessenger>,
    /// HTLCs came in that LDK keeps back for a while.
    pub arrivals: Arc<Notify>,
    pub peers: Arc<PeerManager>,
    pub sweeper: Arc<Sweeper>,
    pub bumper: Bumper,
    pub payments: Payments,
    pub held: Held,
    pub received: Received,
    /// Who waits for a channel that is being opened, by its `user_channel_id`.
    pub opening: Mutex<HashMap<u128, oneshot::Sender<Result<(), String>>>>,
    /// The height that everything has been told of.
    pub height: watch::Sender<u32>,
}

/// What the chain task goes on from.
pub(super) struct ChainStart {
    pub tip: ValidatedBlockHeader,
    pub cache: UnboundedCache,
    pub broadcasts: mpsc::UnboundedReceiver<Vec<Transaction>>,
}

fn stored(what: &'static str) -> impl Fn(lightning::ln::msgs::DecodeError) -> LdkError {
    move |error| LdkError::Stored { what, reason: error.to_string() }
}

pub(super) fn now() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Loads or makes everything; no task runs yet, and no peer is connected.
pub(super) async fn build(config: LdkConfig) -> Result<(Parts, ChainStart), LdkError> {
    let network = config.network;
    let secrets = seed::load_or_create(&config.seed_file, network)?;
    let bitcoind = Arc::new(Bitcoind::new(config.bitcoind_url.clone(), config.bitcoind_auth.clone())?);
    bitcoind.check_network(network).await?;
    let (tip_hash, tip_height) = bitcoind.tip().await?;
    let ledger = Arc::new(Ledger::open(&config.data_dir.join("ldk.log"))?);
    let store = Arc::new(Store::new(ledger.clone(), config.data_dir.join("gossip")));
    let logger = Arc::new(Logger);
    let fees = Fees::new();
    fees.refresh(&bitcoind).await;
    let (broadcaster, broadcasts) = Broadcaster::new();
    let broadcaster = Arc::new(broadcaster);
    let time = now();
    // The time makes keys of a channel fresh: it must not repeat.
    let keys = Arc::new(KeysManager::new(&secrets.ldk_seed, time.as_secs(), time.subsec_nanos(), true));
    let birthday = match config.wallet_birthday {
        Some(height) if height < tip_height => (bitcoind.block_hash(height).await?, height),
        _ => (tip_hash, tip_height),
    };
    let wallet = Arc::new(Onchain::load_or_create(ledger.clone(), secrets.wallet, network, birthday)?);

    let graph = Arc::new(read_graph(&store, network, &logger));
    let scorer = Arc::new(RwLock::new(read_scorer(&store, &graph, &logger)));
    let router = Arc::new(Router::new(
        graph.clone(),
        logger.clone(),
        keys.clone(),
        scorer.clone(),
        ProbabilisticScoringFeeParameters::default(),
    ));
    let message_router = Arc::new(MessageRouter::new(graph.clone(), keys.clone()));
    let monitor = Arc::new(ChainMonitor::new(
        None,
        broadcaster.clone(),
        logger.clone(),
        fees.clone(),
        ledger.clone(),
        keys.clone(),
        keys.get_peer_storage_key(),
    ));

    let monitors = read_monitors(&ledger, &keys)?;
    let user_config = config.user_config();
    let (manager_block, manager) = match ledger.get(MANAGER) {
        Some(bytes) => {
            let args = ChannelManagerReadArgs::new(
                keys.clone(),
                keys.clone(),
                keys.clone(),
                fees.clone(),
                monitor.clone(),
                broadcaster.clone(),
                router,
                message_router.clone(),
                logger.clone(),
                user_config,
                monitors.iter().map(|(_, monitor)| monitor).collect(),
            );
            <(BlockHash, ChannelManager)>::read(&mut Cursor::new(&bytes), args)
                .map_err(stored("channel manager"))?
        }
        None => {
            let best_block = BestBlock::new(tip_hash, tip_height);
            let manager = ChannelManager::new(
                fees.clone(),
                monitor.clone(),
                broadcaster.clone(),
                router,
                message_router.clone(),
                logger.clone(),
                keys.clone(),
                keys.clone(),
                keys.clone(),
                user_config,
                ChainParameters { network, best_block },
                u32::try_from(time.as_secs()).unwrap_or(u32::MAX),
            );
            (tip_hash, manager)
        }
    };
    let manager = Arc::new(manager);
    ledger.attach(&manager);

    let sweeper_parts = (
        broadcaster.clone(),
        fees.clone(),
        None::<Arc<dyn Filter + Send + Sync>>,
        keys.clone(),
        wallet.clone(),
        store.clone(),
        logger.clone(),
    );
    let (sweeper_block, sweeper) = match store.read("", "", OUTPUT_SWEEPER_PERSISTENCE_KEY) {
        Ok(bytes) => <(BestBlock, Sweeper)>::read(&mut Cursor::new(&bytes), sweeper_parts)
            .map_err(stored("output sweeper"))?,
        Err(_) => {
            let best_block = BestBlock::new(tip_hash, tip_height);
            let (broadcaster, fees, filter, keys, wallet, store, logger) = sweeper_parts;
            let sweeper = Sweeper::new(best_block, broadcaster, fees, filter, keys, wallet, store, logger);
            (best_block, sweeper)
        }
    };
    let sweeper = Arc::new(sweeper);

    // Each part goes on from the block that it knows; they may differ after a crash.
    let mut cache = UnboundedCache::new();
    let monitors: Vec<_> = monitors
        .into_iter()
        .map(|(block, channel)| (block, (channel, broadcaster.clone(), fees.clone(), logger.clone())))
        .collect();
    let mut listeners: Vec<(BlockHash, &(dyn Listen + Send + Sync))> =
        vec![(manager_block, &*manager), (wallet.tip().0, &*wallet), (sweeper_block.block_hash, &*sweeper)];
    for (block, listener) in &monitors {
        listeners.push((*block, listener));
    }
    let tip = init::synchronize_listeners(&*bitcoind, network, &mut cache, listeners)
        .await
        .map_err(|error| LdkError::Bitcoind(format!("{:?}", error.into_inner())))?;
    wallet.persist()?;
    for (_, (channel, ..)) in monitors {
        let id = channel.channel_id();
        monitor
            .load_existing_monitor(id, channel)
            .map_err(|()| LdkError::Stored { what: "channel monitor", reason: id.to_string() })?;
    }

    let gossip = Arc::new(Gossip::new(graph.clone(), None, logger.clone()));
    let onion = Arc::new(OnionMessenger::new(
        keys.clone(),
        keys.clone(),
        logger.clone(),
        manager.clone(),
        message_router,
        manager.clone(),
        manager.clone(),
        IgnoringMessageHandler {},
        IgnoringMessageHandler {},
    ));
    let arrivals = Arc::new(Notify::new());
    let peers = Arc::new(PeerManager::new(
        MessageHandler {
            chan_handler: Arc::new(Gate::new(manager.clone(), ledger.clone(), arrivals.clone())),
            route_handler: gossip.clone(),
            onion_message_handler: onion.clone(),
            custom_message_handler: IgnoringMessageHandler {},
            send_only_message_handler: monitor.clone(),
        },
        u32::try_from(time.as_secs()).unwrap_or(u32::MAX),
        &keys.get_secure_random_bytes(),
        logger.clone(),
        keys.clone(),
    ));
    let bumper = Bumper::new(
        broadcaster,
        Arc::new(WalletSync::new(wallet.clone(), logger.clone())),
        keys.clone(),
        logger.clone(),
    );
    let parts = Parts {
        height: watch::Sender::new(tip.height),
        outbox: Outbox::new(ledger.clone(), wallet.clone(), bitcoind.clone()),
        payments: Payments::new(ledger.clone()),
        held: Held::new(ledger.clone()),
        received: Received::new(ledger.clone()),
        opening: Mutex::new(HashMap::new()),
        config,
        bitcoind,
        fees,
        logger,
        ledger,
        store,
        wallet,
        scorer,
        gossip,
        monitor,
        manager,
        onion,
        arrivals,
        peers,
        sweeper,
        bumper,
    };
    reconcile(&parts)?;
    Ok((parts, ChainStart { tip, cache, broadcasts }))
}

/// Takes up what was under way when the node stopped.
fn reconcile(parts: &Parts) -> Result<(), LdkError> {
    use lightning::ln::channelmanager::{PaymentId, RecentPaymentDetails};
    let known: Vec<PaymentId> = parts
        .manager
        .list_recent_payments()
        .into_iter()
        .map(|payment| match payment {
            RecentPaymentDetails::AwaitingInvoice { payment_id }
            | RecentPaymentDetails::Pending { payment_id, .. }
            | RecentPaymentDetails::Fulfilled { payment_id, .. }
            | RecentPaymentDetails::Abandoned { payment_id, .. } => payment_id,
        })
        .collect();
    parts.payments.never_sent(|hash| known.contains(&PaymentId(*hash)))?;
    parts.held.prune()?;
    for (hash, row) in parts.held.all()? {
        match row.state {
            // LDK may not have got the preimage. A claim that is under way is not begun again.
            State::Settling { preimage } => {
                parts.manager.claim_funds(lightning::types::payment::PaymentPreimage(preimage));
            }
            State::Cancelled => {
                parts.manager.fail_htlc_backwards(&lightning::types::payment::PaymentHash(hash));
            }
            State::Open | State::Held { .. } | State::Settled => {}
        }
    }
    parts.held.expire(*parts.height.borrow())?;
    parts.ledger.commit(Batch::new())
}

fn read_monitors(
    ledger: &Ledger,
    keys: &Arc<KeysManager>,
) -> Result<Vec<(BlockHash, ChannelMonitor<InMemorySigner>)>, LdkError> {
    let rows = ledger.scan(MONITORS);
    rows.into_iter()
        .map(|(_, bytes)| {
            <(BlockHash, ChannelMonitor<InMemorySigner>)>::read(&mut Cursor::new(&bytes), (&**keys, &**keys))
                .map_err(stored("channel monitor"))
        })
        .collect()
}

fn read_graph(store: &Store, network: bitcoin::Network, logger: &Arc<Logger>) -> Graph {
    let stored = store.read("", "", NETWORK_GRAPH_PERSISTENCE_KEY).ok();
    stored
        .and_then(|bytes| Graph::read(&mut Cursor::new(&bytes), logger.clone()).ok())
        .unwrap_or_else(|| Graph::new(network, logger.clone()))
}

fn read_scorer(store: &Store, graph: &Arc<Graph>, logger: &Arc<Logger>) -> Scorer {
    let decay = ProbabilisticScoringDecayParameters::default();
    let stored = store.read("", "", SCORER_PERSISTENCE_KEY).ok();
    stored
        .and_then(|bytes| {
            let args = (decay, graph.clone(), logger.clone());
            Scorer::read(&mut Cursor::new(&bytes), args).ok()
        })
        .unwrap_or_else(|| Scorer::new(decay, graph.clone(), logger.clone()))
}

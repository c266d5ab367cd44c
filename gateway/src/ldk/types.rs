//! LDK's types with this node's parts filled in.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use lightning::chain::{Filter, chainmonitor};
use lightning::ln::channelmanager::SimpleArcChannelManager;
use lightning::ln::peer_handler::IgnoringMessageHandler;
use lightning::onion_message::messenger::DefaultMessageRouter;
use lightning::routing::gossip;
use lightning::routing::router::DefaultRouter;
use lightning::routing::scoring::{ProbabilisticScorer, ProbabilisticScoringFeeParameters};
use lightning::routing::utxo::UtxoLookup;
use lightning::sign::{InMemorySigner, KeysManager};
use lightning::util::sweep::OutputSweeperSync;
use lightning_net_tokio::SocketDescriptor;

use super::chain::{Broadcaster, Fees};
use super::gate::Gate;
use super::ledger::Ledger;
use super::logger::Logger;
use super::store::Store;
use super::wallet::Onchain;

pub(super) type ChainMonitor = chainmonitor::ChainMonitor<
    InMemorySigner,
    Arc<dyn Filter + Send + Sync>,
    Arc<Broadcaster>,
    Arc<Fees>,
    Arc<Logger>,
    Arc<Ledger>,
    Arc<KeysManager>,
>;
pub(super) type ChannelManager = SimpleArcChannelManager<ChainMonitor, Broadcaster, Fees, Logger>;
pub(super) type Graph = gossip::NetworkGraph<Arc<Logger>>;
pub(super) type Gossip = gossip::P2PGossipSync<Arc<Graph>, Arc<dyn UtxoLookup + Send + Sync>, Arc<Logger>>;
pub(super) type Scorer = ProbabilisticScorer<Arc<Graph>, Arc<Logger>>;
pub(super) type Router = DefaultRouter<
    Arc<Graph>,
    Arc<Logger>,
    Arc<KeysManager>,
    Arc<RwLock<Scorer>>,
    ProbabilisticScoringFeeParameters,
    Scorer,
>;
pub(super) type MessageRouter = DefaultMessageRouter<Arc<Graph>, Arc<Logger>, Arc<KeysManager>>;
pub(super) type OnionMessenger = lightning::onion_message::messenger::OnionMessenger<
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<Logger>,
    Arc<ChannelManager>,
    Arc<MessageRouter>,
    Arc<ChannelManager>,
    Arc<ChannelManager>,
    IgnoringMessageHandler,
    IgnoringMessageHandler,
>;
pub(super) type PeerManager = lightning::ln::peer_handler::PeerManager<
    SocketDescriptor,
    Arc<Gate>,
    Arc<Gossip>,
    Arc<OnionMessenger>,
    Arc<Logger>,
    IgnoringMessageHandler,
    Arc<KeysManager>,
    Arc<ChainMonitor>,
>;
pub(super) type Sweeper = OutputSweeperSync<
    Arc<Broadcaster>,
    Arc<Onchain>,
    Arc<Fees>,
    Arc<dyn Filter + Send + Sync>,
    Arc<Store>,
    Arc<Logger>,
    Arc<KeysManager>,
>;

/// Locks a mutex. A panic elsewhere does not make the value wrong: none is left half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

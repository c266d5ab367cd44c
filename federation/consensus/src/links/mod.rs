//! Authenticated, ordered, acknowledged byte frames between guardians.
//!
//! Each guardian dials every other one and sends on the connection that it dialled; acknowledgements
//! come back on it. So there is one logical stream a direction, and neither side waits for the other to
//! dial. A stream outlives its connections: frames are numbered, kept until they are acknowledged,
//! and sent again after a reconnect; the receiver hands over each number once. A *session* is one
//! life of a process: a restarted sender starts a new stream, a restarted receiver tells by its own
//! session that it knows nothing of the old one.
//!
//! A frame is acknowledged when its consumer [accepts](LinkEvent::accept) it, which is when it is durable.
//!
//! Frames carry a channel number, so that setup, consensus and catch-up share the links; each
//! channel is [subscribed](Links::subscribe) by one consumer. A consumer that is slow, or not there
//! yet, slows its senders down; memory is bounded on both sides.

mod acceptor;
mod codec;
mod dialer;
mod identity;
mod peer;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

pub use self::identity::{Fingerprint, Identity};
use self::peer::{Incoming, Outgoing, Receipt};
use crate::NodeId;

/// The channel of key generation and everything else before consensus.
pub const CHANNEL_SETUP: u8 = 0;
/// The engine's frames.
pub const CHANNEL_CONSENSUS: u8 = 1;
/// Requests for past epochs.
pub const CHANNEL_HISTORY_REQUEST: u8 = 2;
/// Answers to them.
pub const CHANNEL_HISTORY_ANSWER: u8 = 3;
/// How many channels there are; the rest is free for later.
pub(crate) const CHANNELS: usize = 8;
/// Frames waiting for one consumer before its senders are slowed down.
const INBOX: usize = 256;

/// Where and who a peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// `host:port`; resolved at each connection.
    pub address: String,
    /// SHA-256 of the peer's certificate.
    pub fingerprint: Fingerprint,
}

/// What links are made from.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// This guardian.
    pub me: NodeId,
    /// Its certificate and key.
    pub identity: Identity,
    /// Where it listens; port 0 takes a free one, see [`Links::local_addrs`].
    pub listen: Vec<SocketAddr>,
    /// All other guardians.
    pub peers: BTreeMap<NodeId, PeerAddress>,
    /// A larger frame closes its link.
    pub max_frame: usize,
    /// Bytes waiting for one peer before [`Links::send`] refuses more.
    pub max_queued: usize,
    /// How often an idle link is probed. Three silent periods close it.
    pub heartbeat: Duration,
}

impl LinkConfig {
    /// A configuration with the default limits: 32 MiB a frame, 64 MiB waiting a peer, a probe every 5 s.
    #[must_use]
    pub const fn new(
        me: NodeId,
        identity: Identity,
        listen: Vec<SocketAddr>,
        peers: BTreeMap<NodeId, PeerAddress>,
    ) -> Self {
        Self {
            me,
            identity,
            listen,
            peers,
            max_frame: 32 << 20,
            max_queued: 64 << 20,
            heartbeat: Duration::from_secs(5),
        }
    }
}

/// What can go wrong with links on this side. What peers do wrong closes their connection only.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// An address can't be listened on.
    #[error("can't listen on {address} for other guardians: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The own certificate or key is unusable.
    #[error("the guardian's TLS identity is unusable: {0}")]
    Identity(String),
    /// There is no such peer.
    #[error("guardian {0} is not a peer")]
    UnknownPeer(NodeId),
    /// Too much waits for this peer already. Nothing was queued; try again later.
    #[error("too much is waiting for guardian {0}")]
    Full(NodeId),
    /// The frame is over the limit.
    #[error("a frame of {0} bytes is over the limit")]
    TooLarge(usize),
    /// The channel doesn't exist.
    #[error("channel {0} does not exist")]
    UnknownChannel(u8),
}

/// A frame from a peer.
#[derive(Debug)]
pub struct LinkEvent {
    /// Who sent it; authenticated.
    pub from: NodeId,
    /// What was sent.
    pub frame: Bytes,
    receipt: Receipt,
}

impl LinkEvent {
    /// Acknowledges the frame: the peer may forget it. Call this when it is durable, or needn't be.
    /// A frame that is dropped without is never acknowledged, and nothing after it is.
    pub fn accept(&self) {
        self.receipt.accept();
    }
}

/// A peer's link as an operator wants to see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkStatus {
    /// Whether our connection to the peer is up.
    pub connected: bool,
    /// How long ago the peer was last heard of, on any connection; `None`: never.
    pub last_seen: Option<Duration>,
    /// The last measured round trip.
    pub rtt: Option<Duration>,
    /// Frames not acknowledged yet.
    pub queued_frames: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// How often our connection to the peer came up.
    pub connects: u64,
    /// How often the peer broke the link's rules and was disconnected.
    pub violations: u64,
    /// Why the last attempt to connect failed, if it did.
    pub last_error: Option<String>,
}

/// Running links; cheap to clone. They stop at [`shutdown`](Self::shutdown) or with the last clone.
#[derive(Debug, Clone)]
pub struct Links {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: LinkConfig,
    /// This life of this process.
    pub(crate) session: [u8; 16],
    pub(crate) outgoing: BTreeMap<NodeId, Arc<Outgoing>>,
    pub(crate) incoming: BTreeMap<NodeId, Arc<Incoming>>,
    inboxes: Vec<mpsc::Sender<LinkEvent>>,
    consumers: Mutex<Vec<Option<mpsc::Receiver<LinkEvent>>>>,
    addrs: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks guard is consistent between any two statements, so a panic elsewhere spoils nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Links {
    /// Listens, and dials all peers until they answer.
    ///
    /// # Errors
    /// [`LinkError::Listen`], [`LinkError::Identity`].
    pub async fn start(config: LinkConfig) -> Result<Self, LinkError> {
        let server = tls::server(&config)?;
        let mut listeners = Vec::new();
        let mut addrs = Vec::new();
        for address in &config.listen {
            let failed = |source| LinkError::Listen { address: *address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            addrs.push(listener.local_addr().map_err(failed)?);
            listeners.push(listener);
        }
        let (inboxes, consumers) =
            (0..CHANNELS).map(|_| mpsc::channel(INBOX)).map(|(tx, rx)| (tx, Some(rx))).unzip();
        let shared = Arc::new(Shared {
            session: rand::random(),
            outgoing: config.peers.keys().map(|peer| (*peer, Arc::default())).collect(),
            incoming: config.peers.keys().map(|peer| (*peer, Arc::default())).collect(),
            inboxes,
            consumers: Mutex::new(consumers),
            addrs,
            stop: watch::Sender::new(false),
            config,
        });
        for listener in listeners {
            tokio::spawn(acceptor::run(
                Arc::downgrade(&shared),
                shared.stop.subscribe(),
                listener,
                server.clone(),
            ));
        }
        for (peer, address) in &shared.config.peers {
            let client = tls::client(&shared.config, address.fingerprint)?;
            tokio::spawn(dialer::run(Arc::downgrade(&shared), shared.stop.subscribe(), *peer, client));
        }
        Ok(Self { shared })
    }

    /// This guardian.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.shared.config.me
    }

    /// All other guardians.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.shared.config.peers.keys().copied()
    }

    /// The largest frame.
    #[must_use]
    pub fn max_frame(&self) -> usize {
        self.shared.config.max_frame
    }

    /// Where this guardian really listens.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.shared.addrs
    }

    /// Takes a channel's frames; `None` if someone else did, or there is no such channel.
    #[must_use]
    pub fn subscribe(&self, channel: u8) -> Option<mpsc::Receiver<LinkEvent>> {
        lock(&self.shared.consumers).get_mut(channel as usize)?.take()
    }

    /// Queues a frame for `to`; it is delivered once, in order, whenever the peer can be reached,
    /// as long as both processes live. Never waits.
    ///
    /// # Errors
    /// [`LinkError::Full`] if too much waits already, and for what can't be sent at all.
    pub fn send(&self, to: NodeId, channel: u8, frame: Bytes) -> Result<(), LinkError> {
        let config = &self.shared.config;
        if frame.len() > config.max_frame {
            return Err(LinkError::TooLarge(frame.len()));
        }
        if channel as usize >= CHANNELS {
            return Err(LinkError::UnknownChannel(channel));
        }
        let outgoing = self.shared.outgoing.get(&to).ok_or(LinkError::UnknownPeer(to))?;
        if outgoing.push(channel, frame, config.max_queued) { Ok(()) } else { Err(LinkError::Full(to)) }
    }

    /// The peers that our connection to is up, each with how often it has come up.
    #[must_use]
    pub fn connections(&self) -> BTreeMap<NodeId, u64> {
        let connection = |(peer, outgoing): (&NodeId, &Arc<Outgoing>)| Some((*peer, outgoing.connection()?));
        self.shared.outgoing.iter().filter_map(connection).collect()
    }

    /// Every peer's link.
    #[must_use]
    pub fn status(&self) -> BTreeMap<NodeId, LinkStatus> {
        self.shared
            .outgoing
            .iter()
            .map(|(peer, outgoing)| {
                let mut status = outgoing.status();
                if let Some(incoming) = self.shared.incoming.get(peer) {
                    incoming.add_to(&mut status);
                }
                (*peer, status)
            })
            .collect()
    }

    /// Closes all connections and stops listening; the addresses are free when this returns. Frames that
    /// aren't acknowledged are lost.
    pub async fn shutdown(&self) {
        self.shared.stop.send_replace(true);
        // Every task of the links holds a receiver until it ends.
        self.shared.stop.closed().await;
    }

    /// Waits, at most `limit`, until everything queued is acknowledged: for a clean end of setup.
    pub async fn drain(&self, limit: Duration) -> bool {
        let drained = async {
            for outgoing in self.shared.outgoing.values() {
                outgoing.drained().await;
            }
        };
        tokio::time::timeout(limit, drained).await.is_ok()
    }
}

impl Shared {
    pub(crate) fn inbox(&self, channel: u8) -> Option<mpsc::Sender<LinkEvent>> {
        self.inboxes.get(channel as usize).cloned()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

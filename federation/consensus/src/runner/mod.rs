//! The engine, its journal and the links, driven together.
//!
//! One thread owns all state (the engine computes, the journal waits for the disk) and takes inputs from
//! a queue: frames, proposals, commits, ticks. It handles what has gathered, appends it to the journal
//! with one flush, and only then acknowledges, sends and outputs.
//!
//! The main loop around it: on [`ConsensusEvent::Batch`], apply and commit the batch, then call
//! [`ConsensusHandle::committed`]; propose for the next epoch when there is something to propose, or on
//! [`ConsensusEvent::ProposalWanted`], then with whatever there is. A proposal is not guaranteed to be
//! in the batch of its epoch: what didn't get in goes into the next one.

mod catchup;
#[cfg(feature = "testing")]
pub mod core;
#[cfg(not(feature = "testing"))]
mod core;
mod finality;
mod gather;
mod history;
mod network;
mod outbox;
mod peer;
mod speech;
mod statement;
mod thread;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use self::core::{Core, Input};
pub use self::history::{History, Tail, answers};
pub use self::network::Network;
use self::thread::Command;
use crate::engine::{EngineConfig, EngineError, FaultKind};
use crate::header::{Header, HeaderKeys, Signatures};
use crate::journal::Journal;
use crate::links::{
    CHANNEL_CONSENSUS, CHANNEL_HISTORY_ANSWER, CHANNEL_HISTORY_REQUEST, LinkStatus, Links, lock,
};
use crate::{Batch, NodeId};

/// Inputs waiting for the engine before whoever brings them has to wait.
const INPUTS: usize = 256;
const TICK: Duration = Duration::from_millis(250);

/// What the main loop is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsensusEvent {
    /// Someone has opened this epoch, and this guardian hasn't proposed in it.
    ProposalWanted {
        /// The epoch.
        epoch: u64,
    },
    /// The next epoch's output, in order and without gaps.
    Batch {
        /// What was agreed on.
        batch: Batch,
        /// Of an epoch that the others have finished: its header, if n - f guardians have signed it. So it is known to what state
        /// applying the batch leads.
        proven: Option<Header>,
    },
    /// Right signatures of the header of an epoch that this guardian has committed: told when f + 1 are there, which
    /// makes it final, and again when n - f are.
    Signatures {
        /// The epoch.
        epoch: u64,
        /// The signatures.
        signatures: Signatures,
    },
    /// f + 1 others have signed another header of this epoch than this guardian has committed: its state differs from theirs. From now
    /// on it signs nothing. Told once.
    Diverged {
        /// The epoch.
        epoch: u64,
        /// The hash of the own header.
        own: [u8; 32],
        /// The hash of theirs.
        others: [u8; 32],
    },
    /// The peers' histories begin at `first`, after the epoch that this guardian needs next: it needs a state snapshot. Told
    /// once.
    HistoryPruned {
        /// The first epoch that can be had.
        first: u64,
    },
    /// Consensus has stopped for good; nothing follows. The guardian should stop, too.
    Failed(String),
}

/// Why consensus can't start.
#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    /// The engine refuses its configuration.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The journal can't be read or written.
    #[error("the consensus journal can't be used: {0}")]
    Journal(#[from] io::Error),
    /// The history can't be read.
    #[error("the history of epochs can't be read: {0}")]
    History(io::Error),
    /// The links are in use by another consensus, or belong to another guardian.
    #[error("these links are not free, or not this guardian's")]
    Links,
    /// The links' frame limit is too small.
    #[error("the links' frame limit must be at least {0} bytes")]
    FrameLimit(usize),
    /// Consensus has stopped.
    #[error("consensus has stopped")]
    Stopped,
}

/// Consensus as an operator wants to see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsensusStatus {
    /// The next epoch to be committed.
    pub next_epoch: u64,
    /// The next epoch to be output.
    pub next_output: u64,
    /// This guardian keeps silent in all epochs below, because it can't know what it has said in them (amnesia
    /// rule); `u64::MAX` while it is still asking.
    pub speaks_from: u64,
    /// The last epoch whose header f + 1 guardians have signed.
    pub last_final: Option<u64>,
    /// The epoch since which this guardian's state differs from the others'.
    pub diverged: Option<u64>,
    /// Whether past epochs are being fetched from peers.
    pub catching_up: bool,
    /// The others.
    pub peers: BTreeMap<NodeId, PeerStatus>,
}

/// A peer as an operator wants to see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerStatus {
    /// The next epoch that the peer says it has to commit.
    pub next_epoch: Option<u64>,
    /// Its faults since the start, by kind.
    pub faults: BTreeMap<FaultKind, u64>,
    /// Its link.
    pub link: LinkStatus,
}

/// The way into a running consensus; cheap to clone.
#[derive(Debug, Clone)]
pub struct ConsensusHandle {
    inputs: mpsc::Sender<Command>,
    status: Arc<Mutex<ConsensusStatus>>,
    links: Links,
    max_proposal: usize,
}

/// Starts consensus where `history` ends.
///
/// The journal and the history belong together. A journal that lacks what this guardian has said is recognised by asking
/// the others (amnesia rule); a journal of another guardian is not.
///
/// # Errors
/// [`ConsensusError`].
pub async fn start(
    config: EngineConfig,
    links: Links,
    journal: Box<dyn Journal>,
    history: Arc<dyn History>,
    keys: Arc<dyn HeaderKeys>,
) -> Result<(ConsensusHandle, mpsc::UnboundedReceiver<ConsensusEvent>), ConsensusError> {
    let peers = links.peers().filter(|peer| *peer < config.n && *peer != config.me).count();
    if links.me() != config.me || peers + 1 != config.n as usize {
        return Err(ConsensusError::Links);
    }
    let needed = config.max_frame().max(config.max_batch() + history::ANSWER_OVERHEAD);
    if links.max_frame() < needed {
        return Err(ConsensusError::FrameLimit(needed));
    }
    let subscribe = |channel| links.subscribe(channel).ok_or(ConsensusError::Links);
    let frames = subscribe(CHANNEL_CONSENSUS)?;
    let answers = subscribe(CHANNEL_HISTORY_ANSWER)?;
    let requests = subscribe(CHANNEL_HISTORY_REQUEST)?;

    let (inputs, queue) = mpsc::channel(INPUTS);
    let (events, receiver) = mpsc::unbounded_channel();
    let tail = Tail::read(&*history).await.map_err(ConsensusError::History)?;
    let max_proposal = config.max_proposal;
    let (core_links, core_keys) = (links.clone(), Arc::clone(&keys));
    let (ready, started) = tokio::sync::oneshot::channel();
    let (living, alive) = watch::channel(());
    std::thread::Builder::new().name("consensus".to_owned()).spawn(move || {
        match Core::new(config, core_links, journal, &tail, core_keys) {
            Ok(core) => {
                let _ = ready.send(Ok(core.status()));
                thread::run(core, queue, &events);
                drop(living);
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    })?;
    let status = started.await.map_err(|_| ConsensusError::Stopped)??;

    let weak = inputs.downgrade();
    tokio::spawn(pump(frames, weak.clone(), alive.clone(), Input::Frame));
    tokio::spawn(pump(answers, weak.clone(), alive.clone(), Input::Answer));
    tokio::spawn(tick(weak, alive.clone()));
    let shown = Arc::clone(&status);
    let may_sign = move || lock(&shown).diverged.is_none();
    tokio::spawn(while_alive(alive, history::serve(requests, links.clone(), history, keys, may_sign)));
    Ok((ConsensusHandle { inputs, status, links, max_proposal }, receiver))
}

/// Runs `task` until it or the engine's thread ends.
async fn while_alive(mut alive: watch::Receiver<()>, task: impl Future<Output = ()>) {
    tokio::select! {
        () = task => {}
        // Nothing is ever sent: this ends when the thread drops its side.
        _ = alive.changed() => {}
    }
}

/// Only handles keep the engine running, so the senders here are weak ones.
async fn pump<T>(
    mut from: mpsc::Receiver<T>,
    to: mpsc::WeakSender<Command>,
    alive: watch::Receiver<()>,
    wrap: fn(T) -> Input,
) {
    while_alive(alive, async {
        while let Some(item) = from.recv().await {
            let Some(to) = to.upgrade() else { return };
            if to.send(Command::Input(wrap(item))).await.is_err() {
                return;
            }
        }
    })
    .await;
}

async fn tick(to: mpsc::WeakSender<Command>, alive: watch::Receiver<()>) {
    while_alive(alive, async {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let Some(to) = to.upgrade() else { return };
            // A full queue means that the engine is awake anyway.
            if let Err(mpsc::error::TrySendError::Closed(_)) = to.try_send(Command::Input(Input::Tick)) {
                return;
            }
        }
    })
    .await;
}

impl ConsensusHandle {
    /// Proposes `value` in `epoch`. Ignored if this guardian has proposed in it, the epoch is over, or
    /// the amnesia rule forbids it: what isn't in the epoch's batch is proposed again in the next.
    ///
    /// # Errors
    /// [`ConsensusError::Engine`] for a proposal over the limit, [`ConsensusError::Stopped`].
    pub async fn propose(&self, epoch: u64, value: Bytes) -> Result<(), ConsensusError> {
        if value.len() > self.max_proposal {
            return Err(EngineError::ProposalTooLarge { size: value.len(), limit: self.max_proposal }.into());
        }
        self.put(Command::Input(Input::Propose { epoch, value })).await
    }

    /// The batch of the header's epoch is applied and durable together with the header, and [`History`] has both. The header is signed, and
    /// the signature told to the others at once.
    ///
    /// # Errors
    /// [`ConsensusError::Stopped`].
    pub async fn committed(&self, header: Header) -> Result<(), ConsensusError> {
        self.put(Command::Input(Input::Committed(header))).await
    }

    async fn put(&self, command: Command) -> Result<(), ConsensusError> {
        self.inputs.send(command).await.map_err(|_| ConsensusError::Stopped)
    }

    /// The state now.
    #[must_use]
    pub fn status(&self) -> ConsensusStatus {
        let mut status = lock(&self.status).clone();
        for (peer, link) in self.links.status() {
            status.peers.entry(peer).or_default().link = link;
        }
        status
    }

    /// Stops consensus and waits until its thread has let go of the journal. The links go on.
    pub async fn shutdown(&self) {
        let _ = self.put(Command::Stop).await;
        self.inputs.closed().await;
    }
}

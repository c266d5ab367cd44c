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
mod control;
mod core;
mod history;
mod outbox;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use self::core::{Core, Input};
pub use self::history::History;
use crate::engine::{EngineConfig, EngineError, FaultKind};
use crate::journal::Journal;
use crate::links::{
    CHANNEL_CONSENSUS, CHANNEL_CONTROL, CHANNEL_HISTORY_ANSWER, CHANNEL_HISTORY_REQUEST, LinkStatus, Links,
    lock,
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
    Batch(Batch),
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
    /// Whether this guardian keeps silent because it can't know what it has said (amnesia rule): in
    /// all epochs below this one; `u64::MAX` while it is still asking.
    pub speaks_from: u64,
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
    inputs: mpsc::Sender<Input>,
    status: Arc<Mutex<ConsensusStatus>>,
    links: Links,
    max_proposal: usize,
}

/// Starts consensus where `history` ends.
///
/// The journal and the history belong together: a wiped journal beside a history is recognised and leads to
/// the amnesia rule, a journal of another guardian is not.
///
/// # Errors
/// [`ConsensusError`].
pub async fn start(
    config: EngineConfig,
    links: Links,
    journal: Box<dyn Journal>,
    history: Arc<dyn History>,
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
    let control = subscribe(CHANNEL_CONTROL)?;
    let answers = subscribe(CHANNEL_HISTORY_ANSWER)?;
    let requests = subscribe(CHANNEL_HISTORY_REQUEST)?;

    let (inputs, queue) = mpsc::channel(INPUTS);
    let (events, receiver) = mpsc::unbounded_channel();
    let status = Arc::new(Mutex::new(ConsensusStatus::default()));
    let next_epoch = history.next_epoch().await;
    let max_proposal = config.max_proposal;
    let (core_links, core_status) = (links.clone(), Arc::clone(&status));
    let (ready, started) = tokio::sync::oneshot::channel();
    let (living, alive) = watch::channel(());
    std::thread::Builder::new().name("consensus".to_owned()).spawn(move || {
        match Core::new(config, core_links, journal, next_epoch, events, core_status) {
            Ok(core) => {
                let _ = ready.send(Ok(()));
                core.run(queue);
                drop(living);
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    })?;
    started.await.map_err(|_| ConsensusError::Stopped)??;

    let weak = inputs.downgrade();
    tokio::spawn(pump(frames, weak.clone(), alive.clone(), Input::Frame));
    tokio::spawn(pump(control, weak.clone(), alive.clone(), Input::Control));
    tokio::spawn(pump(answers, weak.clone(), alive.clone(), Input::Answer));
    tokio::spawn(tick(weak, alive.clone()));
    tokio::spawn(while_alive(alive, history::serve(requests, links.clone(), history)));
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
    to: mpsc::WeakSender<Input>,
    alive: watch::Receiver<()>,
    wrap: fn(T) -> Input,
) {
    while_alive(alive, async {
        while let Some(item) = from.recv().await {
            let Some(to) = to.upgrade() else { return };
            if to.send(wrap(item)).await.is_err() {
                return;
            }
        }
    })
    .await;
}

async fn tick(to: mpsc::WeakSender<Input>, alive: watch::Receiver<()>) {
    while_alive(alive, async {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let Some(to) = to.upgrade() else { return };
            // A full queue means that the engine is awake anyway.
            if let Err(mpsc::error::TrySendError::Closed(_)) = to.try_send(Input::Tick) {
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
        self.put(Input::Propose { epoch, value }).await
    }

    /// The batch of `epoch` is applied and durable, and [`History`] has it.
    ///
    /// # Errors
    /// [`ConsensusError::Stopped`].
    pub async fn committed(&self, epoch: u64) -> Result<(), ConsensusError> {
        self.put(Input::Committed(epoch.saturating_add(1))).await
    }

    async fn put(&self, input: Input) -> Result<(), ConsensusError> {
        self.inputs.send(input).await.map_err(|_| ConsensusError::Stopped)
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
        let _ = self.put(Input::Stop).await;
        self.inputs.closed().await;
    }
}

//! The thread that owns engine and journal.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::catchup::Catchup;
use super::control::{ASK_HEARD, Control};
use super::history::Answer;
use super::outbox::Outbox;
use super::{ConsensusError, ConsensusEvent, ConsensusStatus};
use crate::engine::{Engine, EngineConfig, FaultKind, Step, Target, epoch_of};
use crate::journal::{Journal, Record};
use crate::links::{CHANNEL_CONSENSUS, CHANNEL_CONTROL, CHANNEL_HISTORY_REQUEST, LinkEvent, Links, lock};
use crate::{Batch, NodeId, max_faulty};

/// Inputs handled with one flush of the journal.
const GROUP: usize = 512;
/// Epochs handed to the main loop and not committed yet, while catching up.
const AHEAD: u64 = 32;
/// Past epochs that still answer when every peer may not have them, but enough have.
const KEEP: u64 = 16;
/// Past epochs that still answer at all.
const KEEP_MOST: u64 = 256;

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Input {
    Frame(LinkEvent),
    Control(LinkEvent),
    Answer(LinkEvent),
    Propose {
        epoch: u64,
        value: Bytes,
    },
    /// Epochs below are committed.
    Committed(u64),
    Tick,
    Stop,
}

#[derive(Debug, Default)]
struct Peer {
    outbox: Outbox,
    /// The first epoch of which nothing of this peer was heard.
    heard: u64,
    /// What it was last told, and over which connection.
    told: Option<(u64, u64)>,
    /// Over which connection it was asked what it has heard, and its answer.
    asked: Option<u64>,
    answered: Option<u64>,
}

pub(super) struct Core {
    config: EngineConfig,
    links: Links,
    journal: Box<dyn Journal>,
    events: mpsc::UnboundedSender<ConsensusEvent>,
    status: Arc<Mutex<ConsensusStatus>>,
    engine: Engine,
    peers: BTreeMap<NodeId, Peer>,
    /// The next epoch to be handed to the main loop.
    emitted: u64,
    /// The next epoch to be committed by it.
    committed: u64,
    /// `None`: still asking (amnesia rule).
    speaks_from: Option<u64>,
    /// A proposal that came while asking.
    waiting: Option<(u64, Bytes)>,
    catchup: Catchup,
    faults: BTreeMap<NodeId, BTreeMap<FaultKind, u64>>,
}

impl Core {
    pub fn new(
        config: EngineConfig,
        links: Links,
        mut journal: Box<dyn Journal>,
        next_epoch: u64,
        events: mpsc::UnboundedSender<ConsensusEvent>,
        status: Arc<Mutex<ConsensusStatus>>,
    ) -> Result<Self, ConsensusError> {
        let mut speaks_from = journal.speaks_from()?;
        if speaks_from.is_none() && config.n == 1 {
            // Nobody else has heard anything.
            journal.set_speaks_from(next_epoch)?;
            speaks_from = Some(next_epoch);
        }
        let engine = Engine::new(&config, next_epoch)?;
        let peers = links.peers().map(|peer| (peer, Peer::default())).collect();
        let mut core = Self {
            config,
            links,
            journal,
            events,
            status,
            engine,
            peers,
            emitted: next_epoch,
            committed: next_epoch,
            speaks_from,
            waiting: None,
            catchup: Catchup::default(),
            faults: BTreeMap::new(),
        };
        core.rebuild()?;
        core.publish();
        Ok(core)
    }

    /// Makes the engine anew from the journal: at the start, and when it is known from where on it may speak.
    fn rebuild(&mut self) -> Result<(), ConsensusError> {
        let records = self.journal.replay()?;
        let base = records.iter().map(Record::epoch).min().unwrap_or(self.committed).min(self.committed);
        let mut engine = Engine::new(&self.config, base)?;
        match self.speaks_from {
            None => engine.stay_silent(u64::MAX),
            Some(0) => {}
            Some(epoch) => engine.stay_silent(epoch - 1),
        }
        engine.open_window(self.committed);
        self.engine = engine;
        for peer in self.peers.values_mut() {
            peer.outbox.clear();
        }
        for record in records {
            let step = match record {
                Record::Proposal { epoch, value } => self.engine.propose(epoch, &value)?,
                Record::Frame { epoch, from, frame } => {
                    self.hear(from, epoch);
                    self.engine.handle(from, frame)
                }
            };
            // Its faults were counted, and its epochs committed, in an earlier life; what wasn't, follows.
            let batches = step.batches.into_iter().filter(|batch| batch.epoch >= self.emitted).collect();
            self.output(Step { batches, faults: Vec::new(), ..step });
        }
        let step = self.engine.committed(self.committed);
        self.output(step);
        let step = self.engine.skip_to(self.emitted);
        self.output(step);
        Ok(())
    }

    pub fn run(mut self, mut queue: mpsc::Receiver<Input>) {
        let result = self.drive(&mut queue);
        if let Err(error) = result {
            tracing::error!(%error, "consensus stops");
            let _ = self.events.send(ConsensusEvent::Failed(error.to_string()));
        }
        // The journal is closed before anyone can see that the thread has ended.
        drop(self);
        drop(queue);
    }

    fn drive(&mut self, queue: &mut mpsc::Receiver<Input>) -> Result<(), ConsensusError> {
        while let Some(first) = queue.blocking_recv() {
            let mut records = Vec::new();
            let mut accepted = Vec::new();
            let mut steps = Vec::new();
            let mut input = Some(first);
            let mut stop = false;
            let mut tick = false;
            while let Some(current) = input.take() {
                match current {
                    Input::Frame(event) => {
                        steps.push(self.on_frame(&event, &mut records));
                        accepted.push(event);
                    }
                    Input::Propose { epoch, value } => {
                        steps.extend(self.on_propose(epoch, value, &mut records)?)
                    }
                    Input::Committed(epoch) => {
                        self.committed = self.committed.max(epoch);
                        steps.push(self.engine.committed(self.committed));
                    }
                    Input::Control(event) => self.on_control(&event),
                    Input::Answer(event) => self.on_answer(&event),
                    Input::Tick => tick = true,
                    Input::Stop => stop = true,
                }
                if accepted.len() < GROUP && !stop {
                    input = queue.try_recv().ok();
                }
            }
            if !records.is_empty() {
                self.journal.append(&records)?;
            }
            // Durable: from here on others may know.
            for event in accepted {
                event.accept();
            }
            for step in steps {
                self.output(step);
            }
            if stop {
                return Ok(());
            }
            if tick {
                self.on_tick()?;
            }
            self.catch_up();
            self.prune()?;
            self.announce();
            for (peer, state) in &mut self.peers {
                state.outbox.flush(&self.links, *peer, self.config.window);
            }
            self.publish();
        }
        Ok(())
    }

    fn on_frame(&mut self, event: &LinkEvent, records: &mut Vec<Record>) -> Step {
        if event.frame == ASK_HEARD {
            // Of forgotten epochs, anything may have been heard.
            let heard = self.peers.get(&event.from).map_or(0, |peer| peer.heard).max(self.engine.base());
            let answer = Control::Heard(heard).encode();
            let _ = self.links.send(event.from, CHANNEL_CONTROL, answer);
            return Step::default();
        }
        let step = self.engine.handle(event.from, event.frame.clone());
        if step.changed
            && let Some(epoch) = epoch_of(&event.frame)
        {
            self.hear(event.from, epoch);
            records.push(Record::Frame { epoch, from: event.from, frame: event.frame.clone() });
        }
        step
    }

    fn hear(&mut self, from: NodeId, epoch: u64) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.heard = peer.heard.max(epoch.saturating_add(1));
        }
    }

    fn on_propose(
        &mut self,
        epoch: u64,
        value: Bytes,
        records: &mut Vec<Record>,
    ) -> Result<Option<Step>, ConsensusError> {
        if self.speaks_from.is_none() {
            self.waiting = Some((epoch, value));
            return Ok(None);
        }
        let step = self.engine.propose(epoch, &value)?;
        if step.changed {
            records.push(Record::Proposal { epoch, value });
        }
        Ok(Some(step))
    }

    fn on_control(&mut self, event: &LinkEvent) {
        event.accept();
        let Some(peer) = self.peers.get_mut(&event.from) else { return };
        match Control::decode(event.frame.clone()) {
            Ok(Control::Next(epoch)) => peer.outbox.announce(epoch),
            Ok(Control::Heard(epoch)) => peer.answered = Some(epoch),
            Err(_) => self.fault(event.from, FaultKind::Malformed),
        }
    }

    fn on_answer(&mut self, event: &LinkEvent) {
        event.accept();
        let consistent = Answer::decode(event.frame.clone())
            .is_ok_and(|answer| self.catchup.answer(event.from, self.emitted, answer));
        if !consistent {
            self.fault(event.from, FaultKind::BadHistory);
        }
    }

    fn fault(&mut self, node: NodeId, kind: FaultKind) {
        tracing::debug!(node, %kind, "fault");
        *self.faults.entry(node).or_default().entry(kind).or_default() += 1;
    }

    fn on_tick(&mut self) -> Result<(), ConsensusError> {
        self.catchup.tick();
        if self.speaks_from.is_none() {
            self.ask_what_was_heard()?;
        }
        Ok(())
    }

    /// The amnesia rule: n - f guardians, this one included, say how far they have heard it.
    fn ask_what_was_heard(&mut self) -> Result<(), ConsensusError> {
        let links = self.links.status();
        for (id, peer) in &mut self.peers {
            let connects = links.get(id).filter(|link| link.connected).map(|link| link.connects);
            let ask = peer.answered.is_none() && connects.is_some() && peer.asked != connects;
            if ask && self.links.send(*id, CHANNEL_CONSENSUS, ASK_HEARD).is_ok() {
                peer.asked = connects;
            }
        }
        let answers: Vec<u64> = self.peers.values().filter_map(|peer| peer.answered).collect();
        if answers.len() + 1 < (self.config.n - max_faulty(self.config.n)) as usize {
            return Ok(());
        }
        let epoch = answers.into_iter().max().unwrap_or(0);
        if epoch > 0 {
            tracing::warn!(
                epoch,
                "this guardian's journal is new: it keeps silent in all epochs before this one"
            );
        }
        self.journal.set_speaks_from(epoch)?;
        self.speaks_from = Some(epoch);
        self.rebuild()?;
        if let Some((epoch, value)) = self.waiting.take() {
            let mut records = Vec::new();
            let step = self.on_propose(epoch, value, &mut records)?;
            self.journal.append(&records)?;
            step.into_iter().for_each(|step| self.output(step));
        }
        Ok(())
    }

    /// Passes on what is durable.
    fn output(&mut self, step: Step) {
        for message in step.messages {
            for (id, peer) in &mut self.peers {
                if message.target == Target::All || message.target == Target::Node(*id) {
                    peer.outbox.push(message.epoch, message.frame.clone());
                }
            }
        }
        for (node, kind) in step.faults {
            self.fault(node, kind);
        }
        for batch in step.batches {
            self.emit(batch);
        }
        if let Some(epoch) = step.wants_proposal {
            let _ = self.events.send(ConsensusEvent::ProposalWanted { epoch });
        }
    }

    fn emit(&mut self, batch: Batch) {
        if batch.epoch == self.emitted {
            self.emitted += 1;
            self.catchup.progress(self.emitted);
            let _ = self.events.send(ConsensusEvent::Batch(batch));
        }
    }

    fn catch_up(&mut self) {
        let faulty = max_faulty(self.config.n) as usize;
        while self.emitted < self.committed + AHEAD {
            let Some(batch) = self.catchup.take(self.emitted, faulty) else { break };
            self.emit(batch);
            let step = self.engine.skip_to(self.emitted);
            self.output(step);
        }
        if self.emitted >= self.committed + AHEAD {
            return;
        }
        let ahead: Vec<(NodeId, u64)> = self
            .peers
            .iter()
            .filter_map(|(id, peer)| Some((*id, peer.outbox.next().filter(|next| *next > self.emitted)?)))
            .collect();
        for (peer, request) in self.catchup.requests(self.emitted, &ahead, faulty) {
            let _ = self.links.send(peer, CHANNEL_HISTORY_REQUEST, request.encode());
        }
    }

    /// Forgets epochs that nobody needs this guardian for: all have them, or 2f + 1 have (then f + 1 honest ones
    /// give them to the others as history) and they are old.
    fn prune(&mut self) -> io::Result<()> {
        let mut next: Vec<u64> = self.peers.values().map(|peer| peer.outbox.next().unwrap_or(0)).collect();
        next.push(self.committed);
        next.sort_unstable_by(|a, b| b.cmp(a));
        let all = next.last().copied().unwrap_or(0);
        let enough = next.get(2 * max_faulty(self.config.n) as usize).copied().unwrap_or(0);
        let below = all
            .max(enough.min(self.committed.saturating_sub(KEEP)))
            .max(self.committed.saturating_sub(KEEP_MOST))
            .min(self.committed);
        if below > self.engine.base() {
            self.engine.prune(below);
            self.journal.truncate(below)?;
            self.peers.values_mut().for_each(|peer| peer.outbox.prune(below));
        }
        Ok(())
    }

    /// Tells every connected peer where this guardian is, once a change and connection.
    fn announce(&mut self) {
        let links = self.links.status();
        for (id, peer) in &mut self.peers {
            let Some(link) = links.get(id).filter(|link| link.connected) else { continue };
            let news = (self.committed, link.connects);
            if peer.told != Some(news)
                && self.links.send(*id, CHANNEL_CONTROL, Control::Next(news.0).encode()).is_ok()
            {
                peer.told = Some(news);
            }
        }
    }

    fn publish(&self) {
        let mut status = lock(&self.status);
        status.next_epoch = self.committed;
        status.next_output = self.emitted;
        status.speaks_from = self.speaks_from.unwrap_or(u64::MAX);
        status.catching_up = self.catchup.active();
        for (id, peer) in &self.peers {
            let shown = status.peers.entry(*id).or_default();
            shown.next_epoch = peer.outbox.next();
            if let Some(faults) = self.faults.get(id) {
                shown.faults.clone_from(faults);
            }
        }
    }
}

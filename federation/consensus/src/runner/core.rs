//! The state machine of a running guardian: engine, journal, what peers are owed, what they said. No I/O but the
//! journal's; whoever drives it brings the inputs and passes on the outcome.

mod say;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::catchup::Catchup;
use super::finality::{Finality, News};
use super::gather::{Gather, Wait};
use super::history::{Answer, MAX_COUNT, Request, Tail};
use super::network::Network;
use super::peer::Peer;
use super::speech::Speech;
use super::statement::{Heard, Statement, is_statement};
use super::{ConsensusError, ConsensusEvent, ConsensusStatus};
use crate::engine::{
    Engine, EngineConfig, FaultKind, Outgoing, Step, Target, Voice, binds, epoch_of, frame_id, tag_of,
};
use crate::header::{Header, HeaderKeys};
use crate::journal::{Journal, Record};
use crate::links::{CHANNEL_CONSENSUS, CHANNEL_HISTORY_REQUEST, LinkEvent};
use crate::protection::Protection;
use crate::{Batch, NodeId, max_faulty};

/// Inputs that may wait for a flush of the journal.
const GROUP: usize = 512;
/// Epochs handed to the main loop and not committed yet, while catching up.
const AHEAD: u64 = 192;
/// Past epochs that still answer when every peer may not have them, but enough have.
const KEEP: u64 = 16;
/// Past epochs that still answer at all.
const KEEP_MOST: u64 = 256;
/// Ticks between two questions for missing signatures.
const REPAIR: u32 = 8;
/// Ticks between two questions what was heard, to a peer that doesn't answer.
const ASK_AGAIN: u32 = 20;

/// What the core is told.
#[derive(Debug)]
pub enum Input {
    /// From the channel of the engine's frames.
    Frame(LinkEvent),
    /// From the channel of past epochs.
    Answer(LinkEvent),
    /// This guardian's proposal.
    Propose {
        /// The epoch.
        epoch: u64,
        /// The bytes.
        value: Bytes,
    },
    /// This epoch, and all before it, are committed.
    Committed(Header),
    /// Some time has gone by.
    Tick,
}

/// How much the core holds, for tests of its bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg(feature = "testing")]
pub struct Sizes {
    /// Bytes of frames kept for peers.
    pub outbox_bytes: usize,
    /// Frames of others and own ones that are remembered by hash.
    pub remembered: usize,
    /// Signatures.
    pub signatures: usize,
    /// Past epochs fetched and not handed on.
    pub fetched: usize,
    /// Inputs waiting for a flush.
    pub pending: usize,
}

/// A guardian's consensus without threads and sockets.
pub struct Core<N> {
    config: EngineConfig,
    network: N,
    journal: Box<dyn Journal>,
    voice: Voice,
    status: Arc<Mutex<ConsensusStatus>>,
    engine: Engine,
    peers: BTreeMap<NodeId, Peer>,
    /// The next epoch to be handed to the main loop.
    emitted: u64,
    /// The next epoch to be committed by it.
    committed: u64,
    speech: Speech,
    /// A number that no other life of this guardian has.
    life: u64,
    /// The first epoch in which this guardian may speak.
    speaks_from: u64,
    /// A proposal that came before that was known.
    waiting: Option<(u64, Bytes)>,
    catchup: Catchup,
    finality: Finality,
    faults: BTreeMap<NodeId, BTreeMap<FaultKind, u64>>,
    /// Inputs that nothing has followed from yet, and the frames to acknowledge with them.
    records: Vec<Record>,
    /// What waits for them to be durable.
    unsaid: Vec<Outgoing>,
    gather: Gather,
    ticked: bool,
    /// Whether there were inputs at the last tick that weren't durable.
    waited: bool,
    /// Peers may forget all that they would say in epochs below: what they have said there is durable here.
    announced: u64,
    unaccepted: Vec<LinkEvent>,
    events: Vec<ConsensusEvent>,
    ticks: u32,
    told_pruned: bool,
}

impl<N: Network> Core<N> {
    /// A guardian that goes on where `tail` ends, with what `journal` has.
    ///
    /// # Errors
    /// [`ConsensusError`].
    pub fn new(
        config: EngineConfig,
        network: N,
        mut journal: Box<dyn Journal>,
        tail: &Tail,
        keys: Arc<dyn HeaderKeys>,
    ) -> Result<Self, ConsensusError> {
        let speaks_from = journal.speaks_from()?.unwrap_or(0);
        // Alone, nobody else has heard anything.
        let asks = config.n > 1 && config.keeps(Protection::AmnesiaRule);
        let voice = Voice::of(&config.keys, config.me);
        let mut finality = Finality::new(config.me, config.n, keys, tail.diverged);
        if !config.keeps(Protection::CompleteProof) {
            finality.trust_few();
        }
        let load = |(header, signatures): &(Header, _)| finality.load(header, signatures);
        let news: Vec<News> = tail.headers.iter().flat_map(load).collect();
        let mut core = Self {
            engine: Engine::new(&config, tail.next_epoch)?,
            peers: (0..config.n).filter(|id| *id != config.me).map(|id| (id, Peer::default())).collect(),
            config,
            network,
            journal,
            voice,
            status: Arc::default(),
            emitted: tail.next_epoch,
            committed: tail.next_epoch,
            speech: if asks { Speech::default() } else { Speech::settled() },
            life: rand::random(),
            speaks_from,
            waiting: None,
            catchup: Catchup::default(),
            finality,
            faults: BTreeMap::new(),
            records: Vec::new(),
            unsaid: Vec::new(),
            gather: Gather::default(),
            ticked: false,
            waited: false,
            announced: tail.next_epoch,
            unaccepted: Vec::new(),
            events: Vec::new(),
            ticks: 0,
            told_pruned: false,
        };
        core.tell(news);
        core.rebuild()?;
        core.publish();
        Ok(core)
    }

    /// What an operator sees; kept up to date by each round.
    #[must_use]
    pub fn status(&self) -> Arc<Mutex<ConsensusStatus>> {
        Arc::clone(&self.status)
    }

    /// How much is held.
    #[must_use]
    #[cfg(feature = "testing")]
    pub fn sizes(&self) -> Sizes {
        Sizes {
            outbox_bytes: self.peers.values().map(|peer| peer.outbox.bytes()).sum(),
            remembered: self.speech.size() + self.peers.values().map(Peer::remembered).sum::<usize>(),
            signatures: self.finality.size(),
            fetched: self.catchup.size(),
            pending: self.records.len().max(self.unaccepted.len()),
        }
    }

    /// Makes the engine anew from the journal: at the start, and when it is found out that the journal isn't whole.
    fn rebuild(&mut self) -> Result<(), ConsensusError> {
        // What was handled and not passed on yet comes again.
        self.unsaid.clear();
        let records = self.journal.replay()?;
        let base = records.iter().map(Record::epoch).min().unwrap_or(self.committed).min(self.committed);
        let mut engine = Engine::new(&self.config, base)?;
        if let Some(last) = self.speaks_from.checked_sub(1) {
            engine.stay_silent(last);
        }
        engine.open_window(self.committed);
        self.engine = engine;
        self.speech.replayed();
        self.peers.values_mut().for_each(Peer::replayed);
        for record in records {
            let step = match record {
                Record::Proposal { epoch, value } => self.engine.propose(epoch, &value)?,
                Record::Frame { epoch, from, frame } => {
                    self.hear(from, epoch, &frame);
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

    /// Handles a group of inputs, with at most one flush of the journal, and returns what the main loop is told.
    ///
    /// # Errors
    /// Consensus has stopped for good: the journal failed. Nothing that wasn't durable has been said.
    #[cfg(feature = "testing")]
    pub fn round(
        &mut self,
        inputs: impl IntoIterator<Item = Input>,
    ) -> Result<Vec<ConsensusEvent>, ConsensusError> {
        let mut told = self.take(inputs)?;
        told.extend(self.settle()?);
        Ok(told)
    }

    /// The first half of a round: handles inputs. What has to be durable first waits for [`settle`](Self::settle).
    ///
    /// # Errors
    /// Consensus has stopped for good: the journal failed. Nothing that wasn't durable has been said.
    pub fn take(
        &mut self,
        inputs: impl IntoIterator<Item = Input>,
    ) -> Result<Vec<ConsensusEvent>, ConsensusError> {
        for input in inputs {
            match input {
                Input::Frame(event) => {
                    self.on_frame(&event)?;
                    if self.config.keeps(Protection::AcknowledgeWhenDurable) {
                        self.unaccepted.push(event);
                    } else {
                        event.accept();
                    }
                }
                Input::Answer(event) => self.on_answer(&event),
                Input::Propose { epoch, value } => self.on_propose(epoch, value)?,
                Input::Committed(header) => {
                    self.committed = self.committed.max(header.epoch.saturating_add(1));
                    let news = self.finality.committed(&header);
                    self.tell(news);
                    let step = self.engine.committed(self.committed);
                    self.led_to(step);
                }
                Input::Tick => self.ticked = true,
            }
        }
        Ok(std::mem::take(&mut self.events))
    }

    /// Whether anything waits for the disk.
    #[must_use]
    pub const fn speaks(&self) -> bool {
        !self.unsaid.is_empty()
    }

    /// Whether more that belongs into the same flush is about to come.
    #[must_use]
    pub fn gathers(&self) -> Wait {
        let enough = (self.config.n - max_faulty(self.config.n)) as usize;
        if self.unaccepted.len() < GROUP { self.gather.wait(&self.unsaid, enough) } else { Wait::No }
    }

    /// The second half: makes durable what something follows from, and says it.
    ///
    /// # Errors
    /// Consensus has stopped for good: the journal failed. Nothing that wasn't durable has been said.
    pub fn settle(&mut self) -> Result<Vec<ConsensusEvent>, ConsensusError> {
        let tick = std::mem::take(&mut self.ticked);
        let durable_first = self.config.keeps(Protection::JournalBeforeSend);
        // Inputs that nothing follows from can wait for those that something does, but not for ever.
        let waited = tick && (self.waited || self.records.is_empty());
        if durable_first && (self.speaks() || waited || self.unaccepted.len() >= GROUP) {
            self.flush()?;
        }
        if tick {
            self.waited = !self.records.is_empty();
        }
        if self.records.is_empty() || !durable_first {
            self.announced = self.committed;
        }
        for message in std::mem::take(&mut self.unsaid) {
            self.post(&message);
        }
        if tick {
            self.on_tick();
        }
        self.catch_up()?;
        self.prune()?;
        self.say();
        if tick {
            self.ask();
        }
        if !durable_first {
            self.flush()?;
        }
        self.publish();
        Ok(std::mem::take(&mut self.events))
    }

    /// Makes what was handled durable; from then on others may know.
    fn flush(&mut self) -> io::Result<()> {
        if !self.records.is_empty() {
            self.journal.append(&std::mem::take(&mut self.records))?;
        }
        for event in self.unaccepted.drain(..) {
            event.accept();
        }
        self.gather.flushed();
        self.waited = false;
        Ok(())
    }

    fn on_frame(&mut self, event: &LinkEvent) -> Result<(), ConsensusError> {
        if is_statement(&event.frame) {
            return self.on_statement(event);
        }
        let step = self.engine.handle(event.from, event.frame.clone());
        if step.changed
            && let Some(epoch) = epoch_of(&event.frame)
        {
            self.hear(event.from, epoch, &event.frame);
            if epoch >= self.emitted {
                self.gather.heard(event.from);
            }
            self.records.push(Record::Frame { epoch, from: event.from, frame: event.frame.clone() });
        }
        self.led_to(step);
        Ok(())
    }

    fn hear(&mut self, from: NodeId, epoch: u64, frame: &[u8]) {
        if let Some(peer) = self.peers.get_mut(&from).filter(|_| binds(frame)) {
            peer.hear(epoch, frame_id(frame), tag_of(frame));
        }
    }

    fn on_statement(&mut self, event: &LinkEvent) -> Result<(), ConsensusError> {
        let from = event.from;
        let base = self.engine.base();
        let Some(peer) = self.peers.get_mut(&from) else { return Ok(()) };
        match Statement::decode(event.frame.clone()) {
            Ok(Statement::Next(epoch)) => {
                peer.outbox.announce(epoch, self.network.connections().get(&from).copied());
            }
            Ok(Statement::Opens(epoch)) => {
                let step = self.engine.opens(epoch);
                self.led_to(step);
            }
            Ok(Statement::Signed(signed)) => {
                let news = self.finality.said(from, &signed);
                self.tell(news);
            }
            // Once a tick, whoever asks how often.
            Ok(Statement::Ask(_)) if peer.answered_at == Some(self.ticks) => {}
            Ok(Statement::Ask(life)) => {
                peer.answered_at = Some(self.ticks);
                let answer = Statement::Heard(peer.heard(life, base, self.finality.last_proof())).encode();
                self.network.send(from, CHANNEL_CONSENSUS, answer);
            }
            // One answer a question, and none to another life's.
            Ok(Statement::Heard(_)) if peer.asked.is_none() || self.speech.has_answered(from) => {}
            Ok(Statement::Heard(heard)) if heard.life != self.life => {}
            Ok(Statement::Heard(heard)) => self.on_heard(from, &heard)?,
            Err(_) => self.fault(from, FaultKind::Malformed),
        }
        Ok(())
    }

    /// A peer's answer about what it has heard of this guardian.
    fn on_heard(&mut self, from: NodeId, heard: &Heard) -> Result<(), ConsensusError> {
        let finality = &self.finality;
        let base = self.engine.base();
        let complete = |header: &Header, by: &_| finality.is_complete(&header.hash(), by);
        let from_epoch = self.speech.answer(from, heard, base, &self.voice, complete);
        if from_epoch > self.speaks_from && self.config.keeps(Protection::AmnesiaRule) {
            // Of committed epochs the journal is shortened all the time: nothing to worry about.
            if from_epoch > self.committed {
                tracing::warn!(
                    epoch = from_epoch,
                    peer = from,
                    "this guardian's journal lacks what it has said: it keeps silent in all epochs before this one"
                );
            }
            self.journal.set_speaks_from(from_epoch)?;
            self.speaks_from = from_epoch;
            self.flush()?;
            self.rebuild()?;
        }
        let needed = (self.config.n - max_faulty(self.config.n)) as usize;
        if self.speech.settle(needed)
            && let Some((epoch, value)) = self.waiting.take()
        {
            self.on_propose(epoch, value)?;
        }
        Ok(())
    }

    fn on_propose(&mut self, epoch: u64, value: Bytes) -> Result<(), ConsensusError> {
        if !self.speech.is_settled() {
            self.waiting = Some((epoch, value));
            return Ok(());
        }
        let first = !self.engine.is_open(epoch);
        let step = self.engine.propose(epoch, &value)?;
        if step.changed {
            if first {
                self.announce(epoch);
            }
            self.records.push(Record::Proposal { epoch, value });
        }
        self.led_to(step);
        Ok(())
    }

    /// Tells the others at once that an epoch begins, while the proposal waits for the disk.
    fn announce(&self, epoch: u64) {
        let said = Statement::Opens(epoch).encode();
        for peer in self.network.connections().keys() {
            self.network.send(*peer, CHANNEL_CONSENSUS, said.clone());
        }
    }

    fn on_answer(&mut self, event: &LinkEvent) {
        event.accept();
        let from = event.from;
        match Answer::decode(event.frame.clone()) {
            Ok(Answer::Epoch { header, signatures, batch: None }) => {
                // As many as were asked for.
                let Some(peer) = self.peers.get_mut(&from) else { return };
                let Some(left) = peer.signatures_asked.checked_sub(1) else { return };
                peer.signatures_asked = left;
                let news = self.finality.handed_on(header.epoch, header.hash(), &signatures);
                self.tell(news);
            }
            Ok(Answer::Epoch { header, signatures, batch: Some(batch) }) => {
                if !self.catchup.expects(from, header.epoch) {
                    return;
                }
                // Not final yet, as far as this peer knows: no fault, but somebody else may know more.
                let hash = header.hash();
                let Some(signatures) = self.finality.final_signatures(header.epoch, &hash, &signatures)
                else {
                    return self.catchup.shun(from);
                };
                match Batch::decode(batch) {
                    Ok(batch) if batch.epoch == header.epoch && batch.items_root() == header.items => {
                        self.catchup.arrived(from, header, signatures, batch);
                    }
                    _ => {
                        self.catchup.shun(from);
                        self.fault(from, FaultKind::BadHistory);
                    }
                }
            }
            Ok(Answer::BeginsAt(first)) => {
                let enough = max_faulty(self.config.n) as usize + 1;
                let begins = self.catchup.begins_at(from, self.emitted, first, enough);
                if let Some(first) = begins.filter(|_| !self.told_pruned) {
                    self.told_pruned = true;
                    self.events.push(ConsensusEvent::HistoryPruned { first });
                }
            }
            Err(_) => {
                self.catchup.shun(from);
                self.fault(from, FaultKind::BadHistory);
            }
        }
    }

    /// An honest peer may not know yet that this guardian's disk was put back, and send what the one before had asked for.
    /// Once it has answered what it was asked after it was told where this guardian is, it knows.
    fn may_be_honest(&self, node: NodeId, kind: FaultKind) -> bool {
        kind == FaultKind::EpochTooFar && !self.speech.has_answered(node)
    }

    fn fault(&mut self, node: NodeId, kind: FaultKind) {
        if self.may_be_honest(node, kind) {
            return;
        }
        tracing::debug!(node, %kind, "fault");
        *self.faults.entry(node).or_default().entry(kind).or_default() += 1;
    }

    fn tell(&mut self, news: Vec<News>) {
        self.events.extend(news.into_iter().map(|news| match news {
            News::Signatures { epoch, signatures } => ConsensusEvent::Signatures { epoch, signatures },
            News::Diverged { epoch, own, others } => {
                tracing::error!(
                    epoch,
                    "this guardian's state differs from the others': it signs nothing more"
                );
                ConsensusEvent::Diverged { epoch, own, others }
            }
        }));
    }

    fn on_tick(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
        self.catchup.tick();
        let lacking = self.finality.lacking().filter(|_| self.ticks.is_multiple_of(REPAIR));
        if let Some((first, count)) = lacking {
            let count = u8::try_from(count).unwrap_or(MAX_COUNT).min(MAX_COUNT);
            let request = Request { first, count, batches: false }.encode();
            for id in self.network.connections().keys() {
                if let Some(peer) = self.peers.get_mut(id)
                    && self.network.send(*id, CHANNEL_HISTORY_REQUEST, request.clone())
                {
                    peer.signatures_asked = MAX_COUNT;
                }
            }
        }
    }

    /// What an input has led to: only messages that [bind](binds) wait until it is durable. What was agreed is
    /// agreed, whether this guardian remembers why or not.
    fn led_to(&mut self, step: Step) {
        let (bound, free) = step.messages.into_iter().partition(|message| binds(&message.frame));
        let bound: Vec<Outgoing> = bound;
        self.unsaid.extend(bound);
        if step.wants_proposal.is_some() {
            self.gather.asked();
        }
        self.output(Step { messages: free, ..step });
    }

    fn post(&mut self, message: &Outgoing) {
        if binds(&message.frame) {
            self.speech.say(message.epoch, &message.frame);
        }
        for (id, peer) in &mut self.peers {
            if message.target == Target::All || message.target == Target::Node(*id) {
                peer.outbox.push(message.epoch, message.frame.clone());
            }
        }
    }

    /// Passes on what is durable, or need not be.
    fn output(&mut self, step: Step) {
        for message in &step.messages {
            self.post(message);
        }
        for (node, kind) in step.faults {
            self.fault(node, kind);
        }
        for batch in step.batches {
            self.emit(batch, None);
        }
        if let Some(epoch) = step.wants_proposal {
            self.events.push(ConsensusEvent::ProposalWanted { epoch });
        }
    }

    fn emit(&mut self, batch: Batch, proven: Option<Header>) {
        if batch.epoch == self.emitted {
            self.emitted += 1;
            self.catchup.progress(self.emitted);
            self.events.push(ConsensusEvent::Batch { batch, proven });
        }
    }

    fn catch_up(&mut self) -> io::Result<()> {
        while self.emitted < self.committed + AHEAD {
            let Some(proven) = self.catchup.take(self.emitted) else { break };
            let complete = self.finality.proven(&proven.header, &proven.signatures);
            self.emit(proven.batch, complete.then_some(proven.header));
            let step = self.engine.skip_to(self.emitted);
            self.output(step);
            if !self.config.keeps(Protection::JournalledSkip) {
                self.engine.prune(self.emitted);
                self.journal.truncate(self.emitted)?;
            }
        }
        let next = |id| self.peers.get(id).and_then(|peer| peer.outbox.next());
        let connections = self.network.connections();
        let ahead: Vec<(NodeId, u64)> = connections
            .keys()
            .filter_map(|id| Some((*id, next(id).filter(|next| *next > self.emitted)?)))
            .collect();
        for (peer, request) in self.catchup.requests(self.emitted, &ahead) {
            self.network.send(peer, CHANNEL_HISTORY_REQUEST, request.encode());
        }
        Ok(())
    }
}

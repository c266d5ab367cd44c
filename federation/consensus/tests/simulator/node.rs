//! One guardian: its disk, and while it runs, the core with a small main loop around it.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use federation_consensus::engine::{EngineConfig, FaultKind};
use federation_consensus::header::HeaderKeys;
use federation_consensus::links::testing::{Receiver, Sender};
use federation_consensus::links::{
    CHANNEL_CONSENSUS, CHANNEL_HISTORY_ANSWER, CHANNEL_HISTORY_REQUEST, LinkEvent,
};
use federation_consensus::runner::core::{Core, Input, Sizes};
use federation_consensus::runner::{ConsensusEvent, Network, Tail, answers};
use federation_consensus::{Batch, Bytes, NodeId, max_faulty};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::adversary::Adversary;
use crate::checks::{Checks, Fault};
use crate::disk::{Contents, Disk, SimJournal, Staged, TxId, View, encode};
use crate::keys::FakeKeys;
use crate::life::{Life, Manner};
use crate::network::{CHANNELS, SimNetwork};
use crate::schedule::MAX_PROPOSAL;

/// Everything in these tests is ready at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("nothing here waits"),
    }
}

pub struct Node {
    pub config: EngineConfig,
    pub keys: FakeKeys,
    pub disk: Disk,
    /// An earlier copy of the disk.
    pub copy: Option<Contents>,
    pub adversary: Option<Arc<Mutex<Adversary>>>,
    pub running: Option<Running>,
    /// The step at which it is started again.
    pub restart_at: u64,
    /// It may have forgotten what it said in epochs below.
    pub amnesiac_until: Option<u64>,
}

/// One life.
pub struct Running {
    core: Core<SimNetwork>,
    pub life: Life,
    pub network: SimNetwork,
    pub receivers: BTreeMap<NodeId, Receiver>,
    pub inboxes: [VecDeque<LinkEvent>; CHANNELS],
    inputs: VecDeque<Input>,
    events: VecDeque<ConsensusEvent>,
    staged: Option<Staged>,
    /// The epoch that was last proposed in, as far as this life knows.
    proposed: Option<u64>,
}

impl Node {
    pub const fn honest(&self) -> bool {
        self.adversary.is_none()
    }

    pub const fn id(&self) -> NodeId {
        self.config.me
    }

    pub fn next_epoch(&self) -> u64 {
        self.disk.lock().database.next_epoch()
    }

    /// Starts it. It may die while it starts; then it isn't running afterwards.
    pub fn start(&mut self, session: [u8; 16], fuse: Option<(u32, Manner)>) -> Result<(), Fault> {
        let peers = || (0..self.config.n).filter(|id| *id != self.config.me);
        let receivers: BTreeMap<_, _> = peers().map(|id| (id, Receiver::new(id))).collect();
        let life = Life::new(receivers.clone());
        if let Some((operations, manner)) = fuse {
            life.light(operations, manner);
        }
        let senders = peers().map(|id| (id, Sender::new(session))).collect();
        let network = SimNetwork { senders, life: life.clone(), adversary: self.adversary.clone() };
        let journal = SimJournal { disk: self.disk.clone(), life: life.clone() };
        let tail = now(Tail::read(&View(self.disk.clone()))).map_err(|e| self.stopped(&e))?;
        let core =
            Core::new(self.config.clone(), network.clone(), Box::new(journal), &tail, Arc::new(self.keys));
        match core {
            Ok(core) if !life.is_dead() => {
                self.running = Some(Running {
                    core,
                    life,
                    network,
                    receivers,
                    inboxes: Default::default(),
                    inputs: VecDeque::new(),
                    events: VecDeque::new(),
                    staged: None,
                    proposed: None,
                });
                Ok(())
            }
            Err(error) if !life.is_dead() => Err(self.stopped(&error)),
            _ => Ok(()),
        }
    }

    fn stopped(&self, why: &dyn std::fmt::Display) -> Fault {
        Fault::Stopped { node: self.config.me, why: why.to_string() }
    }

    /// Hands the core up to `group` of what waits for it.
    pub fn round(&mut self, group: usize, tick: bool, rng: &mut StdRng) -> Result<(), Fault> {
        let Some(running) = &mut self.running else { return Ok(()) };
        let mut inputs = Vec::new();
        if tick {
            inputs.push(Input::Tick);
        }
        while inputs.len() < group {
            // Channels and the main loop come through queues of their own.
            let [frames, answers] = [CHANNEL_CONSENSUS, CHANNEL_HISTORY_ANSWER].map(usize::from);
            let ready = [
                running.inputs.len().min(1),
                running.inboxes[answers].len().min(1),
                running.inboxes[frames].len().min(4),
            ];
            let all: usize = ready.iter().sum();
            if all == 0 {
                break;
            }
            let pick = rng.gen_range(0..all);
            inputs.extend(if pick < ready[0] {
                running.inputs.pop_front()
            } else if pick < ready[0] + ready[1] {
                running.inboxes[answers].pop_front().map(Input::Answer)
            } else {
                running.inboxes[frames].pop_front().map(Input::Frame)
            });
        }
        if inputs.is_empty() {
            return Ok(());
        }
        let result = running.core.round(inputs);
        if running.life.is_dead() {
            return Ok(()); // Whoever looks next, finds it.
        }
        match result {
            Ok(events) => {
                running.events.extend(events);
                Ok(())
            }
            Err(error) => Err(self.stopped(&error)),
        }
    }

    /// The main loop does one thing.
    pub fn main_loop(&mut self, checks: &mut Checks, rng: &mut StdRng) -> Result<(), Fault> {
        let me = self.config.me;
        let honest = self.honest();
        let Some(running) = &mut self.running else { return Ok(()) };
        if let Some(staged) = running.staged.take() {
            let mut contents = self.disk.lock();
            let database = &mut contents.database;
            if let Some(id) = staged.new.iter().find(|id| database.applied.contains(id)) {
                return Err(Fault::Twice { id: *id, node: me });
            }
            let mut header = staged.header;
            if honest {
                checks.committed(me, Batch::hash(&staged.batch), &header)?;
            } else if let Some(adversary) = &self.adversary {
                header = adversary.lock().unwrap().header(header);
            }
            database.commit(staged);
            running.inputs.push_back(Input::Committed(header));
            return Ok(());
        }
        match running.events.pop_front() {
            Some(ConsensusEvent::Batch { batch, proven }) => {
                let contents = self.disk.lock();
                let expected = contents.database.next_epoch();
                if batch.epoch != expected {
                    return Err(Fault::OutOfOrder { node: me, epoch: batch.epoch, expected });
                }
                let staged = contents.database.stage(&batch);
                if honest && proven.is_some_and(|proven| proven != staged.header) {
                    return Err(Fault::FalseProof { node: me, epoch: batch.epoch });
                }
                running.staged = Some(staged);
            }
            Some(ConsensusEvent::ProposalWanted { epoch }) => self.propose(epoch, rng),
            Some(ConsensusEvent::Signatures { epoch, signatures }) => {
                let mut contents = self.disk.lock();
                let entry = contents.database.history.get_mut(epoch as usize);
                let entry = entry.ok_or(Fault::FalseSignatures { node: me, epoch })?;
                let hash = entry.header.hash();
                let right = signatures.iter().all(|(node, s)| self.keys.verify(*node, &hash, s));
                if honest && (!right || signatures.len() <= max_faulty(self.config.n) as usize) {
                    return Err(Fault::FalseSignatures { node: me, epoch });
                }
                if let Some(adversary) = &self.adversary {
                    adversary.lock().unwrap().learns(entry.header, &signatures);
                }
                entry.signatures.extend(signatures);
            }
            Some(ConsensusEvent::Diverged { epoch, .. }) if honest => {
                return Err(Fault::Diverged { node: me, epoch });
            }
            Some(ConsensusEvent::HistoryPruned { .. }) if honest => {
                return Err(self.stopped(&"it believes that history begins late"));
            }
            Some(_) => {}
            None => {
                let contents = self.disk.lock();
                let next = contents.database.next_epoch();
                let something = !contents.database.pool.is_empty();
                drop(contents);
                if something && running.proposed.is_none_or(|epoch| epoch < next) {
                    self.propose(next, rng);
                }
            }
        }
        Ok(())
    }

    /// Whether a batch is applied and not committed.
    pub fn has_staged(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.staged.is_some())
    }

    fn propose(&mut self, epoch: u64, rng: &mut StdRng) {
        let Some(running) = &mut self.running else { return };
        running.proposed = Some(epoch);
        let contents = self.disk.lock();
        let mut drawn: Vec<(TxId, Bytes)> =
            contents.database.pool.iter().map(|(id, bytes)| (*id, bytes.clone())).collect();
        drawn.shuffle(rng);
        let mut room = MAX_PROPOSAL;
        drawn.retain(|(_, bytes)| {
            let size = bytes.len() + 10;
            let fits = size <= room;
            room -= if fits { size } else { 0 };
            fits
        });
        let mut value = encode(&drawn);
        if let Some(adversary) = &self.adversary {
            let known: Vec<TxId> = contents.database.applied.iter().rev().take(50).copied().collect();
            value = adversary.lock().unwrap().contribution(value, &known);
        }
        running.inputs.push_back(Input::Propose { epoch, value });
    }

    /// Answers a peer's request for past epochs, with so many of them.
    pub fn serve(&mut self) -> Result<u64, Fault> {
        let Some(running) = &mut self.running else { return Ok(0) };
        // Nobody consumes what comes on the other channels; as in the links, it has reached its end.
        let used = [CHANNEL_CONSENSUS, CHANNEL_HISTORY_REQUEST, CHANNEL_HISTORY_ANSWER].map(usize::from);
        let unused = running.inboxes.iter_mut().enumerate().filter(|(channel, _)| !used.contains(channel));
        unused.for_each(|(_, inbox)| inbox.drain(..).for_each(|event| event.accept()));
        let Some(event) = running.inboxes[CHANNEL_HISTORY_REQUEST as usize].pop_front() else { return Ok(0) };
        event.accept();
        let view = View(self.disk.clone());
        let answers = now(answers(event.frame.clone(), &view, self.config.me, &self.keys, true));
        let answers = answers.map_err(|e| self.stopped(&e))?;
        let count = answers.len() as u64;
        if let Some(running) = &self.running {
            answers
                .into_iter()
                .all(|answer| running.network.send(event.from, CHANNEL_HISTORY_ANSWER, answer));
        }
        Ok(count)
    }

    /// Whether nothing is left to do for it.
    pub fn is_idle(&self) -> bool {
        self.running.as_ref().is_some_and(|running| {
            running.staged.is_none() && running.events.is_empty() && running.inputs.is_empty()
        })
    }

    /// What its operator would see.
    pub fn status(&self) -> String {
        let Some(running) = &self.running else { return "down".to_owned() };
        let status = running.core.status();
        let status = status.lock().unwrap();
        let next: Vec<_> = status.peers.iter().map(|(id, peer)| (*id, peer.next_epoch)).collect();
        let waiting: Vec<usize> = running.inboxes.iter().map(VecDeque::len).collect();
        format!(
            "next {} output {} speaks from {} catching up {} final {:?} peers at {next:?} connected {:?} inboxes {waiting:?}",
            status.next_epoch,
            status.next_output,
            status.speaks_from,
            status.catching_up,
            status.last_final,
            running.network.connections().keys().collect::<Vec<_>>(),
        )
    }

    /// What it blames honest peers for, if anything, and what has grown too large. Those who, like itself, have never lost a disk it
    /// may blame for nothing; the others for what they can't know better, and never for being far ahead.
    pub fn audit(&self, trusted: &[NodeId], honest: &[NodeId], most: &mut Sizes) -> Result<(), Fault> {
        let Some(running) = &self.running else { return Ok(()) };
        let me = self.config.me;
        let status = running.core.status();
        let status = status.lock().unwrap();
        for peer in trusted {
            if let Some(kind) = status.peers.get(peer).and_then(|peer| peer.faults.keys().next()) {
                return Err(Fault::Blamed { node: *peer, by: me, kind: kind.to_string() });
            }
        }
        let far = FaultKind::EpochTooFar;
        let blamed = |peer: &&NodeId| status.peers.get(*peer).is_some_and(|p| p.faults.contains_key(&far));
        if let Some(peer) = honest.iter().find(blamed) {
            return Err(Fault::Blamed { node: *peer, by: me, kind: far.to_string() });
        }
        let sizes = running.core.sizes();
        let n = self.config.n as usize;
        let bounds = [
            ("bytes in outboxes", sizes.outbox_bytes, &mut most.outbox_bytes, n * (8 << 20)),
            ("remembered frames", sizes.remembered, &mut most.remembered, n * n * n * 400),
            ("signatures", sizes.signatures, &mut most.signatures, n * 400),
            ("fetched epochs", sizes.fetched, &mut most.fetched, 300),
            ("waiting inputs", sizes.pending, &mut most.pending, 600),
        ];
        for (what, size, most, bound) in bounds {
            *most = size.max(*most);
            if size > bound {
                return Err(Fault::Unbounded { node: me, what: format!("{what}: {size} > {bound}") });
            }
        }
        Ok(())
    }
}

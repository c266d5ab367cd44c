//! A federation in a seeded world: one thing after another happens to it, none of them twice the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use federation_consensus::engine::EngineConfig;
use federation_consensus::{Bytes, NodeId, max_faulty};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::adversary::Adversary;
use crate::checks::{Checks, Fault};
use crate::disk::{Disk, TxId};
use crate::keys::{self, FakeKeys};
use crate::life::Manner;
use crate::network::{Link, MAX_QUEUED};
use crate::node::Node;
use crate::schedule::{EPOCHS, MAX_PROPOSAL, Schedule, scale};
use crate::tally::Tally;

/// The most steps in bad weather.
const STORM: u64 = 40_000;
/// The most steps in which nobody commits anything, once it has cleared: many times what an epoch takes.
const PATIENCE: u64 = 60_000;

/// What is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Everything goes wrong that can.
    Storm,
    /// Nothing breaks any more, everyone is back, work goes on until the last epoch.
    Calm,
    /// No more work comes in.
    Drain,
}

pub struct World {
    n: u16,
    rng: StdRng,
    schedule: Schedule,
    nodes: Vec<Node>,
    links: Vec<Link>,
    checks: Checks,
    phase: Phase,
    step: u64,
    /// When an honest guardian last committed something, and how much all have.
    progressed: u64,
    committed: u64,
    partition_until: u64,
    sessions: u64,
    next_tx: TxId,
    /// What honest guardians have accepted, and which of it was lost with their disks.
    accepted: BTreeSet<TxId>,
    excused: BTreeSet<TxId>,
    pub tally: Tally,
}

impl World {
    pub fn new(n: u16, seed: u64, adjust: impl FnOnce(&mut Schedule)) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut schedule = Schedule::new(n, &mut rng);
        adjust(&mut schedule);
        let nodes = keys::coin(n)
            .into_iter()
            .zip(0..n)
            .map(|(coin, me)| {
                let mut config = EngineConfig::new(me, n, coin);
                config.max_proposal = MAX_PROPOSAL;
                config.without = schedule.without;
                let liar = schedule.liars.iter().find(|(id, ..)| *id == me);
                let adversary = liar.map(|(_, lies, rate)| {
                    Arc::new(Mutex::new(Adversary::new(me, n, lies.clone(), *rate, rng.r#gen())))
                });
                Node {
                    config,
                    keys: FakeKeys::new(me, n),
                    disk: Disk::default(),
                    copy: None,
                    adversary,
                    running: None,
                    restart_at: 0,
                    amnesiac_until: None,
                }
            })
            .collect();
        let links = (0..n as usize * n as usize).map(|_| Link::default()).collect();
        let mut world = Self {
            n,
            rng,
            nodes,
            links,
            checks: Checks::new(n),
            phase: Phase::Storm,
            step: 0,
            progressed: 0,
            committed: 0,
            partition_until: 0,
            sessions: 0,
            next_tx: 0,
            accepted: BTreeSet::new(),
            excused: BTreeSet::new(),
            tally: Tally { seeds: 1, byzantine: schedule.liars.len() as u64, ..Tally::default() },
            schedule,
        };
        if world.schedule.slow {
            for link in &mut world.links {
                link.slow = world.rng.gen_bool(0.3);
            }
        }
        world
    }

    /// What kind of world it is.
    pub fn describe(&self) -> String {
        format!("n {} phase {:?} step {} {:?}", self.n, self.phase, self.step, self.schedule)
    }

    /// Runs until everyone honest has everything.
    pub fn run(&mut self) -> Result<(), Fault> {
        while !self.advance()? {}
        self.finish()
    }

    /// One step; `true` at the end.
    fn advance(&mut self) -> Result<bool, Fault> {
        self.step += 1;
        self.tally.steps += 1;
        if self.phase == Phase::Storm {
            self.weather()?;
        }
        self.restart_the_dead()?;
        let tick = self.rng.gen_bool(self.schedule.tick);
        match self.rng.gen_range(0..100) {
            _ if tick => self.round(true)?,
            0..60 => {
                let (from, to) = (self.any(), self.any());
                if from != to {
                    self.serve_link(from, to)?;
                }
            }
            60..82 => self.round(false)?,
            82..93 => {
                let id = self.any();
                let dawdles = self.phase == Phase::Storm && self.rng.gen_bool(self.schedule.dawdle);
                let node = &mut self.nodes[id as usize];
                if !(dawdles && node.has_staged()) {
                    node.main_loop(&mut self.checks, &mut self.rng)?;
                }
            }
            93..96 => {
                let id = self.any();
                self.tally.past_epochs += self.nodes[id as usize].serve()?;
            }
            96..98 => self.submit(),
            98 => self.inject(),
            _ => self.look_around()?,
        }
        self.progress()
    }

    fn any(&mut self) -> NodeId {
        self.rng.gen_range(0..self.n)
    }

    fn link(&mut self, from: NodeId, to: NodeId) -> &mut Link {
        &mut self.links[from as usize * self.n as usize + to as usize]
    }

    fn honest(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.honest())
    }

    /// Something moves between two guardians.
    fn serve_link(&mut self, from: NodeId, to: NodeId) -> Result<(), Fault> {
        let n = self.n as usize;
        let link = &mut self.links[from as usize * n + to as usize];
        if link.slow && self.rng.gen_bool(0.97) {
            return Ok(());
        }
        let burst = if link.slow { 64 } else { self.schedule.burst };
        let mut count = || self.rng.gen_range(0..=burst);
        let (transmit, deliver, acks) = (count(), count(), count());
        let greeting = self.rng.gen_bool(0.9);
        let mut pair = self.nodes.iter_mut().enumerate().filter(|(id, _)| *id == from as usize || *id == to as usize);
        let (Some((first, a)), Some((_, b))) = (pair.next(), pair.next()) else { return Ok(()) };
        let (sender, receiver) = if first == from as usize { (a, b) } else { (b, a) };
        let honest = sender.honest();
        let stream = sender.running.as_ref().map(|running| running.network.senders[&to].clone());
        let Some(target) = &mut receiver.running else { return Ok(()) };
        let other = &target.receivers[&from];
        let mut sent = Vec::new();
        if let Some(stream) = &stream {
            if !link.is_up() && !link.blocked {
                link.open(stream, other, greeting);
            }
            sent = link.transmit(stream, transmit);
        }
        self.tally.frames += sent.len() as u64;
        link.deliver(stream.as_ref(), other, deliver, &mut target.inboxes);
        link.acknowledge(other, target.life.may_acknowledge(from));
        if let Some(stream) = &stream {
            link.read_acks(stream, acks);
        }
        if honest { self.note(from, &sent) } else { Ok(()) }
    }

    /// An honest guardian's frames have left it.
    fn note(&mut self, from: NodeId, frames: &[Bytes]) -> Result<(), Fault> {
        let nodes = &self.nodes;
        for frame in frames {
            self.checks.said(from, frame, || {
                let others = nodes.iter().filter(|node| node.honest() && node.id() != from);
                others.map(|node| node.disk.lock().journal.records.clone()).collect()
            })?;
        }
        Ok(())
    }

    fn round(&mut self, tick: bool) -> Result<(), Fault> {
        let id = self.any();
        let most = self.schedule.group * (self.n as usize).div_ceil(4);
        let group = self.rng.gen_range(1..=most);
        self.nodes[id as usize].round(group, tick, &mut self.rng)?;
        let died = self.nodes[id as usize].running.as_ref().is_some_and(|running| running.life.is_dead());
        if died { self.bury(id) } else { Ok(()) }
    }

    /// A client hands a transaction to one guardian only.
    fn submit(&mut self) {
        let waiting = self.next_tx - self.accepted.intersection(&self.applied()).count() as u64;
        if self.phase == Phase::Drain || waiting >= self.schedule.load as u64 + self.excused.len() as u64 {
            return;
        }
        let id = self.any();
        let size = *[0, 10, 100, 1000].choose(&mut self.rng).unwrap_or(&0);
        let node = &self.nodes[id as usize];
        if node.running.is_some() {
            let bytes = Bytes::from(vec![7; size]);
            node.disk.lock().database.pool.insert(self.next_tx, bytes);
            if node.honest() {
                self.accepted.insert(self.next_tx);
            } else {
                self.excused.insert(self.next_tx);
            }
            self.next_tx += 1;
        }
    }

    fn applied(&self) -> BTreeSet<TxId> {
        let best = self.honest().max_by_key(|node| node.next_epoch());
        best.map(|node| node.disk.lock().database.applied.clone()).unwrap_or_default()
    }

    /// A liar says something unasked.
    fn inject(&mut self) {
        if self.phase == Phase::Drain && self.rng.gen_bool(0.9) {
            return;
        }
        let Some((liar, ..)) = self.schedule.liars.choose(&mut self.rng) else { return };
        let liar = *liar;
        let to = self.any();
        let node = &self.nodes[liar as usize];
        let (Some(adversary), Some(running)) = (&node.adversary, &node.running) else { return };
        let Some(stream) = running.network.senders.get(&to) else { return };
        for (channel, frame) in adversary.lock().unwrap().inject(node.next_epoch()) {
            let _ = stream.send(channel, frame, MAX_QUEUED);
        }
    }

    /// The checks that are too dear for every step.
    fn look_around(&mut self) -> Result<(), Fault> {
        let id = self.any() as usize;
        let node = &self.nodes[id];
        if !node.honest() {
            return Ok(());
        }
        // Who has lost a disk may be blamed for what it doesn't remember, and blames others for what it has said itself.
        let trusted: Vec<NodeId> =
            self.honest().map(Node::id).filter(|id| self.checks.kept_its_disk(*id)).collect();
        let trusted = if trusted.contains(&node.id()) { trusted } else { Vec::new() };
        node.audit(&trusted, &mut self.tally.most)?;
        let lowest = self.honest().map(Node::next_epoch).min().unwrap_or(0);
        self.checks.forget(lowest.saturating_sub(40));
        if self.phase == Phase::Storm && self.rng.gen_bool(0.2) {
            let contents = self.nodes[id].disk.lock().clone();
            self.nodes[id].copy = Some(contents);
        }
        Ok(())
    }

    /// What breaks in this step.
    fn weather(&mut self) -> Result<(), Fault> {
        let Schedule { drop, partition, crash, crash_all, .. } = self.schedule;
        if self.rng.gen_bool(drop) {
            let (from, to) = (self.any(), self.any());
            self.cut(from, to);
            self.tally.drops += 1;
        }
        if self.partition_until != 0 && self.step >= self.partition_until {
            self.heal();
        } else if self.partition_until == 0 && self.rng.gen_bool(partition) {
            self.part();
        }
        if self.rng.gen_bool(crash) {
            let id = self.any();
            self.crash(id)?;
        }
        if self.rng.gen_bool(crash_all) {
            self.tally.crashes_of_all += 1;
            for id in 0..self.n {
                self.crash(id)?;
            }
        }
        Ok(())
    }

    fn cut(&mut self, from: NodeId, to: NodeId) {
        let running = self.nodes[from as usize].running.as_ref();
        let stream = running.and_then(|running| running.network.senders.get(&to).cloned());
        self.link(from, to).drop_connection(stream.as_ref());
    }

    /// Two sides that don't hear each other, or some links that don't carry.
    fn part(&mut self) {
        self.tally.partitions += 1;
        let time = self.rng.gen_range(1..=self.schedule.partition_time);
        self.partition_until = self.step + time;
        let one_way = self.rng.gen_bool(0.3);
        let sides: Vec<bool> = (0..self.n).map(|_| self.rng.r#gen()).collect();
        for from in 0..self.n {
            for to in 0..self.n {
                let apart = sides[from as usize] != sides[to as usize];
                if if one_way { self.rng.gen_bool(0.3) } else { apart } {
                    self.link(from, to).blocked = true;
                    self.cut(from, to);
                }
            }
        }
    }

    fn heal(&mut self) {
        self.partition_until = 0;
        self.links.iter_mut().for_each(|link| link.blocked = false);
    }

    /// A guardian dies, now or in the middle of something soon. Liars don't: they have said worse.
    fn crash(&mut self, id: NodeId) -> Result<(), Fault> {
        if !self.nodes[id as usize].honest() {
            return Ok(());
        }
        let soon = self.rng.gen_bool(self.schedule.fuse);
        let fuse = self.fuse();
        let Some(running) = &self.nodes[id as usize].running else { return Ok(()) };
        if soon && !running.life.is_lit() {
            running.life.light(fuse.0, fuse.1);
            return Ok(());
        }
        running.life.end();
        self.bury(id)
    }

    fn fuse(&mut self) -> (u32, Manner) {
        let manner = match self.rng.gen_range(0..4) {
            0 => Manner::Before,
            1 => Manner::After,
            2 => Manner::Torn(self.rng.gen_range(0..4)),
            _ => Manner::Torn(1),
        };
        (self.rng.gen_range(0..30), manner)
    }

    /// What a death leaves behind. Some of what it had handed to the links may have left, and arrive.
    fn bury(&mut self, id: NodeId) -> Result<(), Fault> {
        self.tally.crashes += 1;
        let Some(running) = self.nodes[id as usize].running.take() else { return Ok(()) };
        let down = self.rng.gen_range(1..=self.schedule.downtime);
        self.nodes[id as usize].restart_at = self.step + down;
        for peer in (0..self.n).filter(|peer| *peer != id) {
            let left = if self.rng.gen_bool(0.5) { 0 } else { self.rng.gen_range(0..60) };
            let stream = running.network.senders[&peer].clone();
            let sent = self.link(id, peer).orphan(&stream, left);
            self.note(id, &sent)?;
            // Its last acknowledgements may still be read.
            let receiver = &running.receivers[&peer];
            let limit = running.life.may_acknowledge(peer);
            let heard = self.rng.gen_bool(0.5);
            if let Some(other) = &self.nodes[peer as usize].running {
                let stream = other.network.senders[&id].clone();
                let link = self.link(peer, id);
                if heard {
                    link.acknowledge(receiver, limit);
                    link.read_acks(&stream, usize::MAX);
                }
                link.drop_connection(Some(&stream));
            } else {
                self.link(peer, id).drop_connection(None);
            }
        }
        Ok(())
    }

    fn restart_the_dead(&mut self) -> Result<(), Fault> {
        for id in 0..self.n {
            let node = &self.nodes[id as usize];
            if node.running.is_some() || (self.phase == Phase::Storm && node.restart_at > self.step) {
                continue;
            }
            let first = self.sessions < u64::from(self.n);
            if self.phase == Phase::Storm && !first {
                self.maybe_lose_disk(id);
            }
            self.sessions += 1;
            let mut session = [0; 16];
            session[..8].copy_from_slice(&self.sessions.to_be_bytes());
            let fuse = self.fuse();
            let at_once = self.phase == Phase::Storm && !first && self.rng.gen_bool(0.1);
            let honest = self.nodes[id as usize].honest();
            let fuse = Some(fuse).filter(|_| at_once && honest);
            self.nodes[id as usize].start(session, fuse)?;
            if self.nodes[id as usize].running.is_none() {
                self.tally.crashes += 1;
                self.nodes[id as usize].restart_at = self.step + 1;
            }
        }
        Ok(())
    }

    /// Wipes a guardian or puts it back to an earlier copy, as long as not more than f are faulty or forgetful.
    fn maybe_lose_disk(&mut self, id: NodeId) {
        let forgetful = self.nodes.iter().filter(|node| node.amnesiac_until.is_some()).count();
        if !self.nodes[id as usize].honest()
            || self.schedule.liars.len() + forgetful >= max_faulty(self.n) as usize
        {
            return;
        }
        let node = &mut self.nodes[id as usize];
        let before = node.disk.lock().clone();
        if self.rng.gen_bool(self.schedule.wipe) {
            let mut contents = node.disk.lock();
            contents.journal = Default::default();
            if self.rng.gen_bool(0.7) {
                contents.database = Default::default();
            }
            self.tally.wipes += 1;
        } else if self.rng.gen_bool(self.schedule.rollback)
            && let Some(copy) = node.copy.take()
        {
            *node.disk.lock() = copy;
            self.tally.rollbacks += 1;
        } else {
            return;
        }
        // It may have spoken up to the end of the window of what it had output, a little more than it had committed.
        let spoken = before.journal.records.iter().map(|record| record.epoch() + 1).max().unwrap_or(0);
        node.amnesiac_until = Some(spoken.max(before.database.next_epoch() + node.config.window));
        node.copy = None;
        let contents = node.disk.lock();
        let kept = |id: &TxId| {
            contents.database.pool.contains_key(id) || contents.database.applied.contains(id)
        };
        self.excused.extend(before.database.pool.keys().filter(|id| !kept(id)));
        self.checks.disk_lost(id);
    }

    /// Whether it is over, or a new phase begins.
    fn progress(&mut self) -> Result<bool, Fault> {
        if !self.step.is_multiple_of(16) {
            return Ok(false);
        }
        let epochs: Vec<u64> = self.honest().map(Node::next_epoch).collect();
        let (Some(low), Some(high)) = (epochs.iter().min().copied(), epochs.iter().max().copied()) else {
            return Ok(true);
        };
        for node in &mut self.nodes {
            if node.amnesiac_until.is_some_and(|until| until <= low) {
                node.amnesiac_until = None;
            }
        }
        let scale = scale(self.n);
        let committed = epochs.iter().sum();
        if committed > self.committed {
            self.committed = committed;
            self.progressed = self.step;
        }
        match self.phase {
            Phase::Storm if high >= EPOCHS || self.step > STORM * scale => {
                self.phase = Phase::Calm;
                self.progressed = self.step;
                self.heal();
            }
            Phase::Calm if low >= EPOCHS => self.phase = Phase::Drain,
            Phase::Drain if low == high && self.settled(low) => return Ok(true),
            Phase::Calm | Phase::Drain if self.step - self.progressed > PATIENCE * scale => {
                return Err(Fault::Stuck { why: self.state() });
            }
            _ => {}
        }
        Ok(false)
    }

    /// Nothing waits anywhere, and the last epoch is final.
    fn settled(&self, next: u64) -> bool {
        self.honest().all(|node| {
            let contents = node.disk.lock();
            let last = contents.database.history.get(next.saturating_sub(1) as usize);
            node.is_idle()
                && contents.database.pool.is_empty()
                && last.is_some_and(|last| last.signatures.len() > max_faulty(self.n) as usize)
        })
    }

    fn state(&self) -> String {
        let nodes = self.nodes.iter().map(|node| {
            let contents = node.disk.lock();
            let last = contents.database.history.last().map_or(0, |last| last.signatures.len());
            format!(
                "{}{}: epoch {} pool {} last signed by {last} idle {} amnesiac {:?} journal {} {}",
                node.id(),
                if node.honest() { "" } else { " (liar)" },
                contents.database.next_epoch(),
                contents.database.pool.len(),
                node.is_idle(),
                node.amnesiac_until,
                contents.journal.records.len(),
                node.status(),
            )
        });
        nodes.collect::<Vec<_>>().join("\n   ")
    }

    /// All that was accepted is there.
    fn finish(&mut self) -> Result<(), Fault> {
        let applied: BTreeMap<NodeId, BTreeSet<TxId>> =
            self.honest().map(|node| (node.id(), node.disk.lock().database.applied.clone())).collect();
        for id in self.accepted.difference(&self.excused) {
            if applied.values().any(|applied| !applied.contains(id)) {
                return Err(Fault::Lost { id: *id });
            }
        }
        self.tally.epochs += self.honest().map(Node::next_epoch).max().unwrap_or(0);
        self.tally.transactions += self.accepted.len() as u64;
        self.tally.tolerated += self.checks.tolerated;
        Ok(())
    }
}

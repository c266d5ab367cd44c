//! A federation in a seeded world: one thing after another happens to it, none of them twice the same.

mod faults;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use federation_consensus::engine::EngineConfig;
use federation_consensus::{NodeId, max_faulty};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::adversary::Adversary;
use crate::checks::{Checks, Fault};
use crate::disk::{Disk, TxId};
use crate::keys::{self, FakeKeys};
use crate::network::Link;
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
        let honest: Vec<NodeId> = self.honest().map(Node::id).collect();
        node.audit(&trusted, &honest, &mut self.tally.most)?;
        let lowest = self.honest().map(Node::next_epoch).min().unwrap_or(0);
        self.checks.forget(lowest.saturating_sub(40));
        if self.phase == Phase::Storm && self.rng.gen_bool(0.2) {
            let contents = self.nodes[id].disk.lock().clone();
            self.nodes[id].copy = Some(contents);
        }
        Ok(())
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

//! A seeded network over the engine: reorders, delays and repeats frames, restarts honest guardians
//! from what they had journalled, and lets up to f guardians lie. Everyone honest must output the
//! same batches, and all of them.
//!
//! `SEEDS=n` runs n seeds at n = 4 instead of the default.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a test may panic

use std::collections::BTreeMap;
use std::sync::OnceLock;

use federation_consensus::engine::{
    Body, Coding, Engine, EngineConfig, MerkleTree, Message, Outgoing, Shard, Step, Target,
};
use federation_consensus::keygen::{self, CoinKeys};
use federation_consensus::{Batch, Bytes, NodeId, max_faulty};
use hbbft::binary_agreement::{MessageContent, SbvMessage, bool_set};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

const EPOCHS: u64 = 6;
const MAX_PROPOSAL: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Lie {
    Silent,
    Garbage,
    NonCodeword,
    Equivocate,
    Twist,
    Starve,
}

const LIES: [Lie; 6] =
    [Lie::Silent, Lie::Garbage, Lie::NonCodeword, Lie::Equivocate, Lie::Twist, Lie::Starve];

#[derive(Clone)]
enum Input {
    Propose(u64, Bytes),
    Frame(NodeId, Bytes),
    Committed(u64),
}

struct Node {
    config: EngineConfig,
    engine: Engine,
    journal: Vec<Input>,
    sent: Vec<Outgoing>,
    batches: Vec<Batch>,
    lie: Option<Lie>,
}

impl Node {
    fn apply(&mut self, input: Input) -> Step {
        let step = run(&mut self.engine, &input);
        if step.changed || matches!(input, Input::Committed(_)) {
            self.journal.push(input);
        } else {
            assert!(step.messages.is_empty() && step.batches.is_empty(), "a change was not announced");
        }
        self.sent.extend(step.messages.iter().cloned());
        step
    }

    /// A crash and a replay: the same messages, byte for byte.
    fn restart(&mut self) {
        let mut engine = Engine::new(&self.config, 0).unwrap();
        let mut sent = Vec::new();
        for input in &self.journal {
            sent.extend(run(&mut engine, input).messages);
        }
        assert!(sent == self.sent, "a restarted guardian contradicts itself");
        self.engine = engine;
    }
}

fn run(engine: &mut Engine, input: &Input) -> Step {
    match input.clone() {
        Input::Propose(epoch, value) => engine.propose(epoch, &value).unwrap(),
        Input::Frame(from, frame) => engine.handle(from, frame),
        Input::Committed(epoch) => engine.committed(epoch),
    }
}

fn keys(n: u16) -> Vec<CoinKeys> {
    static KEYS: OnceLock<std::sync::Mutex<BTreeMap<u16, Vec<CoinKeys>>>> = OnceLock::new();
    let mut keys = KEYS.get_or_init(Default::default).lock().unwrap();
    keys.entry(n).or_insert_with(|| keygen::run_locally(n, Some(n.into())).unwrap()).clone()
}

struct Simulation {
    n: u16,
    rng: StdRng,
    nodes: Vec<Node>,
    flying: Vec<(NodeId, NodeId, u64, Bytes)>,
    /// Links that are slow in this run: their frames wait until nothing else is left.
    slow: Vec<(NodeId, NodeId)>,
    duplicates: bool,
    steps: u64,
}

impl Simulation {
    fn new(n: u16, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut ids: Vec<NodeId> = (0..n).collect();
        ids.shuffle(&mut rng);
        let liars = rng.gen_range(0..=max_faulty(n)) as usize;
        let nodes = keys(n)
            .into_iter()
            .zip(0..n)
            .map(|(keys, me)| {
                let config = EngineConfig { max_proposal: MAX_PROPOSAL, ..EngineConfig::new(me, n, keys) };
                let engine = Engine::new(&config, 0).unwrap();
                let lie = ids[..liars].contains(&me).then(|| *LIES.choose(&mut rng).unwrap());
                Node { config, engine, journal: vec![], sent: vec![], batches: vec![], lie }
            })
            .collect();
        let pairs = (0..n).flat_map(|a| (0..n).map(move |b| (a, b)));
        let slow = if rng.gen_bool(0.5) { pairs.filter(|_| rng.gen_bool(0.3)).collect() } else { vec![] };
        let duplicates = rng.gen_bool(0.3);
        Self { n, rng, nodes, flying: vec![], slow, duplicates, steps: 0 }
    }

    fn proposal(&mut self, node: NodeId, epoch: u64) -> Bytes {
        let len = *[0, 1, 30, 500, MAX_PROPOSAL].choose(&mut self.rng).unwrap();
        let mut value = format!("{node}/{epoch}/").into_bytes();
        value.resize(len.max(value.len()), 7);
        value.truncate(MAX_PROPOSAL);
        value.into()
    }

    fn propose(&mut self, id: NodeId) {
        let epoch = self.nodes[id as usize].engine.next_output();
        if epoch < EPOCHS && !self.nodes[id as usize].engine.proposed(epoch) {
            let value = self.proposal(id, epoch);
            let step = self.nodes[id as usize].apply(Input::Propose(epoch, value));
            self.absorb(id, step);
        }
    }

    fn absorb(&mut self, id: NodeId, step: Step) {
        for message in step.messages {
            self.send(id, message);
        }
        let node = &mut self.nodes[id as usize];
        assert!(node.lie.is_some() || step.faults.iter().all(|(by, _)| *by != id));
        let faults: Vec<_> = step.faults;
        node.batches.extend(step.batches);
        let next = node.batches.len() as u64;
        let committed = node.apply(Input::Committed(next));
        assert!(committed.batches.is_empty() && committed.messages.is_empty());
        for (by, kind) in faults {
            assert!(self.nodes[by as usize].lie.is_some(), "honest guardian {by} is blamed by {id}: {kind}");
        }
    }

    fn send(&mut self, from: NodeId, out: Outgoing) {
        let lie = self.nodes[from as usize].lie;
        for to in (0..self.n).filter(|to| *to != from) {
            if out.target != Target::All && out.target != Target::Node(to) {
                continue;
            }
            let frame = match lie {
                None => Some(out.frame.clone()),
                Some(lie) => self.twist(lie, from, to, &out),
            };
            self.flying.extend(frame.map(|frame| (from, to, out.epoch, frame)));
        }
    }

    /// A leaf of a tree over shards that are a codeword but for one byte in one shard, no padding being there to give
    /// it away: any n - 2f of them decode to something, only not to the same.
    fn false_shard(&self, epoch: u64, node: NodeId) -> Shard {
        let data = (self.n - 2 * max_faulty(self.n)) as usize;
        let mut shards = Coding::new(self.n).encode(&vec![epoch as u8; 40 * data - 4]);
        let wrong = (epoch % u64::from(self.n)) as usize;
        let mut bytes = shards[wrong].to_vec();
        bytes[39] ^= 1;
        shards[wrong] = bytes.into();
        let tree = MerkleTree::new(&shards);
        Shard { root: tree.root(), proof: tree.proof(node), data: shards[node as usize].clone() }
    }

    fn twist(&mut self, lie: Lie, from: NodeId, to: NodeId, out: &Outgoing) -> Option<Bytes> {
        let message = Message::decode(out.frame.clone(), self.n).unwrap();
        match (lie, message.body.clone()) {
            (Lie::Silent, _) => None,
            (Lie::Garbage, _) => {
                let mut bytes = out.frame.to_vec();
                match self.rng.gen_range(0..4) {
                    0 => bytes.truncate(self.rng.gen_range(0..bytes.len())),
                    1 => bytes = (0..self.rng.gen_range(0..80)).map(|_| self.rng.r#gen()).collect(),
                    2 => bytes[8] = self.rng.r#gen(),
                    _ => {
                        let at = self.rng.gen_range(0..bytes.len());
                        bytes[at] ^= 1 << self.rng.gen_range(0..8);
                    }
                }
                Some(bytes.into())
            }
            (Lie::NonCodeword, Body::Value(_)) => {
                Some(Message { body: Body::Value(self.false_shard(out.epoch, to)), ..message }.encode())
            }
            // It echoes to one guardian only, as in the attack on hbbft: what others decode from is different.
            (Lie::NonCodeword, Body::Echo(_)) if message.proposer == from => {
                let body = Body::Echo(self.false_shard(out.epoch, from));
                (u64::from(to) == out.epoch % u64::from(self.n)).then(|| Message { body, ..message }.encode())
            }
            (Lie::NonCodeword, Body::Ready(_)) if message.proposer == from => {
                let body = Body::Ready(self.false_shard(out.epoch, from).root);
                Some(Message { body, ..message }.encode())
            }
            (Lie::Equivocate, Body::Value(shard)) if to.is_multiple_of(2) => {
                let value = vec![to as u8; shard.data.len()];
                let shards = Coding::new(self.n).encode(&value);
                let tree = MerkleTree::new(&shards);
                let shard =
                    Shard { root: tree.root(), proof: tree.proof(to), data: shards[to as usize].clone() };
                Some(Message { body: Body::Value(shard), ..message }.encode())
            }
            (Lie::Equivocate, Body::Ready(_)) if to.is_multiple_of(2) => {
                Some(Message { body: Body::Ready([to as u8; 32]), ..message }.encode())
            }
            (Lie::Twist | Lie::Equivocate, Body::Agreement(agreement)) => {
                let value = self.rng.r#gen();
                let content = match agreement.content {
                    MessageContent::SbvBroadcast(SbvMessage::BVal(_)) => {
                        MessageContent::SbvBroadcast(SbvMessage::BVal(value))
                    }
                    MessageContent::SbvBroadcast(SbvMessage::Aux(_)) => {
                        MessageContent::SbvBroadcast(SbvMessage::Aux(value))
                    }
                    MessageContent::Conf(_) if value => MessageContent::Conf(bool_set::NONE),
                    MessageContent::Conf(_) => MessageContent::Conf(bool_set::BOTH),
                    MessageContent::Term(_) => MessageContent::Term(value),
                    coin => coin,
                };
                let epoch = if self.rng.gen_bool(0.1) { agreement.epoch + 1 } else { agreement.epoch };
                Some(Message { body: Body::Agreement(content.with_epoch(epoch)), ..message }.encode())
            }
            (Lie::Starve, Body::Agreement(agreement)) => {
                // Says everything to one guardian and hardly anything to the others.
                if to.is_multiple_of(3) || self.rng.gen_bool(0.1) {
                    let term = MessageContent::Term(true).with_epoch(agreement.epoch + 1);
                    let body = if self.rng.gen_bool(0.2) {
                        Body::Agreement(term)
                    } else {
                        Body::Agreement(agreement)
                    };
                    Some(Message { body, ..message }.encode())
                } else {
                    None
                }
            }
            _ => Some(out.frame.clone()),
        }
    }

    /// A frame is held back until its receiver's window has come to it; a liar doesn't care.
    fn deliverable(&self, flight: &(NodeId, NodeId, u64, Bytes)) -> bool {
        let node = &self.nodes[flight.1 as usize];
        self.nodes[flight.0 as usize].lie.is_some()
            || flight.2 < node.batches.len() as u64 + node.config.window
    }

    fn pick(&mut self) -> Option<usize> {
        for _ in 0..20 {
            let at = self.rng.gen_range(0..self.flying.len().max(1));
            let flight = self.flying.get(at)?;
            if self.deliverable(flight) && !self.slow.contains(&(flight.0, flight.1)) {
                return Some(at);
            }
        }
        // Slow links only: still in no order.
        let all: Vec<usize> =
            (0..self.flying.len()).filter(|at| self.deliverable(&self.flying[*at])).collect();
        all.choose(&mut self.rng).copied()
    }

    fn run(mut self, seed: u64) {
        loop {
            self.steps += 1;
            if self.rng.gen_bool(0.05) || self.flying.is_empty() {
                let id = self.rng.gen_range(0..self.n);
                self.propose(id);
            }
            if self.rng.gen_bool(0.0005) {
                let id = self.rng.gen_range(0..self.n) as usize;
                self.nodes[id].restart();
            }
            let picked = self.pick();
            let Some(at) = picked else {
                let waiting: Vec<NodeId> = (0..self.n)
                    .filter(|id| {
                        let engine = &self.nodes[*id as usize].engine;
                        engine.next_output() < EPOCHS && !engine.proposed(engine.next_output())
                    })
                    .collect();
                match waiting.choose(&mut self.rng) {
                    Some(id) => self.propose(*id),
                    None => break,
                }
                continue;
            };
            let (from, to, epoch, frame) = self.flying.swap_remove(at);
            if self.duplicates && self.rng.gen_bool(0.05) {
                self.flying.push((from, to, epoch, frame.clone()));
            }
            let step = self.nodes[to as usize].apply(Input::Frame(from, frame));
            self.absorb(to, step);
        }
        let honest: Vec<&Node> = self.nodes.iter().filter(|node| node.lie.is_none()).collect();
        let lies: Vec<_> = self.nodes.iter().map(|node| node.lie).collect();
        for node in &honest {
            assert_eq!(
                node.batches.len() as u64,
                EPOCHS,
                "n {} seed {seed}: guardian {} is stuck; lies {lies:?}",
                self.n,
                node.config.me
            );
            assert!(node.batches == honest[0].batches, "n {} seed {seed}: a fork; lies {lies:?}", self.n);
        }
        for batch in &honest[0].batches {
            assert!(batch.contributions.len() >= (self.n - max_faulty(self.n)) as usize);
        }
    }
}

fn seeds(n: u16, default: u64) {
    let count =
        std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).filter(|_| n == 4).unwrap_or(default);
    let first = std::env::var("FIRST").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    for seed in first..first + count {
        Simulation::new(n, seed).run(seed);
    }
    println!("n = {n}: {count} seeds of {EPOCHS} epochs");
}

#[test]
fn one_guardian() {
    seeds(1, 10);
}

#[test]
fn two_guardians() {
    seeds(2, 50);
}

#[test]
fn three_guardians() {
    seeds(3, 50);
}

#[test]
fn four_guardians() {
    seeds(4, 200);
}

#[test]
fn seven_guardians() {
    seeds(7, 20);
}

#[test]
fn ten_guardians() {
    seeds(10, 4);
}

//! An engine alone, and what it is told again after a crash: it says byte for byte what it said before.

use federation_consensus::engine::{Engine, EngineConfig, Outgoing, Step, Target};
use federation_consensus::{Bytes, NodeId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::keys;

const EPOCHS: u64 = 3;

#[derive(Clone)]
enum Input {
    Propose(u64, Bytes),
    Frame(NodeId, Bytes),
}

struct Guardian {
    config: EngineConfig,
    engine: Engine,
    /// Inputs that changed the engine, as a journal keeps them.
    journal: Vec<Input>,
    sent: Vec<Outgoing>,
    /// How often it was compared.
    replays: u64,
}

impl Guardian {
    fn handle(&mut self, input: Input) -> Vec<Outgoing> {
        let step = feed(&mut self.engine, &input);
        if step.changed {
            self.journal.push(input);
        } else {
            assert!(step.messages.is_empty() && step.batches.is_empty(), "a change was not announced");
        }
        for batch in &step.batches {
            // Nothing follows from a commit.
            let committed = self.engine.committed(batch.epoch + 1);
            assert!(committed.messages.is_empty() && committed.batches.is_empty());
        }
        self.sent.extend(step.messages.iter().cloned());
        step.messages
    }

    fn crash(&mut self) {
        self.replays += 1;
        let committed = self.engine.next_output();
        let mut engine = Engine::new(&self.config, 0).unwrap();
        engine.open_window(committed);
        let again = self.journal.iter().flat_map(|input| feed(&mut engine, input).messages);
        assert!(again.eq(self.sent.iter().cloned()), "guardian {} says something else", self.config.me);
        let _ = engine.committed(committed);
        self.engine = engine;
    }
}

fn feed(engine: &mut Engine, input: &Input) -> Step {
    match input.clone() {
        Input::Propose(epoch, value) => engine.propose(epoch, &value).unwrap(),
        Input::Frame(from, frame) => engine.handle(from, frame),
    }
}

fn world(n: u16, seed: u64) -> u64 {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut guardians: Vec<Guardian> = keys::coin(n)
        .into_iter()
        .zip(0..n)
        .map(|(coin, me)| {
            let config = EngineConfig::new(me, n, coin);
            let engine = Engine::new(&config, 0).unwrap();
            Guardian { config, engine, journal: vec![], sent: vec![], replays: 0 }
        })
        .collect();
    let mut flying: Vec<(NodeId, NodeId, Outgoing)> = Vec::new();
    while guardians.iter().any(|guardian| guardian.engine.next_output() < EPOCHS) {
        let id = rng.gen_range(0..n);
        let guardian = &mut guardians[id as usize];
        let (by, out) = if flying.is_empty() || rng.gen_bool(0.05) {
            let epoch = guardian.engine.next_output();
            let value = vec![id as u8; rng.gen_range(0..300)];
            (id, guardian.handle(Input::Propose(epoch, value.into())))
        } else {
            let (from, to, out) = flying.swap_remove(rng.gen_range(0..flying.len()));
            (to, guardians[to as usize].handle(Input::Frame(from, out.frame)))
        };
        for out in out {
            let meant =
                |to: &NodeId| *to != by && (out.target == Target::All || out.target == Target::Node(*to));
            flying.extend((0..n).filter(meant).map(|to| (by, to, out.clone())));
        }
        if rng.gen_bool(0.005) {
            guardians[id as usize].crash();
        }
    }
    guardians.iter().map(|guardian| guardian.replays).sum()
}

#[test]
fn a_replay_says_the_same() {
    let replays: u64 = [2, 4, 4, 4].into_iter().zip(0..).map(|(n, seed)| world(n, seed)).sum();
    assert!(replays > 10, "{replays} replays only");
}

//! This project's engines with their journals, all in one thread, as the runner drives them: frames that have gathered are handled
//! together, what changed the engine is journalled with one flush, and only then the answers leave.

use anyhow::{Context as _, Result};
use federation_consensus::engine::{Engine, EngineConfig, Target};
use federation_consensus::journal::{Journal, Record};
use federation_consensus::{Bytes, NodeId, keygen};

struct Node {
    engine: Engine,
    journal: Box<dyn Journal>,
    inbox: Vec<(NodeId, Bytes)>,
}

/// A federation of engines.
pub struct Engines {
    nodes: Vec<Node>,
    epoch: u64,
    /// Message rounds that the last epoch took.
    pub rounds: usize,
    /// Frames sent in the last epoch, to one receiver each.
    pub frames: usize,
}

impl Engines {
    /// One engine a journal.
    pub fn new(journals: Vec<Box<dyn Journal>>) -> Result<Self> {
        let n = u16::try_from(journals.len())?;
        let mut nodes = Vec::new();
        for ((me, keys), journal) in (0..).zip(keygen::run_locally(n, None)?).zip(journals) {
            let engine = Engine::new(&EngineConfig::new(me, n, keys), 0)?;
            nodes.push(Node { engine, journal, inbox: Vec::new() });
        }
        Ok(Self { nodes, epoch: 0, rounds: 0, frames: 0 })
    }

    /// One epoch, in which every engine proposes `value`.
    pub fn epoch(&mut self, value: &Bytes) -> Result<()> {
        (self.rounds, self.frames) = (0, 0);
        let mut outputs = 0;
        let mut sent = Vec::new();
        for (me, node) in (0..).zip(&mut self.nodes) {
            let step = node.engine.propose(self.epoch, value)?;
            node.journal.append(&[Record::Proposal { epoch: self.epoch, value: value.clone() }])?;
            sent.extend(step.messages.into_iter().map(|message| (me, message)));
        }
        while !sent.is_empty() {
            self.rounds += 1;
            for (from, message) in std::mem::take(&mut sent) {
                for (to, node) in (0..).zip(&mut self.nodes) {
                    if to != from && (message.target == Target::All || message.target == Target::Node(to)) {
                        self.frames += 1;
                        node.inbox.push((from, message.frame.clone()));
                    }
                }
            }
            for (me, node) in (0..).zip(&mut self.nodes) {
                let mut records = Vec::new();
                let mut messages = Vec::new();
                for (from, frame) in std::mem::take(&mut node.inbox) {
                    let step = node.engine.handle(from, frame.clone());
                    anyhow::ensure!(step.faults.is_empty(), "a fault among honest guardians");
                    if step.changed {
                        records.push(Record::Frame { epoch: self.epoch, from, frame });
                    }
                    outputs += step.batches.len();
                    messages.extend(step.messages);
                }
                if !records.is_empty() {
                    node.journal.append(&records)?;
                }
                sent.extend(messages.into_iter().map(|message| (me, message)));
            }
        }
        anyhow::ensure!(outputs == self.nodes.len(), "{outputs} outputs");
        self.epoch += 1;
        for node in &mut self.nodes {
            let step = node.engine.committed(self.epoch);
            anyhow::ensure!(step.messages.is_empty());
            node.engine.prune(self.epoch);
            node.journal.truncate(self.epoch).context("the journal")?;
        }
        Ok(())
    }
}

//! hbbft 0.1.1 as published, to compare with: its own HoneyBadger without encryption, all nodes in one thread, messages handed from
//! one to the next in the order in which they were sent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use federation_consensus::NodeId;
use hbbft::honey_badger::{EncryptionSchedule, HoneyBadger, Message, Step};
use hbbft::{NetworkInfo, Target};
use rand06::SeedableRng;

type Node = HoneyBadger<Vec<u8>, NodeId>;

/// What is handed over: the message itself, or its encoding.
enum Parcel {
    Plain(Message<NodeId>),
    Coded(Arc<[u8]>),
}

/// A federation of bare nodes.
pub struct Bare {
    nodes: Vec<Node>,
    rng: rand06::rngs::StdRng,
    codec: bool,
    flying: VecDeque<(NodeId, NodeId, Parcel)>,
    outputs: usize,
}

impl Bare {
    /// `codec`: messages are encoded once by their sender and decoded by each receiver, in bincode.
    pub fn new(n: u16, codec: bool) -> Result<Self> {
        let mut rng = rand06::rngs::StdRng::seed_from_u64(1);
        let networks = NetworkInfo::generate_map(0..n, &mut rng).map_err(|error| anyhow!("{error}"))?;
        let build = |network| {
            HoneyBadger::builder(Arc::new(network)).encryption_schedule(EncryptionSchedule::Never).build()
        };
        let nodes = networks.into_values().map(build).collect();
        Ok(Self { nodes, rng, codec, flying: VecDeque::new(), outputs: 0 })
    }

    /// One epoch, in which every node proposes `value`.
    pub fn epoch(&mut self, value: &[u8]) -> Result<()> {
        self.outputs = 0;
        let value = value.to_vec();
        for me in 0..self.nodes.len() {
            let node = self.nodes.get_mut(me).context("a node")?;
            let step = node.propose(&value, &mut self.rng).map_err(|error| anyhow!("{error}"))?;
            self.pass_on(me as NodeId, step)?;
        }
        while let Some((from, to, parcel)) = self.flying.pop_front() {
            let message = match parcel {
                Parcel::Plain(message) => message,
                Parcel::Coded(bytes) => bincode::deserialize(&bytes)?,
            };
            let node = self.nodes.get_mut(to as usize).context("a node")?;
            let step = node.handle_message(&from, message).map_err(|error| anyhow!("{error}"))?;
            self.pass_on(to, step)?;
        }
        anyhow::ensure!(self.outputs == self.nodes.len(), "{} outputs", self.outputs);
        Ok(())
    }

    fn pass_on(&mut self, from: NodeId, step: Step<Vec<u8>, NodeId>) -> Result<()> {
        anyhow::ensure!(step.fault_log.is_empty(), "a fault among honest nodes");
        for batch in step.output {
            let batch: BTreeMap<_, _> = batch.contributions;
            anyhow::ensure!(batch.len() >= self.nodes.len() - (self.nodes.len() - 1) / 3);
            self.outputs += 1;
        }
        for message in step.messages {
            let to: Vec<NodeId> = match message.target {
                Target::All => (0..self.nodes.len() as NodeId).filter(|to| *to != from).collect(),
                Target::Node(to) => vec![to],
            };
            if self.codec {
                let bytes: Arc<[u8]> = bincode::serialize(&message.message)?.into();
                let coded = to.into_iter().map(|to| (from, to, Parcel::Coded(Arc::clone(&bytes))));
                self.flying.extend(coded);
            } else {
                let plain = to.into_iter().map(|to| (from, to, Parcel::Plain(message.message.clone())));
                self.flying.extend(plain);
            }
        }
        Ok(())
    }
}

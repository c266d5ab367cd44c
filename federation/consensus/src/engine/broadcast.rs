//! Reliable broadcast of one proposal (eprint 2016/199, figure 2; Cachin–Tessaro).
//!
//! The proposer hands each guardian one shard (VAL); each passes its own on to everyone (ECHO);
//! n - f echoes, or f + 1 READYs, make a guardian say READY; 2f + 1 READYs deliver. So if one honest
//! guardian delivers a value, all do, and the same one.
//!
//! What is decoded is encoded again and its root compared with the committed one, before READY is
//! said. A proposer that commits to something that is no codeword is thereby delivered by nobody;
//! without that check different guardians would decode different values, or some none at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::context::{Context, Outbox};
use super::fault::FaultKind;
use super::merkle::{self, Hash, MerkleTree};
use super::message::{Body, Shard, Target};
use crate::NodeId;

/// A shard whose place under the root is proven.
#[derive(Debug)]
struct Proven {
    root: Hash,
    data: Bytes,
    leaf: Hash,
}

/// One proposer's broadcast as one guardian sees it.
#[derive(Debug)]
pub struct Broadcast {
    context: Arc<Context>,
    proposer: NodeId,
    /// The root in the proposer's VAL to this guardian.
    value: Option<Hash>,
    echoes: BTreeMap<NodeId, Proven>,
    readys: BTreeMap<NodeId, Hash>,
    ready_sent: bool,
    /// What decoding for a root gave; `None` inside: no codeword.
    decoded: BTreeMap<Hash, Option<Bytes>>,
    delivered: bool,
}

impl Broadcast {
    /// The broadcast of `proposer`'s proposal.
    #[must_use]
    pub const fn new(context: Arc<Context>, proposer: NodeId) -> Self {
        Self {
            context,
            proposer,
            value: None,
            echoes: BTreeMap::new(),
            readys: BTreeMap::new(),
            ready_sent: false,
            decoded: BTreeMap::new(),
            delivered: false,
        }
    }

    /// Starts this guardian's own broadcast. Returns the value if that delivers it at once (n = 1).
    pub fn propose(&mut self, value: &[u8], out: &mut Outbox) -> Option<Bytes> {
        let context = Arc::clone(&self.context);
        let shards = context.coding.encode(value);
        let tree = MerkleTree::new(&shards);
        let mut own = None;
        for (node, data) in (0..).zip(shards) {
            let shard = Shard { root: tree.root(), proof: tree.proof(node), data };
            if node == context.me {
                own = Some(shard);
            } else {
                out.send(Target::Node(node), Body::Value(shard));
            }
        }
        own.and_then(|shard| self.on_value(context.me, shard, out))
    }

    /// VAL: checks the shard and passes it on.
    pub fn on_value(&mut self, from: NodeId, shard: Shard, out: &mut Outbox) -> Option<Bytes> {
        if from != self.proposer {
            out.fault(from, FaultKind::NotProposer);
            return None;
        }
        if let Some(root) = self.value {
            if root != shard.root {
                out.fault(from, FaultKind::Equivocation);
            }
            return None;
        }
        let me = self.context.me;
        let proven = self.check(from, me, &shard, out)?;
        out.changed();
        self.value = Some(shard.root);
        if self.delivered {
            return None; // Everyone has what it needs from those who echoed earlier.
        }
        out.send(Target::All, Body::Echo(shard));
        self.add_echo(me, proven, out)
    }

    /// ECHO: collects a shard. Returns the value when this delivers it.
    pub fn on_echo(&mut self, from: NodeId, shard: Shard, out: &mut Outbox) -> Option<Bytes> {
        if self.delivered {
            return None;
        }
        if let Some(earlier) = self.echoes.get(&from) {
            if earlier.root != shard.root {
                out.fault(from, FaultKind::Equivocation);
            }
            return None;
        }
        let proven = self.check(from, from, &shard, out)?;
        out.changed();
        self.add_echo(from, proven, out)
    }

    fn add_echo(&mut self, from: NodeId, proven: Proven, out: &mut Outbox) -> Option<Bytes> {
        let root = proven.root;
        self.echoes.insert(from, proven);
        if self.count_echoes(&root) >= self.context.correct() && self.decode(&root, out).is_some() {
            self.send_ready(root, out);
        }
        self.try_deliver(&root, out)
    }

    /// READY: counts. Returns the value when this delivers it.
    pub fn on_ready(&mut self, from: NodeId, root: Hash, out: &mut Outbox) -> Option<Bytes> {
        if self.delivered {
            return None;
        }
        if let Some(earlier) = self.readys.get(&from) {
            if *earlier != root {
                out.fault(from, FaultKind::Equivocation);
            }
            return None;
        }
        out.changed();
        self.readys.insert(from, root);
        if self.count_readys(&root) > self.context.faulty() {
            self.send_ready(root, out);
        }
        self.try_deliver(&root, out)
    }

    fn send_ready(&mut self, root: Hash, out: &mut Outbox) {
        if !self.ready_sent {
            self.ready_sent = true;
            out.send(Target::All, Body::Ready(root));
            self.readys.insert(self.context.me, root);
        }
    }

    fn try_deliver(&mut self, root: &Hash, out: &mut Outbox) -> Option<Bytes> {
        let context = Arc::clone(&self.context);
        if self.delivered
            || self.count_readys(root) <= 2 * context.faulty()
            || self.count_echoes(root) < context.n as usize - 2 * context.faulty()
        {
            return None;
        }
        let value = self.decode(root, out)?;
        self.delivered = true;
        self.echoes.clear();
        self.decoded.clear();
        Some(value)
    }

    /// The value under `root`, if it is a codeword; computed once.
    fn decode(&mut self, root: &Hash, out: &mut Outbox) -> Option<Bytes> {
        if let Some(known) = self.decoded.get(root) {
            return known.clone();
        }
        let shards: Vec<(NodeId, Bytes)> = self
            .echoes
            .iter()
            .filter(|(_, echo)| echo.root == *root)
            .map(|(node, echo)| (*node, echo.data.clone()))
            .collect();
        let value = self
            .context
            .coding
            .decode(&shards)
            .filter(|(again, _)| !self.context.re_encode || self.root_of(again) == *root)
            .map(|(_, value)| value)
            .filter(|value| value.len() <= self.context.max_proposal);
        if value.is_none() {
            out.fault(self.proposer, FaultKind::NotACodeword);
        }
        self.decoded.insert(*root, value.clone());
        value
    }

    /// The commitment to all shards. Those that were received are compared, which is cheaper than to hash them again.
    fn root_of(&self, shards: &[Bytes]) -> Hash {
        let leaf = |(index, shard): (NodeId, &Bytes)| match self.echoes.get(&index) {
            Some(echo) if echo.data == *shard => echo.leaf,
            _ => merkle::leaf(index, shard),
        };
        MerkleTree::of_leaves((0..).zip(shards).map(leaf).collect()).root()
    }

    fn check(&self, from: NodeId, index: NodeId, shard: &Shard, out: &mut Outbox) -> Option<Proven> {
        if shard.data.len() > self.context.coding.shard_len(self.context.max_proposal) {
            out.fault(from, FaultKind::Oversized);
            return None;
        }
        let Some(leaf) = merkle::verify(&shard.root, self.context.n, index, &shard.data, &shard.proof) else {
            out.fault(from, FaultKind::BadProof);
            return None;
        };
        Some(Proven { root: shard.root, data: shard.data.clone(), leaf })
    }

    fn count_echoes(&self, root: &Hash) -> usize {
        self.echoes.values().filter(|echo| echo.root == *root).count()
    }

    fn count_readys(&self, root: &Hash) -> usize {
        self.readys.values().filter(|ready| *ready == root).count()
    }
}

//! The asynchronous common subset (eprint 2016/199, figure 4): which proposals make up the epoch.
//!
//! A delivered proposal is voted in; once n - f are decided in, all that were not delivered are voted
//! out; when all are decided, the epoch is the set of those that are in. One may be in that this
//! guardian hasn't got yet: some honest guardian voted for it, so it will be delivered here as well.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::agreement::Agreement;
use super::broadcast::Broadcast;
use super::context::{Context, Outbox};
use super::fault::FaultKind;
use super::message::{Body, Message, Target};
use super::step::{Outgoing, Step};
use crate::{Batch, NodeId};

#[derive(Debug)]
struct Proposal {
    /// `None` once the epoch is output: nobody needs this guardian's part of a broadcast that it
    /// has delivered, and the shards need not be kept.
    broadcast: Option<Broadcast>,
    agreement: Agreement,
    value: Option<Bytes>,
}

/// One epoch.
#[derive(Debug)]
pub struct Subset {
    context: Arc<Context>,
    epoch: u64,
    proposals: Vec<Proposal>,
    proposed: bool,
    /// Whether anyone has said anything in this epoch.
    opened: bool,
    batch: Option<Batch>,
    done: bool,
}

impl Subset {
    /// The common subset of `epoch`.
    #[must_use]
    pub fn new(context: Arc<Context>, epoch: u64) -> Self {
        let proposals = (0..context.n)
            .map(|proposer| Proposal {
                broadcast: Some(Broadcast::new(Arc::clone(&context), proposer)),
                agreement: Agreement::new(Arc::clone(&context), epoch, proposer),
                value: None,
            })
            .collect();
        Self { context, epoch, proposals, proposed: false, opened: false, batch: None, done: false }
    }

    /// Whether this guardian has proposed.
    #[must_use]
    pub const fn proposed(&self) -> bool {
        self.proposed
    }

    /// Whether anyone has said anything.
    #[must_use]
    pub const fn opened(&self) -> bool {
        self.opened
    }

    /// The epoch's output, once.
    pub const fn take_batch(&mut self) -> Option<Batch> {
        self.batch.take()
    }

    /// Starts the broadcast of this guardian's proposal; a second one is ignored.
    pub fn propose(&mut self, value: &[u8], step: &mut Step) {
        if self.proposed && self.context.one_proposal {
            return;
        }
        self.proposed = true;
        self.opened = true;
        step.changed = true;
        let me = self.context.me;
        let mut out = Outbox::default();
        let delivered = self
            .proposals
            .get_mut(me as usize)
            .and_then(|p| p.broadcast.as_mut())
            .and_then(|b| b.propose(value, &mut out));
        self.finish(me, delivered, out, step);
    }

    /// Handles a peer's message.
    pub fn handle(&mut self, from: NodeId, proposer: NodeId, body: Body, step: &mut Step) {
        let mut out = Outbox::default();
        let Some(proposal) = self.proposals.get_mut(proposer as usize) else {
            step.faults.push((from, FaultKind::UnknownNode));
            return;
        };
        let delivered = match (body, proposal.broadcast.as_mut()) {
            (Body::Agreement(message), _) => {
                proposal.agreement.handle(from, message, &mut out);
                None
            }
            (Body::Value(shard), Some(broadcast)) => broadcast.on_value(from, shard, &mut out),
            (Body::Echo(shard), Some(broadcast)) => broadcast.on_echo(from, shard, &mut out),
            (Body::Ready(root), Some(broadcast)) => broadcast.on_ready(from, root, &mut out),
            (_, None) => None,
        };
        self.opened |= out.changed;
        self.finish(proposer, delivered, out, step);
    }

    fn finish(&mut self, proposer: NodeId, delivered: Option<Bytes>, mut out: Outbox, step: &mut Step) {
        if let Some(value) = delivered
            && let Some(proposal) = self.proposals.get_mut(proposer as usize)
        {
            proposal.value = Some(value);
            // Too late to matter if no was said already; figure 4 ignores it as well.
            proposal.agreement.propose(true, &mut out);
        }
        self.emit(proposer, out, step);
        self.vote_out_the_rest(step);
        self.try_output();
    }

    fn vote_out_the_rest(&mut self, step: &mut Step) {
        let accepted = self.proposals.iter().filter(|p| p.agreement.output() == Some(true)).count();
        if accepted < self.context.correct() {
            return;
        }
        let mut outs: Vec<(NodeId, Outbox)> = Vec::new();
        for (proposer, proposal) in (0..).zip(&mut self.proposals) {
            if !proposal.agreement.has_input() {
                let mut out = Outbox::default();
                proposal.agreement.propose(false, &mut out);
                outs.push((proposer, out));
            }
        }
        for (proposer, out) in outs {
            self.emit(proposer, out, step);
        }
    }

    fn try_output(&mut self) {
        if self.done || self.proposals.iter().any(|p| p.agreement.output().is_none()) {
            return;
        }
        let accepted = (0..).zip(&self.proposals).filter(|(_, p)| p.agreement.output() == Some(true));
        let contributions: Option<BTreeMap<NodeId, Bytes>> =
            accepted.map(|(proposer, p)| Some((proposer, p.value.clone()?))).collect();
        if let Some(contributions) = contributions {
            self.done = true;
            self.batch = Some(Batch { epoch: self.epoch, contributions });
            for proposal in &mut self.proposals {
                proposal.broadcast = None;
                proposal.value = None;
            }
        }
    }

    fn emit(&self, proposer: NodeId, out: Outbox, step: &mut Step) {
        step.changed |= out.changed;
        step.faults.extend(out.faults);
        for (target, body) in out.messages {
            if self.context.n > 1 || target != Target::All {
                let frame = Message { epoch: self.epoch, proposer, body }.encode_as(&self.context.voice);
                step.messages.push(Outgoing { target, epoch: self.epoch, frame });
            }
        }
    }
}

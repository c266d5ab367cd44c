//! What every part of an epoch shares.

use std::sync::Arc;

use hbbft::NetworkInfo;

use super::coding::Coding;
use super::fault::FaultKind;
use super::message::{Body, Target};
use super::voice::Voice;
use crate::{NodeId, max_faulty};

/// A federation as the engine knows it.
#[derive(Debug)]
pub struct Context {
    /// This guardian.
    pub me: NodeId,
    /// How many guardians there are.
    pub n: u16,
    /// The largest proposal, in bytes.
    pub max_proposal: usize,
    /// The proposals' erasure code.
    pub coding: Coding,
    /// The coin's keys in hbbft's form.
    pub network: Arc<NetworkInfo<NodeId>>,
    /// Marks what this guardian says.
    pub voice: Voice,
    /// Always, but in a test of the simulator: [`Protection::NoSecondProposal`](crate::protection::Protection).
    pub one_proposal: bool,
    /// Always, but in a test of the simulator: [`Protection::ReEncoding`](crate::protection::Protection).
    pub re_encode: bool,
}

impl Context {
    /// f.
    #[must_use]
    pub const fn faulty(&self) -> usize {
        max_faulty(self.n) as usize
    }

    /// n - f.
    #[must_use]
    pub const fn correct(&self) -> usize {
        self.n as usize - self.faulty()
    }
}

/// Collects what handling one input leads to for one proposal.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Messages to others, in order.
    pub messages: Vec<(Target, Body)>,
    /// Faults seen.
    pub faults: Vec<(NodeId, FaultKind)>,
    /// Whether the input changed anything. One that didn't need not be remembered.
    pub changed: bool,
}

impl Outbox {
    pub(super) fn send(&mut self, target: Target, body: Body) {
        self.changed = true;
        self.messages.push((target, body));
    }

    pub(super) fn fault(&mut self, node: NodeId, kind: FaultKind) {
        self.faults.push((node, kind));
    }

    pub(super) const fn changed(&mut self) {
        self.changed = true;
    }
}

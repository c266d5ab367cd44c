//! What handling one input leads to.

use bytes::Bytes;

use super::fault::FaultKind;
use super::message::Target;
use crate::{Batch, NodeId};

/// A frame to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// To whom.
    pub target: Target,
    /// The epoch that it belongs to: what a receiver isn't ready for is held back.
    pub epoch: u64,
    /// The encoded message.
    pub frame: Bytes,
}

/// The outcome of one input.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Step {
    /// Frames to send, in order, once the input is durable.
    pub messages: Vec<Outgoing>,
    /// Epochs that are complete, in order and without gaps.
    pub batches: Vec<Batch>,
    /// Faults of peers.
    pub faults: Vec<(NodeId, FaultKind)>,
    /// An epoch that a peer has opened and in which this guardian should propose now.
    pub wants_proposal: Option<u64>,
    /// Whether the input changed the engine. Only such inputs belong in a journal: repeats and
    /// garbage don't, however often a peer sends them.
    pub changed: bool,
}

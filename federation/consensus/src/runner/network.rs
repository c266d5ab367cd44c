//! What the core needs of the links.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::NodeId;
use crate::links::Links;

/// Ordered, acknowledged frames to peers: the [links](crate::links), or a simulated network.
pub trait Network: Send {
    /// Queues a frame. `false`: too much waits already, and nothing was queued.
    fn send(&self, to: NodeId, channel: u8, frame: Bytes) -> bool;

    /// The peers that are connected now, each with how often its connection has come up.
    fn connections(&self) -> BTreeMap<NodeId, u64>;
}

impl Network for Links {
    fn send(&self, to: NodeId, channel: u8, frame: Bytes) -> bool {
        Self::send(self, to, channel, frame).is_ok()
    }

    fn connections(&self) -> BTreeMap<NodeId, u64> {
        Self::connections(self)
    }
}

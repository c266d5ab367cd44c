//! Frames for one peer, kept by epoch until the peer is past it.
//!
//! They wait while the peer isn't ready for their epoch, and are sent again to a peer that says it
//! has gone back (a wiped one).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::network::Network;
use crate::NodeId;
use crate::links::CHANNEL_CONSENSUS;

/// Beyond this the oldest epochs are given up; the peer then gets them as history.
const MAX_BYTES: usize = 64 << 20;

#[derive(Debug, Default)]
struct Epoch {
    frames: Vec<Bytes>,
    sent: usize,
}

/// One peer's frames.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    epochs: BTreeMap<u64, Epoch>,
    bytes: usize,
    /// The next epoch that the peer has to commit, as it says. Until it has said so, nothing is sent.
    next: Option<u64>,
    /// Over which connection it was sent all again: once is enough.
    rewound: Option<u64>,
}

impl Outbox {
    #[cfg(feature = "testing")]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn next(&self) -> Option<u64> {
        self.next
    }

    pub fn push(&mut self, epoch: u64, frame: Bytes) {
        if self.next.is_some_and(|next| epoch < next) {
            return;
        }
        self.bytes += frame.len();
        self.epochs.entry(epoch).or_default().frames.push(frame);
        while self.bytes > MAX_BYTES && self.epochs.len() > 1 {
            self.drop_first();
        }
    }

    /// The peer says where it is.
    pub fn announce(&mut self, next: u64, connection: Option<u64>) {
        let back = self.next.is_some_and(|before| next < before);
        if back && (self.rewound.is_none() || self.rewound != connection) {
            self.rewound = connection;
            for epoch in self.epochs.values_mut() {
                epoch.sent = 0;
            }
        }
        self.next = Some(next);
        self.prune(next);
    }

    pub fn prune(&mut self, below: u64) {
        while self.epochs.first_key_value().is_some_and(|(epoch, _)| *epoch < below) {
            self.drop_first();
        }
    }

    /// Forgets everything, before a rebuilt engine says it all again.
    pub fn clear(&mut self) {
        self.epochs.clear();
        self.bytes = 0;
    }

    fn drop_first(&mut self) {
        if let Some((_, epoch)) = self.epochs.pop_first() {
            self.bytes -= epoch.frames.iter().map(Bytes::len).sum::<usize>();
        }
    }

    /// Hands the network what the peer is ready for, as far as they take it.
    pub fn flush(&mut self, network: &impl Network, peer: NodeId, window: u64) {
        let Some(next) = self.next else { return };
        for (_, epoch) in self.epochs.range_mut(..next.saturating_add(window)) {
            while let Some(frame) = epoch.frames.get(epoch.sent) {
                if !network.send(peer, CHANNEL_CONSENSUS, frame.clone()) {
                    return; // Full: the next tick tries again.
                }
                epoch.sent += 1;
            }
        }
    }
}

//! Frames for one peer, kept by epoch until the peer is past it and n - f guardians have signed it.
//!
//! A peer that is past an epoch may still be needed in it: by repeating what f + 1 others say in the agreement, it
//! brings on those that are not. Only when n - f have signed the epoch, f + 1 honest ones can give it to them as history.
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
    /// Epochs below can be had as history.
    history: u64,
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
        if epoch < self.done() {
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
        self.prune(self.done());
    }

    /// n - f have signed all epochs below, or at least the last of them.
    pub fn is_history(&mut self, below: u64) {
        self.history = self.history.max(below);
        self.prune(self.done());
    }

    /// In epochs below, nobody needs this peer to hear anything.
    fn done(&self) -> u64 {
        self.next.unwrap_or(0).min(self.history)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes everything.
    #[derive(Default)]
    struct Wire(std::sync::Mutex<Vec<Bytes>>);

    impl Network for Wire {
        fn send(&self, _: NodeId, _: u8, frame: Bytes) -> bool {
            self.0.lock().unwrap().push(frame);
            true
        }

        fn connections(&self) -> BTreeMap<NodeId, u64> {
            BTreeMap::new()
        }
    }

    #[test]
    fn a_peer_that_is_past_an_epoch_may_be_needed_in_it() {
        let (mut outbox, wire) = (Outbox::default(), Wire::default());
        let frame = |byte: u8| Bytes::from(vec![byte]);
        let sent = || std::mem::take(&mut *wire.0.lock().unwrap());
        outbox.push(5, frame(1));
        outbox.announce(6, None);
        outbox.push(5, frame(2));
        outbox.push(6, frame(3));
        outbox.flush(&wire, 1, 4);
        assert_eq!(sent(), [frame(1), frame(2), frame(3)]);
        outbox.is_history(6);
        outbox.push(5, frame(4));
        outbox.push(6, frame(5));
        outbox.flush(&wire, 1, 4);
        assert_eq!((sent(), outbox.bytes), (vec![frame(5)], 2));
        // Who isn't past it gets it all the same.
        outbox.announce(5, None);
        outbox.is_history(7);
        outbox.push(5, frame(6));
        outbox.flush(&wire, 1, 4);
        assert_eq!(sent(), [frame(6), frame(3), frame(5)], "from the start, to a peer that went back");
        outbox.announce(7, None);
        assert_eq!((outbox.epochs.len(), outbox.bytes), (0, 0));
    }
}

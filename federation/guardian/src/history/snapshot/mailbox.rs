//! What comes on a channel of the links, the last frame of each peer only: however much one sends, it takes no more room
//! than the others, and none of theirs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use federation_consensus::NodeId;
use federation_consensus::links::LinkEvent;
use tokio::sync::{Notify, mpsc};

/// Frames that nobody has taken yet.
#[derive(Default)]
pub struct Mailbox {
    /// By peer, and who was read last.
    frames: Mutex<(BTreeMap<NodeId, Bytes>, NodeId)>,
    arrived: Notify,
}

impl Mailbox {
    /// Fills it, for as long as the links live; frames over the limit are dropped.
    pub async fn fill(self: Arc<Self>, mut events: mpsc::Receiver<LinkEvent>, limit: usize) {
        while let Some(event) = events.recv().await {
            event.accept();
            if event.frame.len() <= limit {
                self.put(event.from, event.frame);
            }
        }
    }

    fn put(&self, from: NodeId, frame: Bytes) {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).0.insert(from, frame);
        self.arrived.notify_one();
    }

    /// The next frame, of all peers in turn.
    pub async fn next(&self) -> (NodeId, Bytes) {
        loop {
            {
                let mut guard = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
                let (frames, last) = &mut *guard;
                let after =
                    frames.keys().find(|peer| **peer > *last).or_else(|| frames.keys().next()).copied();
                if let Some((peer, frame)) = after.and_then(|peer| frames.remove_entry(&peer)) {
                    *last = peer;
                    return (peer, frame);
                }
            }
            self.arrived.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_of_one_peer_hides_no_other() {
        let mailbox = Mailbox::default();
        for n in 0..100u8 {
            mailbox.put(1, vec![n].into());
        }
        mailbox.put(2, vec![7].into());
        assert_eq!(mailbox.next().await, (1, vec![99].into()));
        mailbox.put(1, vec![0].into());
        assert_eq!(mailbox.next().await, (2, vec![7].into()));
        assert_eq!(mailbox.next().await, (1, vec![0].into()));
        let empty = tokio::time::timeout(std::time::Duration::from_millis(20), mailbox.next()).await;
        assert!(empty.is_err());
    }
}

//! What consensus has said and this guardian hasn't dealt with yet: agreed epochs, taken several at a time where several
//! wait, and everything else in the order in which it came.

use std::collections::VecDeque;

use federation_consensus::runner::ConsensusEvent;
use federation_consensus::{Batch, Header};
use tokio::sync::mpsc;

/// The most epochs of one commit, and about the most bytes of their contributions.
const EPOCHS: usize = 64;
const BYTES: usize = 8 << 20;

/// An agreed epoch.
#[derive(Debug, Clone)]
pub struct Agreed {
    /// What was agreed on.
    pub batch: Batch,
    /// Its header, if n − f guardians have signed it.
    pub proven: Option<Header>,
}

/// The events of consensus, sorted.
pub struct Arrivals {
    events: mpsc::UnboundedReceiver<ConsensusEvent>,
    /// Agreed epochs that aren't committed, in order.
    batches: VecDeque<Agreed>,
    /// What came after them and is about the state after them.
    held: Option<ConsensusEvent>,
}

impl Arrivals {
    /// Of a running consensus.
    pub fn new(events: mpsc::UnboundedReceiver<ConsensusEvent>) -> Self {
        Self { events, batches: VecDeque::new(), held: None }
    }

    /// Resolves when something has come; `false` when nothing will come any more. May be dropped without a loss.
    pub async fn wait(&mut self) -> bool {
        if self.held.is_none() && self.batches.is_empty() {
            match self.events.recv().await {
                Some(ConsensusEvent::Batch { batch, proven }) => {
                    self.batches.push_back(Agreed { batch, proven });
                }
                Some(event) => self.held = Some(event),
                None => return false,
            }
        }
        true
    }

    /// The next event that isn't an epoch, if it need not wait for one.
    pub fn event(&mut self) -> Option<ConsensusEvent> {
        while self.held.is_none() && self.batches.len() < 2 * EPOCHS {
            match self.events.try_recv().ok()? {
                ConsensusEvent::Batch { batch, proven } => self.batches.push_back(Agreed { batch, proven }),
                event => self.held = Some(event),
            }
            if matches!(
                self.held,
                Some(ConsensusEvent::ProposalWanted { .. } | ConsensusEvent::Signatures { .. })
            ) {
                return self.held.take();
            }
        }
        if self.batches.is_empty() { self.held.take() } else { None }
    }

    /// The epochs of the next commit: all of them proven, or none. `ends` tells of which epochs the state is wanted as it is right
    /// after them.
    pub fn group(&mut self, ends: impl Fn(u64) -> bool) -> Vec<Agreed> {
        let mut bytes = 0;
        let mut group = Vec::new();
        let proven = self.batches.front().is_some_and(|agreed| agreed.proven.is_some());
        while group.len() < EPOCHS && bytes < BYTES {
            if self.batches.front().is_none_or(|agreed| agreed.proven.is_some() != proven) {
                break;
            }
            let Some(agreed) = self.batches.pop_front() else { break };
            bytes = size(&agreed.batch, bytes);
            let last = ends(agreed.batch.epoch);
            group.push(agreed);
            if last {
                break;
            }
        }
        group
    }

    /// The epochs after that, as far as they are here.
    pub fn following(&self) -> impl Iterator<Item = &Agreed> {
        let mut bytes = 0;
        self.batches.iter().take(EPOCHS).take_while(move |agreed| {
            let before = bytes;
            bytes = size(&agreed.batch, before);
            before < BYTES
        })
    }
}

/// The bytes of its contributions, and `before`.
fn size(batch: &Batch, before: usize) -> usize {
    batch.contributions.values().fold(before, |sum, one| sum.saturating_add(one.len()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn batch(epoch: u64, size: usize) -> ConsensusEvent {
        let contributions = BTreeMap::from([(0, vec![0; size].into())]);
        ConsensusEvent::Batch { batch: Batch { epoch, contributions }, proven: None }
    }

    fn proven(epoch: u64) -> ConsensusEvent {
        let header = Header { epoch, previous: [0; 32], items: [0; 32], state: [0; 32] };
        match batch(epoch, 10) {
            ConsensusEvent::Batch { batch, .. } => ConsensusEvent::Batch { batch, proven: Some(header) },
            other => other,
        }
    }

    fn epochs(group: &[Agreed]) -> Vec<u64> {
        group.iter().map(|agreed| agreed.batch.epoch).collect()
    }

    #[tokio::test]
    async fn what_is_proven_is_not_mixed_with_what_is_not() {
        let (sender, events) = mpsc::unbounded_channel();
        let mut arrivals = Arrivals::new(events);
        for event in [proven(0), proven(1), proven(2), batch(3, 10), batch(4, 10), proven(5)] {
            sender.send(event).unwrap();
        }
        assert!(arrivals.event().is_none());
        for expected in [&[0, 1][..], &[2], &[3, 4], &[5], &[]] {
            assert_eq!(epochs(&arrivals.group(|epoch| epoch == 1)), expected);
        }
    }

    #[tokio::test]
    async fn epochs_are_taken_together_and_what_is_about_them_waits() {
        let (sender, events) = mpsc::unbounded_channel();
        let mut arrivals = Arrivals::new(events);
        for event in [
            batch(0, 10),
            ConsensusEvent::ProposalWanted { epoch: 3 },
            batch(1, 10),
            batch(2, 10),
            ConsensusEvent::HistoryPruned { first: 9 },
            batch(3, 10),
        ] {
            sender.send(event).unwrap();
        }
        assert!(arrivals.wait().await);
        // What doesn't depend on the state overtakes the epochs, what does follows them.
        assert!(matches!(arrivals.event(), Some(ConsensusEvent::ProposalWanted { epoch: 3 })));
        assert!(arrivals.event().is_none());
        assert_eq!(epochs(&arrivals.group(|epoch| epoch == 1)), [0, 1]);
        assert_eq!(epochs(&arrivals.following().cloned().collect::<Vec<_>>()), [2]);
        assert!(arrivals.event().is_none());
        assert_eq!(epochs(&arrivals.group(|_| false)), [2]);
        assert!(matches!(arrivals.event(), Some(ConsensusEvent::HistoryPruned { first: 9 })));
        assert!(arrivals.event().is_none());
        assert_eq!(epochs(&arrivals.group(|_| false)), [3]);
        assert!(arrivals.group(|_| false).is_empty());
        drop(sender);
        assert!(!arrivals.wait().await);
    }

    #[tokio::test]
    async fn a_commit_is_bounded() {
        let (sender, events) = mpsc::unbounded_channel();
        let mut arrivals = Arrivals::new(events);
        for epoch in 0..200 {
            sender.send(batch(epoch, if epoch < 100 { 10 } else { BYTES / 2 })).unwrap();
        }
        let mut sizes = Vec::new();
        let mut next = 0;
        while next < 200 {
            assert!(arrivals.wait().await && arrivals.event().is_none());
            assert!(arrivals.following().count() <= EPOCHS);
            let large = arrivals.following().filter(|agreed| agreed.batch.epoch >= 100);
            assert!(large.count() <= 2);
            let group = arrivals.group(|_| false);
            assert_eq!(epochs(&group), (next..next + group.len() as u64).collect::<Vec<_>>());
            next += group.len() as u64;
            sizes.push(group.len());
        }
        assert_eq!(sizes.first(), Some(&EPOCHS));
        assert_eq!(sizes.last(), Some(&2));
    }
}

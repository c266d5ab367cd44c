//! When to wait a moment before the journal is flushed, because more is about to come.
//!
//! In each round of messages every guardian says something to everyone. Whoever flushes at the first of these frames
//! flushes again for the others, and the disk is what an epoch waits for. So a flush waits until all who take part
//! have been heard since the last one: patiently until n - f have been, shortly after that, since one may be slow or have
//! nothing to say. Nobody waits with a proposal: others wait for it.

use std::collections::BTreeSet;

use crate::NodeId;
use crate::engine::{Outgoing, Target};

/// How long a flush should wait for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// A little, from the last arrival on.
    Short,
    /// As long as is sensible.
    Long,
}

/// What came since the last flush, and from whom more is expected.
#[derive(Debug, Default)]
pub(super) struct Gather {
    heard: BTreeSet<NodeId>,
    partners: BTreeSet<NodeId>,
    asked: bool,
}

impl Gather {
    /// Those who are connected and in the same epoch.
    pub fn partners(&mut self, partners: BTreeSet<NodeId>) {
        self.partners = partners;
    }

    /// A frame of an epoch that is under way.
    pub fn heard(&mut self, from: NodeId) {
        self.heard.insert(from);
    }

    /// The main loop is asked for a proposal: it will follow at once.
    pub fn asked(&mut self) {
        self.asked = true;
    }

    pub fn flushed(&mut self) {
        self.heard.clear();
        self.asked = false;
    }

    /// Whether the flush for what is to be said should wait for more. `enough` is n - f.
    pub fn wait(&self, unsaid: &[Outgoing], enough: usize) -> Wait {
        // Only a proposal's shards are for one guardian each.
        let proposes = unsaid.iter().any(|message| message.target != Target::All);
        if unsaid.is_empty() || proposes {
            Wait::No
        } else if self.asked {
            Wait::Long
        } else if self.partners.is_subset(&self.heard) {
            Wait::No
        } else if self.heard.len() + 1 < enough {
            Wait::Long
        } else {
            Wait::Short
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_all_but_never_with_a_proposal() {
        let message = |target| Outgoing { target, epoch: 1, frame: bytes::Bytes::new() };
        let (echo, shard) = ([message(Target::All)], [message(Target::All), message(Target::Node(2))]);
        let mut gather = Gather::default();
        assert_eq!(gather.wait(&echo, 3), Wait::No);
        gather.partners([1, 2, 3].into());
        gather.heard(1);
        assert_eq!(gather.wait(&echo, 3), Wait::Long);
        assert_eq!((gather.wait(&[], 3), gather.wait(&shard, 3)), (Wait::No, Wait::No));
        gather.heard(2);
        assert_eq!(gather.wait(&echo, 3), Wait::Short);
        gather.heard(3);
        assert_eq!(gather.wait(&echo, 3), Wait::No);
        gather.asked();
        assert_eq!((gather.wait(&echo, 3), gather.wait(&shard, 3)), (Wait::Long, Wait::No));
        gather.flushed();
        assert_eq!(gather.wait(&echo, 3), Wait::Long);
        gather.partners(BTreeSet::new());
        assert_eq!(gather.wait(&echo, 3), Wait::No);
    }
}

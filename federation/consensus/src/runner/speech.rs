//! The amnesia rule: a guardian whose disk was wiped or put back doesn't know what it has said, and a second,
//! different statement would make it a liar.
//!
//! So at every start it asks its peers for the frames of its own that they acted on, and keeps its frames back until
//! n - f guardians, itself included, have answered. What its journal gives back in replay is what it knows to
//! have said; if a peer holds anything else, the journal isn't whole, and the guardian says nothing in any epoch up to the last of
//! those. The answer of a peer that is slower than that still counts.
//!
//! A peer can only claim what it can prove to be possible: a guardian speaks at most a window beyond the last header that it
//! signed, and that signature is part of the answer. So no liar keeps another guardian silent for good.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::statement::{FrameId, Heard, Signed};
use crate::NodeId;

pub(super) fn frame_id(frame: &[u8]) -> FrameId {
    Sha256::digest(frame).first_chunk().copied().unwrap_or_default()
}

/// What this guardian said, and who has confirmed how much of it.
#[derive(Debug, Default)]
pub(super) struct Speech {
    said: BTreeMap<u64, BTreeSet<FrameId>>,
    answered: BTreeSet<NodeId>,
    /// Whether enough have answered.
    settled: bool,
}

impl Speech {
    /// A guardian that need not ask: it is alone, or a test wants it so.
    pub fn settled() -> Self {
        Self { settled: true, ..Self::default() }
    }

    pub const fn is_settled(&self) -> bool {
        self.settled
    }

    pub fn size(&self) -> usize {
        self.said.values().map(BTreeSet::len).sum()
    }

    /// The engine said this, in this life or in replay.
    pub fn say(&mut self, epoch: u64, frame: &[u8]) {
        self.said.entry(epoch).or_default().insert(frame_id(frame));
    }

    pub fn has_answered(&self, peer: NodeId) -> bool {
        self.answered.contains(&peer)
    }

    /// Epochs below won't be spoken in any more.
    pub fn forget(&mut self, below: u64) {
        self.said = self.said.split_off(&below);
    }

    /// Before a replay says it all again.
    pub fn replayed(&mut self) {
        self.said.clear();
    }

    /// A peer's answer. Returns the first epoch in which this guardian may speak, as far as this peer is concerned: all below that
    /// it can have spoken in, and doesn't know how, are forbidden.
    ///
    /// `verify` tells whether a header signature is this guardian's own.
    pub fn answer(
        &mut self,
        from: NodeId,
        heard: &Heard,
        base: u64,
        window: u64,
        verify: impl FnOnce(&Signed) -> bool,
    ) -> u64 {
        self.answered.insert(from);
        let proven = heard.proof.filter(verify).map_or(0, |proof| proof.epoch.saturating_add(1));
        let limit = proven.saturating_add(window);
        let unknown = |(epoch, id): &&(u64, FrameId)| {
            *epoch >= base && *epoch < limit && !self.said.get(epoch).is_some_and(|said| said.contains(id))
        };
        let spoken = heard.frames.iter().filter(unknown).map(|(epoch, _)| epoch.saturating_add(1)).max();
        // Of forgotten epochs, anything may have been heard.
        spoken.unwrap_or(0).max(heard.base.min(limit))
    }

    /// Whether this answer was the one that was missing, so that from now on the guardian may speak.
    pub fn settle(&mut self, needed: usize) -> bool {
        let enough = !self.settled && self.answered.len() + 1 >= needed;
        self.settled |= enough;
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_possible_can_be_claimed() {
        let mut speech = Speech::default();
        speech.say(5, b"known");
        let proof = Signed { epoch: 4, hash: [0; 32], signature: [0; 64] };
        let known = (5, frame_id(b"known"));
        let ask = |speech: &mut Speech, base, proof, frames: &[(u64, FrameId)]| {
            speech.answer(1, &Heard { base, proof, frames: frames.to_vec() }, 3, 4, |_| true)
        };
        assert_eq!(ask(&mut speech, 3, Some(proof), &[known]), 3);
        assert_eq!(ask(&mut speech, 0, Some(proof), &[known, (6, [1; 8])]), 7);
        assert_eq!(ask(&mut speech, 0, Some(proof), &[known, (9, [1; 8])]), 0);
        assert_eq!(ask(&mut speech, 0, None, &[(3, [1; 8]), (4, [1; 8])]), 4);
        assert_eq!(ask(&mut speech, 1 << 60, Some(proof), &[]), 9);
        // Below the base nothing is said any more.
        assert_eq!(ask(&mut speech, 0, Some(proof), &[(2, [1; 8])]), 0);
        assert!(!speech.settle(3) && !speech.is_settled());
        speech.answer(2, &Heard { base: 0, proof: None, frames: vec![] }, 3, 4, |_| true);
        assert!(speech.settle(3) && speech.is_settled() && !speech.settle(3));
    }
}

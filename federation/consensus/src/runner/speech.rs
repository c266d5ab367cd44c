//! The amnesia rule: a guardian whose disk was wiped or put back doesn't know what it has said, and a second,
//! different statement would make it a liar.
//!
//! So at every start it asks its peers for the frames of its own that they acted on, and keeps its frames back until
//! n - f guardians, itself included, have answered. What its journal gives back in replay is what it knows to
//! have said; if a peer holds anything else, the journal isn't whole, and the guardian says nothing in any epoch up to the last of
//! those. The answer of a peer that is slower than that still counts.
//!
//! Nobody can make it believe that it said what it didn't: its frames carry its own [tags](crate::engine::Voice). And of the epochs that a
//! peer has forgotten, in which anything may have been heard, only those count that n - f have signed: f + 1 honest guardians
//! have them then, so whoever lacks them gets them as history and waits for nobody. (With f + 1 signatures, one liar's among
//! them, one honest guardian might have the epoch and be unable to prove it.) So no liar silences a guardian where it is needed.

use std::collections::{BTreeMap, BTreeSet};

use super::statement::Heard;
use crate::NodeId;
use crate::engine::{FrameId, Tag, Voice, frame_id};
use crate::header::{Header, Signatures};

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

    #[cfg(feature = "testing")]
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
    /// `base` is this guardian's own first epoch that isn't forgotten; `is_complete` tells whether n - f have signed a header.
    pub fn answer(
        &mut self,
        from: NodeId,
        heard: &Heard,
        base: u64,
        voice: &Voice,
        is_complete: impl FnOnce(&Header, &Signatures) -> bool,
    ) -> u64 {
        self.answered.insert(from);
        let unknown = |(epoch, id, tag): &&(u64, FrameId, Tag)| {
            *epoch >= base
                && !self.said.get(epoch).is_some_and(|said| said.contains(id))
                && voice.made(*epoch, id, tag)
        };
        let spoken = heard.frames.iter().filter(unknown).map(|(epoch, ..)| epoch.saturating_add(1)).max();
        // Of forgotten epochs, anything may have been heard.
        let forgotten =
            heard.last_final.as_ref().filter(|(header, signatures)| is_complete(header, signatures));
        let forgotten = forgotten.map_or(0, |(header, _)| heard.base.min(header.epoch.saturating_add(1)));
        spoken.unwrap_or(0).max(forgotten)
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
    use crate::engine::{Engine, EngineConfig, tag_of};

    #[test]
    fn only_what_was_said_can_be_claimed() {
        let keys = crate::keygen::run_locally(2, Some(1)).unwrap();
        let [own, other] = [0, 1]
            .map(|node| Engine::new(&EngineConfig::new(node, 2, keys[node as usize].clone()), 5).unwrap());
        let say = |mut engine: Engine, value| engine.propose(5, value).unwrap().messages.remove(0).frame;
        let (known, forged) = (say(own, b"known"), say(other, b"forged"));
        let voice = Voice::of(&keys[0], 0);
        let claim = |frame: &[u8]| (5, frame_id(frame), tag_of(frame));
        let header = Header { epoch: 9, previous: [0; 32], items: [0; 32], state: [0; 32] };
        let mut speech = Speech::default();
        let ask = |speech: &mut Speech, own_base, base, frames: &[_], right| {
            let heard = Heard {
                life: 0,
                base,
                last_final: Some((header, Signatures::new())),
                frames: frames.to_vec(),
            };
            speech.answer(1, &heard, own_base, &voice, |_, _| right)
        };
        assert_eq!(ask(&mut speech, 3, 0, &[claim(&known)], true), 6);
        assert_eq!(ask(&mut speech, 6, 0, &[claim(&known)], true), 0);
        speech.say(5, &known);
        assert_eq!(ask(&mut speech, 3, 0, &[claim(&known), claim(&forged)], true), 0);
        assert_eq!(ask(&mut speech, 3, 4, &[], true), 4);
        assert_eq!(ask(&mut speech, 3, 1 << 60, &[], true), 10);
        assert_eq!(ask(&mut speech, 3, 1 << 60, &[], false), 0);
        assert!(!speech.settle(3) && !speech.is_settled());
        speech
            .answer(2, &Heard { life: 0, base: 0, last_final: None, frames: vec![] }, 3, &voice, |_, _| true);
        assert!(speech.settle(3) && speech.is_settled() && !speech.settle(3));
    }
}

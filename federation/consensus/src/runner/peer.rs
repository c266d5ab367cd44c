//! What the core keeps of one peer.

use std::collections::BTreeMap;

use super::outbox::Outbox;
use super::statement::Heard;
use crate::engine::{FrameId, Tag};
use crate::header::{Header, Signatures};

#[derive(Debug, Default)]
pub(super) struct Peer {
    pub outbox: Outbox,
    /// Its frames that this guardian acted on, by epoch.
    heard: BTreeMap<u64, Vec<(FrameId, Tag)>>,
    /// What it was last told (up to which epoch this guardian has signed, and which it needs next), and over which connection.
    pub told: Option<(u64, u64, u64)>,
    /// Over which connection it was asked what it has heard.
    pub asked: Option<u64>,
    /// At which tick it was answered that question last.
    pub answered_at: Option<u32>,
    /// How many epochs' signatures it may still bring.
    pub signatures_asked: u8,
}

impl Peer {
    pub fn hear(&mut self, epoch: u64, frame: FrameId, tag: Tag) {
        self.heard.entry(epoch).or_default().push((frame, tag));
    }

    /// The answer to the question what was heard, that the peer has asked in this `life`, by a guardian that has forgotten all before
    /// `base`.
    pub fn heard(&self, life: u64, base: u64, last_final: Option<(Header, Signatures)>) -> Heard {
        let frames =
            self.heard.iter().flat_map(|(epoch, frames)| frames.iter().map(|(id, tag)| (*epoch, *id, *tag)));
        Heard { life, base, last_final, frames: frames.collect() }
    }

    #[cfg(feature = "testing")]
    pub fn remembered(&self) -> usize {
        self.heard.values().map(Vec::len).sum()
    }

    pub fn forget(&mut self, below: u64) {
        self.heard = self.heard.split_off(&below);
        self.outbox.prune(below);
    }

    /// Before a replay fills it again.
    pub fn replayed(&mut self) {
        self.heard.clear();
        self.outbox.clear();
    }
}

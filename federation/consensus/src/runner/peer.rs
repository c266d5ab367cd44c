//! What the core keeps of one peer.

use std::collections::BTreeMap;

use super::outbox::Outbox;
use super::statement::{FrameId, Heard, Signed};

#[derive(Debug, Default)]
pub(super) struct Peer {
    pub outbox: Outbox,
    /// Its frames that this guardian acted on, by epoch.
    heard: BTreeMap<u64, Vec<FrameId>>,
    /// The latest header that it has signed.
    proof: Option<Signed>,
    /// Whether that is in the journal, or needn't be.
    proof_journalled: bool,
    /// What it was last told, and over which connection.
    pub told: Option<(u64, u64)>,
    /// Over which connection it was asked what it has heard.
    pub asked: Option<u64>,
}

impl Peer {
    pub fn hear(&mut self, epoch: u64, frame: FrameId) {
        self.heard.entry(epoch).or_default().push(frame);
    }

    pub fn signed(&mut self, signed: &Signed, journal: bool) {
        if self.proof.is_none_or(|proof| proof.epoch < signed.epoch) {
            self.proof = Some(*signed);
            self.proof_journalled = !journal;
        }
    }

    pub fn unjournalled_proof(&mut self) -> Option<Signed> {
        (!std::mem::replace(&mut self.proof_journalled, true)).then_some(self.proof).flatten()
    }

    /// The answer to the question what was heard, by a guardian that has forgotten all before `base`.
    pub fn heard(&self, base: u64) -> Heard {
        let frames = self.heard.iter().flat_map(|(epoch, frames)| frames.iter().map(|id| (*epoch, *id)));
        Heard { base, proof: self.proof, frames: frames.collect() }
    }

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

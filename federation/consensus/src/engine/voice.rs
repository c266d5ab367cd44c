//! How a guardian recognises its own words when it has forgotten them.
//!
//! Every frame carries a tag that only its author can make, with a key that comes from its secret share and so outlives
//! a lost disk. Nobody else can check it, and nobody needs to: it is for the answer to "what have you heard of me?"
//! (the amnesia rule), in which a liar could otherwise put words into an honest guardian's mouth and silence it.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::message::epoch_of;
use crate::NodeId;
use crate::keygen::CoinKeys;

/// Where the tag stands in a frame: after epoch, proposer and kind.
pub(super) const AT: usize = 8 + 2 + 1;
/// Beyond this a frame says nothing that isn't bound by what stands before: a shard is bound by its root and place.
const TELLING: usize = 256;

/// A frame in short: eight bytes of SHA-256 of all that tells it from others.
pub type FrameId = [u8; 8];
/// The author's mark on it.
pub type Tag = [u8; 8];

/// The id of a frame.
#[must_use]
pub fn frame_id(frame: &[u8]) -> FrameId {
    let (head, rest) = frame.split_at_checked(AT).unwrap_or((frame, &[]));
    let body = rest.get(size_of::<Tag>()..).unwrap_or_default();
    let telling = body.get(..TELLING).unwrap_or(body);
    let hash = Sha256::new()
        .chain_update("cln-federation/frame")
        .chain_update((frame.len() as u64).to_be_bytes())
        .chain_update(head)
        .chain_update(telling)
        .finalize();
    hash.first_chunk().copied().unwrap_or_default()
}

/// The tag that a frame carries.
#[must_use]
pub fn tag_of(frame: &[u8]) -> Tag {
    frame.get(AT..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default()
}

/// The key for one's own tags.
#[derive(Clone)]
pub struct Voice(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for Voice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Voice(…)")
    }
}

impl Voice {
    /// The voice of the guardian that has these keys. (Without faults to tolerate, n < 4, all have the same share: nobody is
    /// expected to lie then.)
    #[must_use]
    pub fn of(keys: &CoinKeys, me: NodeId) -> Self {
        let key = Sha256::new()
            .chain_update("cln-federation/voice")
            .chain_update(me.to_be_bytes())
            .chain_update(keys.to_bytes().as_slice());
        Self(Zeroizing::new(key.finalize().into()))
    }

    fn tag(&self, epoch: u64, id: &FrameId) -> Tag {
        let key = Sha256::new().chain_update(self.0.as_slice());
        let hash = key.chain_update(epoch.to_be_bytes()).chain_update(id).finalize();
        hash.first_chunk().copied().unwrap_or_default()
    }

    /// Whether this guardian made that tag for a frame of `epoch`.
    #[must_use]
    pub fn made(&self, epoch: u64, id: &FrameId, tag: &Tag) -> bool {
        self.tag(epoch, id).ct_eq(tag).into()
    }

    /// Puts the tag into a frame.
    pub(super) fn mark(&self, frame: &mut [u8]) {
        let tag = self.tag(epoch_of(frame).unwrap_or_default(), &frame_id(frame));
        if let Some(place) = frame.get_mut(AT..).and_then(|rest| rest.first_chunk_mut()) {
            *place = tag;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_author_s_tag_counts() {
        let voice = |key| Voice(Zeroizing::new([key; 32]));
        let mut frame = vec![7; 400];
        voice(1).mark(&mut frame);
        let (id, tag) = (frame_id(&frame), tag_of(&frame));
        let epoch = epoch_of(&frame).unwrap();
        assert!(voice(1).made(epoch, &id, &tag) && !voice(2).made(epoch, &id, &tag));
        assert!(!voice(1).made(epoch + 1, &id, &tag));
        frame[AT + 8] ^= 1;
        assert_ne!(frame_id(&frame), id);
        assert!(!voice(1).made(epoch, &frame_id(&frame), &tag));
        let _ = (frame_id(&[]), tag_of(&[1; 12]));
    }
}

//! What guardians say to each other inside an epoch, and its encoding.
//!
//! `epoch u64 · proposer u16 · kind u8 · tag · body`; the [tag](super::voice) is for the author only. A shard is `root · proof · data`, the proof's length
//! being fixed by n; an agreement message is hbbft's own in bincode.
//!
//! A frame *binds* its author if saying something else later would contradict it, or if others rely on its being said again: then
//! its cause must be durable before it leaves. Of all kinds only one doesn't: `Term`, "I have decided". It carries no tag.
//!
//! - No contradiction. A guardian decides on what it was told by n - f, and by agreement no honest one ever decides otherwise;
//!   one that forgets that it has decided is an undecided one again, and gets to the same decision, if at all.
//! - Nobody is left waiting. Whoever counts this `Term` counts it as the same value in all *later* rounds. An honest guardian's
//!   decision in a round is every honest guardian's estimate in all later ones, so the forgetful one says just that in each of them. In the
//!   round itself the `Term` counts for nothing, and what was said in it before (`BVal`, `Aux`, `Conf`, coin) does bind.
//! - Why not `READY` or `BVal`, which can't contradict themselves either: f liars may have helped to cause them, and need not do so again. Those who
//!   counted them would deliver, or accept a value, and the others never would.

use bincode::Options;
use bytes::Bytes;
use hbbft::binary_agreement::{self, MessageContent};

use super::merkle::{self, Hash};
use super::voice::{self, Tag, Voice};
use crate::NodeId;
use crate::wire::{Malformed, Reader};

/// An agreement message is tiny: the largest is a coin share (96 bytes).
const MAX_AGREEMENT: u64 = 256;

/// Bytes of a frame in front of its body.
const HEADER: usize = voice::AT + size_of::<Tag>();

/// Where the kind stands in a frame.
const KIND: usize = voice::AT - 1;
/// The kind of a `Term`.
const TERM: u8 = 5;

/// Whom a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Every other guardian.
    All,
    /// One other guardian.
    Node(NodeId),
}

/// One shard of a proposal with its place in the Merkle tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// The proposal's commitment.
    pub root: Hash,
    /// The way to the root.
    pub proof: Vec<Hash>,
    /// The shard itself.
    pub data: Bytes,
}

/// What a frame says about one proposer's proposal.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// VAL: the proposer hands a guardian its shard.
    Value(Shard),
    /// ECHO: a guardian hands everyone its shard.
    Echo(Shard),
    /// READY: the proposal with this root is going to be delivered.
    Ready(Hash),
    /// A message of the binary agreement about the proposal.
    Agreement(binary_agreement::Message),
}

/// A frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The epoch.
    pub epoch: u64,
    /// Whose proposal.
    pub proposer: NodeId,
    /// What of it.
    pub body: Body,
}

fn bincode_options() -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(MAX_AGREEMENT)
}

/// The size of the largest frame in a federation of `n` with shards of `shard` bytes.
#[must_use]
pub const fn max_frame(n: u16, shard: usize) -> usize {
    let shard = 32 * (1 + merkle::depth(n)) + shard;
    HEADER + if shard > MAX_AGREEMENT as usize { shard } else { MAX_AGREEMENT as usize }
}

/// Whether what led to this frame must be durable before it leaves.
#[must_use]
pub fn binds(frame: &[u8]) -> bool {
    frame.get(KIND) != Some(&TERM)
}

/// The epoch of a frame, without reading the rest.
#[must_use]
pub fn epoch_of(frame: &[u8]) -> Option<u64> {
    frame.first_chunk::<8>().map(|b| u64::from_be_bytes(*b))
}

impl Message {
    /// The frame's bytes, without a tag.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.bytes().into()
    }

    /// The frame's bytes with its author's tag.
    #[must_use]
    pub fn encode_as(&self, author: &Voice) -> Bytes {
        let mut bytes = self.bytes();
        if binds(&bytes) {
            author.mark(&mut bytes);
        }
        bytes.into()
    }

    fn bytes(&self) -> Vec<u8> {
        let size = match &self.body {
            Body::Value(s) | Body::Echo(s) => 32 * (1 + s.proof.len()) + s.data.len(),
            Body::Ready(_) => 32,
            Body::Agreement(_) => 128,
        };
        let mut out = Vec::with_capacity(HEADER + size);
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.proposer.to_be_bytes());
        out.push(match &self.body {
            Body::Value(_) => 1,
            Body::Echo(_) => 2,
            Body::Ready(_) => 3,
            Body::Agreement(message) => agreement_kind(message),
        });
        out.extend_from_slice(&Tag::default());
        match &self.body {
            Body::Value(shard) | Body::Echo(shard) => put_shard(&mut out, shard),
            Body::Ready(root) => {
                out.extend_from_slice(root);
            }
            Body::Agreement(message) => {
                // Writing to memory what is far below the limit has no way to fail.
                let written = bincode_options().serialize_into(&mut out, message);
                debug_assert!(written.is_ok());
            }
        }
        out
    }

    /// Reads a frame in a federation of `n`; shards are slices of it.
    ///
    /// # Errors
    /// [`Malformed`] for anything but what [`encode`](Self::encode) writes.
    pub fn decode(frame: Bytes, n: u16) -> Result<Self, Malformed> {
        let mut reader = Reader::new(frame);
        let epoch = reader.u64()?;
        let proposer = reader.u16()?;
        let kind = reader.u8()?;
        reader.array::<{ size_of::<Tag>() }>()?;
        let body = match kind {
            1 => Body::Value(take_shard(reader, n)?),
            2 => Body::Echo(take_shard(reader, n)?),
            3 => {
                let root = reader.array()?;
                reader.end()?;
                Body::Ready(root)
            }
            4 | TERM => {
                let read = bincode_options().reject_trailing_bytes().deserialize(&reader.rest());
                let message = read.map_err(|_| Malformed)?;
                if agreement_kind(&message) != kind {
                    return Err(Malformed);
                }
                Body::Agreement(message)
            }
            _ => return Err(Malformed),
        };
        Ok(Self { epoch, proposer, body })
    }
}

const fn agreement_kind(message: &binary_agreement::Message) -> u8 {
    match message.content {
        MessageContent::Term(_) => TERM,
        _ => 4,
    }
}

fn put_shard(out: &mut Vec<u8>, shard: &Shard) {
    out.extend_from_slice(&shard.root);
    for hash in &shard.proof {
        out.extend_from_slice(hash);
    }
    out.extend_from_slice(&shard.data);
}

fn take_shard(mut reader: Reader, n: u16) -> Result<Shard, Malformed> {
    let root = reader.array()?;
    let proof = (0..merkle::depth(n)).map(|_| reader.array()).collect::<Result<_, _>>()?;
    Ok(Shard { root, proof, data: reader.rest() })
}

#[cfg(test)]
mod tests {
    use hbbft::binary_agreement::SbvMessage;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_comes_back() {
        let shard = Shard { root: [1; 32], proof: vec![[2; 32], [3; 32]], data: Bytes::from_static(b"data") };
        let agreement = MessageContent::SbvBroadcast(SbvMessage::BVal(true)).with_epoch(3);
        let term = MessageContent::Term(true).with_epoch(3);
        let (agreement, term) = (Body::Agreement(agreement), Body::Agreement(term));
        for body in
            [Body::Value(shard.clone()), Body::Echo(shard), Body::Ready([9; 32]), agreement, term.clone()]
        {
            let message = Message { epoch: 7, proposer: 2, body };
            assert_eq!(binds(&message.encode()), message.body != term);
            if let Body::Agreement(_) = message.body {
                let mut wrong = message.encode().to_vec();
                wrong[KIND] = if wrong[KIND] == TERM { 4 } else { TERM };
                assert_eq!(Message::decode(wrong.into(), 4), Err(Malformed));
            }
            assert_eq!(Message::decode(message.encode(), 4), Ok(message.clone()));
            assert_eq!(epoch_of(&message.encode()), Some(7));
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), n in 1u16..20) {
            let _ = Message::decode(bytes.into(), n);
        }
    }
}

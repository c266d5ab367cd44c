//! What runners tell each other beside the engine's frames.
//!
//! Statements go where the engine's frames go, so that a link delivers both in the order in which they were
//! said; a proposer that can't exist marks them: `epoch u64 · 0xffff · kind u8 · body`.

use bytes::Bytes;

use crate::header::Signature;
use crate::wire::{Malformed, Reader};

const MARK: [u8; 2] = [0xff, 0xff];
/// The most frames that one answer names; far more than a guardian keeps.
const MAX_FRAMES: u32 = 200_000;

/// The first eight bytes of SHA-256 of a frame. Two frames of one guardian in one epoch hardly share them, and
/// if they did, nothing would be lost but the notice of a lost journal.
pub(super) type FrameId = [u8; 8];

/// A guardian's signature under an epoch's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signed {
    pub epoch: u64,
    pub hash: [u8; 32],
    pub signature: Signature,
}

/// What a guardian holds of another's frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heard {
    /// Below this epoch it has forgotten what it heard.
    pub base: u64,
    /// The latest header that the other one signed, as far as this guardian knows: it can't have spoken beyond the window
    /// after it, so nobody can claim that it did.
    pub proof: Option<Signed>,
    /// The frames since `base` that this guardian acted on.
    pub frames: Vec<(u64, FrameId)>,
}

/// A statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Statement {
    /// "The next epoch that I have to commit is this one." Frames beyond it and the window are held back.
    Next(u64),
    /// "I have committed this epoch, and this is what came of it."
    Signed(Signed),
    /// "What have you heard of me?" It is answered after all that came before it on the link.
    Ask,
    /// The answer.
    Heard(Heard),
}

/// Whether a frame is a statement, not the engine's.
pub(crate) fn is_statement(frame: &[u8]) -> bool {
    frame.get(8..10) == Some(&MARK)
}

impl Statement {
    pub fn encode(&self) -> Bytes {
        let (epoch, kind) = match self {
            Self::Next(epoch) => (*epoch, 1),
            Self::Signed(signed) => (signed.epoch, 2),
            Self::Ask => (0, 3),
            Self::Heard(heard) => (heard.base, 4),
        };
        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(&epoch.to_be_bytes());
        out.extend_from_slice(&MARK);
        out.push(kind);
        match self {
            Self::Next(_) | Self::Ask => {}
            Self::Signed(signed) => {
                out.extend_from_slice(&signed.hash);
                out.extend_from_slice(&signed.signature);
            }
            Self::Heard(heard) => {
                out.push(heard.proof.is_some().into());
                if let Some(proof) = &heard.proof {
                    out.extend_from_slice(&proof.epoch.to_be_bytes());
                    out.extend_from_slice(&proof.hash);
                    out.extend_from_slice(&proof.signature);
                }
                for (epoch, id) in heard.frames.iter().take(MAX_FRAMES as usize) {
                    out.extend_from_slice(&epoch.to_be_bytes());
                    out.extend_from_slice(id);
                }
            }
        }
        out.into()
    }

    pub fn decode(frame: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(frame);
        let epoch = reader.u64()?;
        if reader.array()? != MARK {
            return Err(Malformed);
        }
        let statement = match reader.u8()? {
            1 => Self::Next(epoch),
            2 => Self::Signed(signed(&mut reader, epoch)?),
            3 => Self::Ask,
            4 => {
                let proof = match reader.u8()? {
                    0 => None,
                    1 => {
                        let epoch = reader.u64()?;
                        Some(signed(&mut reader, epoch)?)
                    }
                    _ => return Err(Malformed),
                };
                let mut frames = Vec::new();
                while !reader.is_empty() && frames.len() < MAX_FRAMES as usize {
                    frames.push((reader.u64()?, reader.array()?));
                }
                Self::Heard(Heard { base: epoch, proof, frames })
            }
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(statement)
    }
}

fn signed(reader: &mut Reader, epoch: u64) -> Result<Signed, Malformed> {
    Ok(Signed { epoch, hash: reader.array()?, signature: reader.array()? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_comes_back() {
        let signed = Signed { epoch: 7, hash: [1; 32], signature: [2; 64] };
        let heard = Heard { base: 3, proof: Some(signed), frames: vec![(4, [5; 8]), (6, [7; 8])] };
        for statement in [
            Statement::Next(9),
            Statement::Signed(signed),
            Statement::Ask,
            Statement::Heard(heard.clone()),
            Statement::Heard(Heard { proof: None, frames: vec![], ..heard }),
        ] {
            let frame = statement.encode();
            assert!(is_statement(&frame));
            assert_eq!(Statement::decode(frame.clone()), Ok(statement));
            assert!(Statement::decode(frame.slice(1..)).is_err());
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 11..400), kind in 0u8..6) {
            bytes[8..11].copy_from_slice(&[0xff, 0xff, kind]);
            if let Ok(statement) = Statement::decode(bytes.clone().into()) {
                // Next and Ask ignore nothing: what decodes is the one encoding, but for Ask's epoch.
                prop_assert!(statement == Statement::Ask || statement.encode() == bytes);
            }
        }
    }
}

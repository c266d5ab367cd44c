//! What runners tell each other beside the engine's frames.
//!
//! Statements go where the engine's frames go, so that a link delivers both in the order in which they were
//! said; a proposer that can't exist marks them: `epoch u64 · 0xffff · kind u8 · body`.

use bytes::Bytes;

use crate::engine::{FrameId, Tag};
use crate::header;
use crate::header::{Header, Signature, Signatures};
use crate::wire::{Malformed, Reader};

const MARK: [u8; 2] = [0xff, 0xff];
/// The most frames that one answer names; far more than a guardian keeps.
const MAX_FRAMES: usize = 200_000;

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
    /// The life of the guardian that asked. What was answered to an earlier one may come late, and tells nothing of what that one has
    /// said since.
    pub life: u64,
    /// Below this epoch it has forgotten what it heard.
    pub base: u64,
    /// A header that n - f have signed: what was forgotten counts up to its epoch only, since nobody forgets more.
    pub last_final: Option<(Header, Signatures)>,
    /// The frames since `base` that this guardian acted on, with the tags that show whose they are.
    pub frames: Vec<(u64, FrameId, Tag)>,
}

/// A statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Statement {
    /// "The next epoch that I have to commit is this one." Frames beyond it and the window are held back.
    Next(u64),
    /// "I have committed this epoch, and this is what came of it."
    Signed(Signed),
    /// "What have you heard of me?", in a life that has this number. It is answered after all that came before it on the link.
    Ask(u64),
    /// The answer.
    Heard(Heard),
    /// "I am about to propose in this epoch, as the first, for all I know." So the others' proposals are on their way to the disk
    /// while this one is. It binds nobody to anything, and nothing need be durable before it is said.
    Opens(u64),
}

/// Whether a frame is a statement, not the engine's.
pub(super) fn is_statement(frame: &[u8]) -> bool {
    frame.get(8..10) == Some(&MARK)
}

impl Statement {
    pub fn encode(&self) -> Bytes {
        let (epoch, kind) = match self {
            Self::Next(epoch) => (*epoch, 1),
            Self::Signed(signed) => (signed.epoch, 2),
            Self::Ask(life) => (*life, 3),
            Self::Heard(heard) => (heard.base, 4),
            Self::Opens(epoch) => (*epoch, 5),
        };
        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(&epoch.to_be_bytes());
        out.extend_from_slice(&MARK);
        out.push(kind);
        match self {
            Self::Next(_) | Self::Ask(_) | Self::Opens(_) => {}
            Self::Signed(signed) => {
                out.extend_from_slice(&signed.hash);
                out.extend_from_slice(&signed.signature);
            }
            Self::Heard(heard) => {
                out.extend_from_slice(&heard.life.to_be_bytes());
                out.push(heard.last_final.is_some().into());
                if let Some((header, signatures)) = &heard.last_final {
                    header.put(&mut out);
                    header::put_signatures(&mut out, signatures);
                }
                for (epoch, id, tag) in heard.frames.iter().take(MAX_FRAMES) {
                    out.extend_from_slice(&epoch.to_be_bytes());
                    out.extend_from_slice(id);
                    out.extend_from_slice(tag);
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
            2 => Self::Signed(Signed { epoch, hash: reader.array()?, signature: reader.array()? }),
            3 => Self::Ask(epoch),
            4 => {
                let life = reader.u64()?;
                let last_final = match reader.u8()? {
                    0 => None,
                    1 => Some((Header::take(&mut reader)?, header::take_signatures(&mut reader)?)),
                    _ => return Err(Malformed),
                };
                let mut frames = Vec::new();
                while !reader.is_empty() && frames.len() < MAX_FRAMES {
                    frames.push((reader.u64()?, reader.array()?, reader.array()?));
                }
                Self::Heard(Heard { life, base: epoch, last_final, frames })
            }
            5 => Self::Opens(epoch),
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(statement)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_comes_back() {
        let signed = Signed { epoch: 7, hash: [1; 32], signature: [2; 64] };
        let header = Header { epoch: 7, previous: [1; 32], items: [2; 32], state: [3; 32] };
        let last_final = Some((header, Signatures::from([(0, [4; 64]), (3, [5; 64])])));
        let heard = Heard {
            life: 1 << 40,
            base: 3,
            last_final,
            frames: vec![(4, [5; 8], [6; 8]), (6, [7; 8], [8; 8])],
        };
        for statement in [
            Statement::Next(9),
            Statement::Signed(signed),
            Statement::Ask(u64::MAX),
            Statement::Opens(8),
            Statement::Heard(heard.clone()),
            Statement::Heard(Heard { last_final: None, frames: vec![], ..heard }),
        ] {
            let frame = statement.encode();
            assert!(is_statement(&frame));
            assert_eq!(Statement::decode(frame.clone()), Ok(statement));
            assert!(Statement::decode(frame.slice(1..)).is_err());
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 11..400), kind in 0u8..7) {
            bytes[8..11].copy_from_slice(&[0xff, 0xff, kind]);
            if let Ok(statement) = Statement::decode(bytes.clone().into()) {
                prop_assert_eq!(statement.encode(), bytes);
            }
        }
    }
}

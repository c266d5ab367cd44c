//! Small statements between runners.

use bytes::Bytes;

use crate::wire::{Malformed, Reader};

/// A statement about oneself, or a question about what the other has heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    /// "The next epoch that I have to commit is this one." Frames beyond it and the window are held back.
    Next(u64),
    /// "From which epoch on have you heard nothing of me?" (amnesia rule)
    AskHeard,
    /// "From this one on."
    Heard(u64),
}

impl Control {
    pub fn encode(self) -> Bytes {
        let (kind, number) = match self {
            Self::Next(epoch) => (1, epoch),
            Self::AskHeard => (2, 0),
            Self::Heard(epoch) => (3, epoch),
        };
        let mut out = vec![kind];
        out.extend_from_slice(&u64::to_be_bytes(number));
        out.into()
    }

    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let (kind, number) = (reader.u8()?, reader.u64()?);
        reader.end()?;
        match kind {
            1 => Ok(Self::Next(number)),
            2 => Ok(Self::AskHeard),
            3 => Ok(Self::Heard(number)),
            _ => Err(Malformed),
        }
    }
}

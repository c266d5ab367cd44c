//! Small statements between runners.

use bytes::Bytes;

use crate::wire::{Malformed, Reader};

/// "From which epoch on have you heard nothing of me?" (amnesia rule). It goes where the engine's frames go, all
/// of which are longer, so that it is answered after all that came before it.
pub(super) const ASK_HEARD: Bytes = Bytes::new();

/// A statement about oneself, or a question about what the other has heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    /// "The next epoch that I have to commit is this one." Frames beyond it and the window are held back.
    Next(u64),
    /// "I have heard nothing of you from this epoch on": the answer to [`ASK_HEARD`].
    Heard(u64),
}

impl Control {
    pub fn encode(self) -> Bytes {
        let (kind, number) = match self {
            Self::Next(epoch) => (1, epoch),
            Self::Heard(epoch) => (2, epoch),
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
            2 => Ok(Self::Heard(number)),
            _ => Err(Malformed),
        }
    }
}

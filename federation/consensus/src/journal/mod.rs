//! Journal before send: what a guardian has been told and has proposed, durable before any message
//! or acknowledgement that follows from it leaves.
//!
//! After a crash the inputs are fed to a new engine in the same order, and it says byte for byte what
//! it had said before. Only inputs that [changed](crate::engine::Step::changed) the engine are kept. A crash
//! between handling and appending loses inputs whose consequences nobody has seen.

mod file;
mod memory;

use std::io;

use bytes::Bytes;

pub use self::file::FileJournal;
pub use self::memory::MemoryJournal;
use crate::NodeId;
use crate::wire::{Malformed, Reader};

/// One input of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// This guardian's proposal.
    Proposal {
        /// Its epoch.
        epoch: u64,
        /// Its bytes.
        value: Bytes,
    },
    /// A peer's frame.
    Frame {
        /// Its epoch.
        epoch: u64,
        /// The peer.
        from: NodeId,
        /// Its bytes.
        frame: Bytes,
    },
}

impl Record {
    /// The epoch that the record belongs to.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        match self {
            Self::Proposal { epoch, .. } | Self::Frame { epoch, .. } => *epoch,
        }
    }

    /// Bytes of the encoding.
    const fn size(&self) -> usize {
        let (Self::Proposal { value: bytes, .. } | Self::Frame { frame: bytes, .. }) = self;
        1 + 8 + 2 + bytes.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let (kind, from, bytes) = match self {
            Self::Proposal { value, .. } => (1, 0, value),
            Self::Frame { from, frame, .. } => (2, *from, frame),
        };
        out.push(kind);
        out.extend_from_slice(&self.epoch().to_be_bytes());
        out.extend_from_slice(&from.to_be_bytes());
        out.extend_from_slice(bytes);
    }

    fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8()?;
        let epoch = reader.u64()?;
        let from = reader.u16()?;
        match kind {
            1 => Ok(Self::Proposal { epoch, value: reader.rest() }),
            2 => Ok(Self::Frame { epoch, from, frame: reader.rest() }),
            _ => Err(Malformed),
        }
    }
}

/// Where inputs are kept. Called from the engine's own thread, so it may block.
pub trait Journal: Send {
    /// All records that are there, in the order in which they were appended.
    ///
    /// # Errors
    /// The medium's; the guardian stops then.
    fn replay(&mut self) -> io::Result<Vec<Record>>;

    /// Appends all of `records`; they are durable when this returns. One call is one flush to disk.
    ///
    /// # Errors
    /// The medium's; the guardian stops then, and sends nothing that follows from them.
    fn append(&mut self, records: &[Record]) -> io::Result<()>;

    /// Records of epochs below `epoch` may be dropped. Of an epoch, either all or none are replayed.
    ///
    /// # Errors
    /// The medium's; the guardian stops then.
    fn truncate(&mut self, epoch: u64) -> io::Result<()>;

    /// The first epoch in which this guardian may speak; `None` for a new journal, which doesn't know
    /// what was said before it (the amnesia rule).
    ///
    /// # Errors
    /// The medium's; the guardian stops then.
    fn speaks_from(&mut self) -> io::Result<Option<u64>>;

    /// Settles that, once and durably.
    ///
    /// # Errors
    /// The medium's; the guardian stops then.
    fn set_speaks_from(&mut self, epoch: u64) -> io::Result<()>;
}

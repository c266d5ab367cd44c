//! Ordered batches of bytes, agreed by n guardians of which f = (n-1)/3 may be faulty.
//!
//! The protocol is one epoch of HoneyBadger after another (Miller et al., *The Honey Badger of
//! BFT Protocols*, eprint 2016/199): each guardian broadcasts a proposal reliably, one binary
//! agreement a proposal decides whether it is in, and everyone gets the same set of proposals.
//! This crate knows nothing of what the bytes mean.
//!
//! From the inside out:
//!
//! - [`engine`]: the protocol without any I/O. Frames in, a [`engine::Step`] out; deterministic.
//! - [`header`]: what guardians sign of an epoch.
//! - [`keygen`]: the keys of the agreement's common coin, made without a dealer.
//! - [`journal`]: inputs made durable before anything that follows from them is sent.
//! - [`links`]: authenticated, ordered, acknowledged byte frames between guardians.
//! - [`runner`]: all of it driven together, with catch-up for those who fell behind.
//!
//! Nothing that a peer sends is an error: it is that peer's [`engine::FaultKind`], counted.

pub mod batch;
pub mod engine;
pub mod header;
pub mod journal;
pub mod keygen;
pub mod links;
pub mod protection;
pub mod runner;
pub mod wire;

pub use batch::Batch;
pub use bytes::Bytes;
pub use header::Header;

/// A guardian's number, 0 to n-1.
pub type NodeId = u16;

/// The largest federation this crate accepts.
pub const MAX_NODES: u16 = 20;

/// How many of `n` guardians may be faulty: f = (n-1)/3.
#[must_use]
pub const fn max_faulty(n: u16) -> u16 {
    n.saturating_sub(1) / 3
}

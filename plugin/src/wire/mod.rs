//! Between lightningd and cln-plugin: every message is framed and checked before cln-plugin sees it.
//!
//! ```text
//! lightningd ─stdin─▶ frames ─▶ check ─┬─▶ the HTLC hook, answered by this crate
//!                                      ├─▶ cln-plugin: what it is sure to understand
//!                                      └─▶ refused here, with an error
//! lightningd ◀─stdout── output ◀── whole messages of all three, never mixed up
//! ```
//!
//! cln-plugin 0.7 ends the whole plugin on a message that it can't read, and a user can make lightningd pass such a
//! message on: parameters nested too deeply, a lone surrogate, even two line feeds between parameters.

pub mod check;
pub mod fields;
pub mod frames;
pub mod output;
pub mod pump;

pub use check::{Known, Verdict};
pub use output::Output;

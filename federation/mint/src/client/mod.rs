//! The user's side, without I/O: what a wallet needs to ask for notes, keep, choose, split, spend and hand them on.
//!
//! ```text
//! seed ─▶ Deriver ─▶ NoteRequest ─output()─▶ mint ─outcome─▶ finish() ─▶ Note ─spend_input()─▶ mint
//!                                      │                         ▲       └─ ECash ─▶ "clnecash1…"
//!                                      └── shares ─ finish_early() ── an epoch earlier
//! ```
//!
//! Everything of a note but the signature derives from the seed, the federation and a number: a wallet persists the next
//! free number before it uses one, and needs nothing else to start over.

pub mod consolidate;
mod derive;
mod early;
mod note;
mod request;
mod select;
mod split;
mod text;

pub use derive::{Deriver, NoteSecret};
pub use early::{Early, SharesAnswer, finish_early};
pub use note::{Note, spend_input};
pub use request::{NoteRequest, finish, finish_all};
pub use select::{Selection, select_exact, select_notes};
pub use split::{DEFAULT_SPREAD, Held, change, represent, represent_spread};
pub use text::{ECash, MAX_ECASH_TEXT};

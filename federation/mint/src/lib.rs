//! E-cash notes: the mint module's shared types, its server and its client.
//!
//! A note is a BIP-340 nonce key and the federation's BLS signature of it; its denomination, a power of two in msat, is
//! the key that signed. The mint signs blinded nonces, so nobody can tell which note came from which output.
//!
//! ```text
//! output  {denomination, blinded nonce} ─▶ pending ─▶ items: partial signatures, one item a guardian and epoch
//!                                                       │ any T of them
//!                                                       ▼
//! outcome  blinded signature ◀── combined, all of an epoch checked in one batch
//!    │ unblind (client)
//!    ▼
//! input   {denomination, signature}, key = nonce ─▶ spent, once for ever
//! ```
//!
//! | part | what it is for |
//! |---|---|
//! | [`denomination`], [`types`] | what inputs, outputs and items look like |
//! | [`config`] | keys, fees and limits, fixed at setup |
//! | `server` (feature `server`) | the rules, as a guardian applies them |
//! | `client` (feature `client`) | deriving, requesting, choosing, splitting and printing notes; no I/O |

#[cfg(any(feature = "server", feature = "client"))]
mod combine;
pub mod config;
pub mod denomination;
pub mod error;
#[cfg(any(feature = "server", feature = "client"))]
pub mod types;

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod server;

// (With both features: Cargo.toml has this crate as its own dev-dependency.)
#[cfg(test)]
mod tests;

pub use config::{DenominationKeys, MintConfig, MintParams, MintSecret, generate};
pub use denomination::Denomination;
pub use error::MintError;
pub use types::{NoteInput, NoteOutput, PartialSignature, PartialSignatures, PointBytes};

/// The module's kind: its name in the configuration and in the API.
pub const KIND: &str = "mint";
/// How many denominations a federation has unless it is told otherwise: 1 msat to 2⁴⁰ msat (about 11 BTC).
pub const DEFAULT_DENOMINATIONS: usize = 41;

//! What the words alone do not bring back, kept by the guardians in a form that only the words open.
//!
//! ```text
//! contents   operations: those that are open first, then the history, the newest first, as many as fit
//!    │
//! seal       padded to one of four sizes, XChaCha20-Poly1305 with a key from the words
//!    │
//! write      signed with another key from the words, handed to all guardians; good when n − f keep it
//!    ┆       (the folder is lost; `ecash restore`)
//! read       from all guardians that answer; the newest that the own key has signed
//!    │
//! apply      in the restore's last commit: operations, sent notes, payments by invoice; open ones go on
//! ```
//!
//! # When it is written
//!
//! In the background, soon after an operation has begun, moved on or ended ([`DEBOUNCE`]); a command line writes at its end.
//! Before money is locked for a Lightning payment, and before an invoice is shown, it is written first, since such a contract's
//! id and keys are in no other place; and before a withdrawal is handed in, since a wallet that has forgotten it may pay it again. But a payment never waits longer than [`BEFORE`] for it, and goes on without it.
//! A write that fails never fails what it is about: `ecash info` shows how things stand, and it is tried again.
//!
//! # Old ones are harmless
//!
//! Whatever state an operation is restored in, the federation is asked before anything is done: a contract that was claimed or
//! refunded says so, a note that was spent can't be spent again. What is restored in doubt is never a note that the guardians do
//! not show as unspent. A withdrawal that nobody shows as accepted is ended by spending its notes. (What is shown may be less exact then: a receive that this wallet had finished itself shows as spent
//! before.)
//!
//! # What guardians learn
//!
//! That a wallet with this key (which is used for nothing else) exists, when it is active, its network address, and which of
//! four sizes its backup has. It is written just before a payment and soon after whatever else happens: a guardian that compares times can
//! tell which transactions are probably those of one wallet, also where their network addresses differ.

mod apply;
mod contents;
mod read;
mod seal;
mod write;

pub(crate) use apply::Applied;
pub(crate) use read::Fetched;
pub(crate) use write::due;
pub use write::{BackupStatus, Written};

use std::time::Duration;

use bitcoin::secp256k1::Keypair;
use federation_core::FederationId;
use zeroize::Zeroizing;

use crate::{Result, words};

/// Changes are written together when so much time has passed.
pub const DEBOUNCE: Duration = Duration::from_secs(if cfg!(test) { 3600 } else { 2 });
/// The longest that a payment or an invoice waits for its backup.
pub const BEFORE: Duration = Duration::from_millis(1500);

/// The keys of a wallet's backup: the one that it is kept under and signed with, and the one that it is sealed with.
pub(crate) struct BackupKeys {
    signing: Keypair,
    sealing: Zeroizing<[u8; 32]>,
}

impl BackupKeys {
    pub(crate) fn derive(seed: &[u8; 64], federation: FederationId) -> Result<Self> {
        Ok(Self {
            signing: words::derive_key(seed, federation, "cln-federation/client/backup", 0)?,
            sealing: Zeroizing::new(
                words::derive_key(seed, federation, "cln-federation/client/backup-seal", 0)?.secret_bytes(),
            ),
        })
    }
}

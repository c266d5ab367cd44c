//! What can be wrong with notes, keys and wishes.

use federation_core::transaction::MAX_PARTS;
use federation_core::{Amount, FederationId};

use crate::Denomination;

/// The mint's errors outside consensus.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// The secret shares don't belong to the configuration's public ones.
    #[error(
        "the secret keys of the mint do not belong to this guardian of this federation: restore the right backup"
    )]
    SecretMismatch,
    /// No e-cash string, or mistyped, or cut.
    #[error("this is no e-cash: {0}. Copy it again; it starts with clnecash1")]
    Text(String),
    /// A string with a right checksum that holds something else.
    #[error("this e-cash cannot be read by this version: {0}")]
    Content(String),
    /// E-cash of a federation that the wallet isn't looking at.
    #[error("this e-cash is of another federation ({0}): join that one to receive it")]
    OtherFederation(FederationId),
    /// No notes at all.
    #[error("this e-cash holds no notes")]
    NoNotes,
    /// A nonce occurs more than once.
    #[error("this e-cash holds the same note twice: its sender is at fault")]
    DuplicateNote,
    /// More notes than a transaction takes.
    #[error("{0} notes, but at most {MAX_PARTS} fit into one transaction: do it in several steps")]
    TooManyNotes(usize),
    /// The federation does not have this denomination.
    #[error("the federation has no notes of {0}")]
    UnknownDenomination(Denomination),
    /// Notes that the federation did not sign.
    #[error("{0} of the notes are not signed by the federation: do not accept them")]
    BadNotes(usize),
    /// The blind signature of an output isn't one.
    #[error("the signature that was issued is wrong: ask another guardian for it")]
    BadSignature,
    /// Not enough right partial signatures.
    #[error("{have} right partial signatures, {need} are needed: ask more guardians")]
    NotEnoughShares {
        /// How many there are.
        have: usize,
        /// The threshold.
        need: usize,
    },
    /// The notes are worth less than is wanted.
    #[error("{available} can be spent after fees, but {wanted} are needed")]
    Insufficient {
        /// What all notes together bring.
        available: Amount,
        /// What was asked for.
        wanted: Amount,
    },
}

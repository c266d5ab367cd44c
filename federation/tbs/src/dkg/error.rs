//! Who spoiled a key generation, and how.

use thiserror::Error;

/// A key generation that was aborted: setup starts again without, or after a word with, this guardian.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("key generation failed because of guardian {dealer}: {kind}")]
pub struct DkgError {
    /// The 0-based index of the guardian at fault.
    pub dealer: u16,
    /// What it did.
    pub kind: DkgFault,
}

/// What a guardian did wrong in a key generation.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DkgFault {
    /// It sent nothing in this round.
    #[error("it sent nothing")]
    Missing,
    /// There is no guardian of this index.
    #[error("there is no such guardian")]
    Unknown,
    /// Its bytes are not a message of this round.
    #[error("its message could not be decoded")]
    Undecodable,
    /// What it revealed is not what it had committed to: its key may have been chosen after seeing the others'.
    #[error("it revealed something else than it had committed to")]
    CommitmentMismatch,
    /// It dealt another number of keys.
    #[error("it dealt {got} keys instead of {expected}")]
    KeyCount {
        /// Keys that this key generation makes.
        expected: usize,
        /// Keys that it dealt.
        got: usize,
    },
    /// A polynomial of another degree: too few or too many guardians could use the key.
    #[error("its polynomial of key {key} has {got} coefficients instead of {expected}")]
    WrongDegree {
        /// The number of the key.
        key: usize,
        /// The threshold.
        expected: usize,
        /// Coefficients that it committed to.
        got: usize,
    },
    /// A commitment to a coefficient of zero, which lowers the degree or adds nothing to the key.
    #[error("a coefficient of its polynomial of key {key} is zero")]
    IdentityPoint {
        /// The number of the key.
        key: usize,
    },
    /// A commitment that is no point of the group.
    #[error("a commitment of its polynomial of key {key} is not a valid point")]
    InvalidPoint {
        /// The number of the key.
        key: usize,
    },
    /// It did not prove that it knows its part of the key.
    #[error("its proof of knowledge of key {key} is wrong")]
    BadProof {
        /// The number of the key.
        key: usize,
    },
    /// The secret share that it sent doesn't fit its commitments.
    #[error("its secret share of key {key} doesn't fit its commitments")]
    WrongShare {
        /// The number of the key.
        key: usize,
    },
    /// It sent different messages to different guardians, or the reporting guardian says so wrongly.
    #[error("guardian {reporter} received other messages from it than we did")]
    Equivocation {
        /// The guardian whose report differs from ours.
        reporter: u16,
    },
    /// It saw the same messages as we did, and computed another result.
    #[error("it computed another result from the same messages")]
    OtherResult,
    /// The sum of all parts is the identity. Can't happen by accident; reported under this guardian's own index.
    #[error("key {key} is degenerate")]
    Degenerate {
        /// The number of the key.
        key: usize,
    },
}

/// A key generation that can't be started as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DkgSetupError {
    /// The number of guardians is not in 1 to [`MAX_GUARDIANS`](crate::MAX_GUARDIANS).
    #[error("a federation has 1 to {max} guardians, not {0}", max = crate::MAX_GUARDIANS)]
    Guardians(usize),
    /// This guardian's own index is not below the number of guardians.
    #[error("guardian {0} does not exist")]
    Index(u16),
    /// The number of keys is not in 1 to [`MAX_KEYS`](super::MAX_KEYS).
    #[error("{0} keys at once are not supported")]
    Keys(usize),
}

//! The errors of signing, combining and decrypting, and those of encodings.

use thiserror::Error;

/// Why bytes are no point or scalar of this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodingError {
    /// The number of bytes differs from the fixed size of the type.
    #[error("{got} bytes where {expected} were expected")]
    Length {
        /// Bytes that the type has.
        expected: usize,
        /// Bytes that were given.
        got: usize,
    },
    /// Not lowercase hexadecimal digits, two a byte.
    #[error("not lowercase hexadecimal")]
    Hex,
    /// Not the canonical encoding of a point of the curve.
    #[error("not a point of the curve in canonical compressed form")]
    NotOnCurve,
    /// A point of the curve, but outside the subgroup of prime order.
    #[error("a point outside the prime-order subgroup")]
    NotInSubgroup,
    /// The identity (point at infinity), which is never a key, message or signature.
    #[error("the identity point")]
    Identity,
    /// A scalar that isn't below the group order, or zero where that is excluded.
    #[error("not a canonical non-zero scalar")]
    Scalar,
}

impl From<EncodingError> for std::io::Error {
    fn from(error: EncodingError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// Why shares could not be made or combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TbsError {
    /// Fewer shares than the threshold.
    #[error("{have} shares where {need} are needed")]
    NotEnoughShares {
        /// Shares that were given.
        have: usize,
        /// The threshold.
        need: usize,
    },
    /// No federation of 1 to [`MAX_GUARDIANS`](crate::MAX_GUARDIANS) guardians has this threshold.
    #[error("{0} is not the threshold of any federation size")]
    Threshold(usize),
    /// No federation with this threshold has a guardian of that index.
    #[error("guardian {0} does not exist in a federation with this threshold")]
    Guardian(u16),
    /// The shares cancel out: at least one of them is wrong.
    #[error("the shares combine to the identity, so at least one is wrong")]
    Degenerate,
    /// The plaintext is longer than [`MAX_PLAINTEXT`](crate::encryption::MAX_PLAINTEXT).
    #[error("{0} bytes are too long to be encrypted")]
    PlaintextTooLong(usize),
    /// The ciphertext's proof does not cover this ciphertext and label.
    #[error("the ciphertext is invalid for this label")]
    InvalidCiphertext,
    /// The decryption shares do not combine to the right key: at least one is wrong.
    #[error("at least one decryption share is wrong")]
    WrongDecryptionShare,
}

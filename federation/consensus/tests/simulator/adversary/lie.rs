//! What a liar may be given to.

/// One habit of a liar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Says nothing to some.
    Silent,
    /// Bytes that make no sense, and bits flipped in those that do.
    Garbage,
    /// Commits to something that is no codeword.
    NonCodeword,
    /// Different proposals and READYs to different guardians.
    Equivocate,
    /// Random values in the agreement.
    Twist,
    /// Says everything to few, and claims that it has decided.
    Starve,
    /// Names proposers that don't exist, or aren't meant.
    UnknownProposer,
    /// Coin shares of other coins.
    FalseCoin,
    /// Stale and future epochs.
    WrongEpoch,
    /// Frames larger than any honest one.
    Oversized,
    /// The same frame again and again.
    Repeat,
    /// Contributions that don't decode, or are others' transactions.
    BadContribution,
    /// Signs another header than its state gives.
    FalseHeader,
    /// Signatures that don't hold.
    FalseSignature,
    /// Wrong answers about past epochs.
    FalseHistory,
    /// Wrong answers about what it has heard.
    FalseHeard,
    /// Has forgotten all that it heard, and proves an epoch with as few signatures as can be.
    ThinProof,
    /// Wrong statements about how far it has come.
    FalseNext,
    /// As many different statements as fit anywhere.
    Flood,
}

pub const LIES: [Lie; 19] = [
    Lie::Silent,
    Lie::Garbage,
    Lie::NonCodeword,
    Lie::Equivocate,
    Lie::Twist,
    Lie::Starve,
    Lie::UnknownProposer,
    Lie::FalseCoin,
    Lie::WrongEpoch,
    Lie::Oversized,
    Lie::Repeat,
    Lie::BadContribution,
    Lie::FalseHeader,
    Lie::FalseSignature,
    Lie::FalseHistory,
    Lie::FalseHeard,
    Lie::ThinProof,
    Lie::FalseNext,
    Lie::Flood,
];

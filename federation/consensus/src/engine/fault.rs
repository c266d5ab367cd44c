//! What a peer can do wrong.

/// A peer's fault as far as this guardian can tell. Late and repeated messages are none: an honest
/// guardian that was restarted sends both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum FaultKind {
    /// The frame doesn't decode.
    #[error("a frame that does not decode")]
    Malformed,
    /// The frame is larger than any honest one.
    #[error("a frame over the size limit")]
    Oversized,
    /// The sender isn't a guardian, or the frame names a proposer that isn't.
    #[error("an unknown guardian was named")]
    UnknownNode,
    /// The epoch lies beyond the window that this guardian announced.
    #[error("an epoch too far ahead")]
    EpochTooFar,
    /// A proposal's part that came from someone else than the proposer.
    #[error("a proposal's part from a guardian that is not its proposer")]
    NotProposer,
    /// A Merkle proof that doesn't lead to the root.
    #[error("a Merkle proof that does not hold")]
    BadProof,
    /// Two different statements where only one may be made.
    #[error("two contradicting messages")]
    Equivocation,
    /// The proposer committed to something that isn't a codeword.
    #[error("a proposal that is not a codeword")]
    NotACodeword,
    /// A round of binary agreement that no honest schedule reaches.
    #[error("an agreement round too far ahead")]
    AgreementRound,
    /// A coin share that doesn't verify.
    #[error("a wrong coin share")]
    BadCoinShare,
    /// hbbft's agreement returned an error on this message.
    #[error("a message that the agreement refused")]
    AgreementRefused,
    /// An answer to a history request that doesn't match what was agreed.
    #[error("history that does not match")]
    BadHistory,
}

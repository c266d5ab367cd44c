//! Names for what keeps a guardian from contradicting itself. Only tests switch one off, to see that the simulator
//! would find out.

/// One protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Inputs are durable before any message that follows from them leaves.
    JournalBeforeSend,
    /// A frame is acknowledged only when it is durable.
    AcknowledgeWhenDurable,
    /// The inputs of a skipped epoch are forgotten only when the skip is durable: committed with the epoch itself.
    JournalledSkip,
    /// One proposal an epoch.
    NoSecondProposal,
    /// A guardian whose journal lacks what others have heard of it keeps silent in those epochs.
    AmnesiaRule,
    /// Only n - f signatures of an epoch make a guardian silent in it for what a peer has forgotten.
    CompleteProof,
    /// What a broadcast decodes is encoded again and compared with its root.
    ReEncoding,
}

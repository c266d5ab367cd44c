//! An outgoing swap as it is stored: a user's contract against a payment by the gateway.
//!
//! ```text
//!             ┌─ own invoice ──▶ Inside ──┐ the incoming swap brings the preimage, or not
//! (checked) ──┤                           ├──────▶ Paid ──claim accepted──▶ Done
//!             └─▶ Started ──node.pay──────┘          └──the user was refunded──▶ Lost
//!  │                 ├──failed, proved──▶ Cancelled
//!  └─refused────────▶┘
//!                    └──unknown, and the user took the money back at the expiry──▶ Lapsed
//! ```
//!
//! A cancellation is signed in [`Cancelled`](OutgoingState::Cancelled) only, which is written before anybody sees the
//! signature and never left; and the node is asked to pay in [`Started`](OutgoingState::Started) only. So no contract is
//! both refunded and paid, whenever the process dies.

use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::{Amount, FederationId};
use federation_lightning::message::Cancellation;
use federation_lightning::{ContractId, OutgoingContract, Preimage};

/// An outgoing swap.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Outgoing {
    /// The contract's federation.
    pub federation: FederationId,
    /// The contract.
    pub contract: OutgoingContract,
    /// The BOLT 11 invoice.
    pub invoice: String,
    /// When it began, in seconds since 1970.
    pub began_at: u64,
    /// Where it stands.
    pub state: OutgoingState,
}

/// Where an outgoing swap stands; each state says what may be done next.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) enum OutgoingState {
    /// The payment hash is this contract's. Next: have the node pay, ask it for the result, nothing else.
    Started(Terms),
    /// The invoice is our own: its incoming swap is being funded and writes our next state.
    Inside(Terms),
    /// Paid. Next: claim the contract.
    Paid {
        /// The proof of payment.
        preimage: Preimage,
        /// What the payee got.
        amount: Amount,
        /// What routing cost.
        routing_fee: Amount,
        /// How many claims were rejected.
        attempt: u32,
    },
    /// The contract is ours.
    Done {
        /// The proof of payment.
        preimage: Preimage,
    },
    /// Not paid, and never will be.
    Cancelled {
        /// A stable code.
        code: String,
        /// Why, for a person.
        reason: String,
        /// The user's refund.
        cancellation: Cancellation,
    },
    /// Paid, but the user has the money back: a loss. Stays open for the operator to see.
    Lost {
        /// The proof of payment.
        preimage: Preimage,
    },
    /// The node never told a result, and the user took the money back after the expiry.
    Lapsed,
}

/// Within what the node may pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Terms {
    /// What the payee gets.
    pub amount: Amount,
    /// The most for routing.
    pub max_fee: Amount,
    /// The most blocks that HTLCs may be locked.
    pub max_delay: u32,
}

impl Outgoing {
    /// The contract's id, which is the swap's.
    pub fn id(&self) -> ContractId {
        self.contract.id(self.federation)
    }
}

impl OutgoingState {
    /// Whether there is nothing left to do.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Cancelled { .. } | Self::Lapsed)
    }

    /// Whether the user can be told a final result.
    pub fn is_decided(&self) -> bool {
        !matches!(self, Self::Started(_) | Self::Inside(_))
    }
}

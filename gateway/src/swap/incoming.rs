//! An incoming swap as it is stored: a payment that is held against a contract for a user.
//!
//! ```text
//! Offered ──hold invoice──▶ Waiting ──held, or paid from inside──▶ Funding ──accepted──▶ Funded
//!    └────────expired──────────┤                                     │                   │    │
//!                              ▼                          not funded │    preimage right │    │ wrong
//!                           Refusing ◀───────────────────────────────┘                   ▼    ▼
//!                              │ node.cancel                                      Settling   Invalid
//!                              ▼                                       node.settle │           │ node.cancel, reclaim
//!                           Failed ◀───────────────────────────────────────────────┼───────────┘
//!                                                                                  ▼
//!                                                           Done, or Lost if the payment is gone
//! ```
//!
//! From the moment that the wallet has begun to fund, the only ways on are the preimage and the proof that it was wrong.
//! [`Funding`](IncomingState::Funding) is written before that; a `Funding` for which the wallet has begun nothing may still
//! be refused.

use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::encoding::tagged_hash;
use federation_core::{Amount, FederationId};
use federation_lightning::{ContractId, IncomingContract, Preimage};

/// An incoming swap.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Incoming {
    /// The contract's federation.
    pub federation: FederationId,
    /// The contract.
    pub contract: IncomingContract,
    /// What the payer pays.
    pub amount: Amount,
    /// What the payer reads.
    pub description: String,
    /// When it was offered, in seconds since 1970.
    pub began_at: u64,
    /// For how many seconds it can be paid.
    pub expiry: u64,
    /// The hold invoice, once there is one.
    pub invoice: Option<String>,
    /// How many attempts at funding ended without having funded.
    pub attempt: u32,
    /// Where it stands.
    pub state: IncomingState,
}

/// Where an incoming swap stands; each state says what may be done next.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) enum IncomingState {
    /// Next: make the hold invoice.
    Offered,
    /// Next: wait for the payment; fund or refuse it.
    Waiting,
    /// Next: fund the contract; refuse if it provably was not begun.
    Funding(Payer),
    /// Next: wait for the preimage.
    Funded(Payer),
    /// Next: settle the payment that is held.
    Settling {
        /// What settles it.
        preimage: Preimage,
        /// The last height at which that is safe.
        deadline: u32,
    },
    /// The gateway has the payment and the user the contract.
    Done {
        /// What settled it.
        preimage: Preimage,
    },
    /// The preimage was wrong. Next: fail the payment, take the contract back.
    Invalid,
    /// Next: fail whatever is held.
    Refusing {
        /// A stable code.
        code: String,
        /// Why, for a person.
        reason: String,
    },
    /// Nothing is funded and nothing is held.
    Failed {
        /// A stable code.
        code: String,
        /// Why, for a person.
        reason: String,
    },
    /// The contract was funded, and the payment is gone: a loss. Stays open for the operator to see.
    Lost {
        /// What would have settled it.
        preimage: Preimage,
    },
}

/// Who pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) enum Payer {
    /// HTLCs that the node holds.
    Lightning {
        /// The last height at which settling is safe.
        deadline: u32,
    },
    /// A user of the same gateway, by an outgoing contract.
    Inside {
        /// Which one.
        contract: ContractId,
    },
}

impl Incoming {
    /// The payment hash, which is the swap's name.
    pub fn payment_hash(&self) -> [u8; 32] {
        self.contract.terms.payment_hash.0
    }

    /// The contract's id.
    pub fn contract_id(&self) -> ContractId {
        self.contract.id(self.federation)
    }

    /// The wallet's name for this attempt at funding.
    pub fn funding_operation(&self) -> [u8; 32] {
        operation("fund", &self.contract_id(), self.attempt)
    }
}

/// A name for a transaction of the wallet.
pub(crate) fn operation(what: &str, contract: &ContractId, attempt: u32) -> [u8; 32] {
    tagged_hash(&format!("cln-federation/gateway-{what}"), &[&contract.0, &attempt.to_be_bytes()])
}

impl IncomingState {
    /// Whether there is nothing left to do.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Failed { .. })
    }

    /// Whether the contract is funded, or may be, and the payment isn't ours yet.
    pub fn is_exposed(&self) -> bool {
        matches!(
            self,
            Self::Funding(_) | Self::Funded(_) | Self::Settling { .. } | Self::Invalid | Self::Lost { .. }
        )
    }

    /// For people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Waiting => "waiting",
            Self::Funding(_) => "funding",
            Self::Funded(_) => "funded",
            Self::Settling { .. } => "settling",
            Self::Done { .. } => "done",
            Self::Invalid => "invalid",
            Self::Refusing { .. } => "refusing",
            Self::Failed { .. } => "failed",
            Self::Lost { .. } => "lost",
        }
    }
}

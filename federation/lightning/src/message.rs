//! What transactions and guardians say to this module: the bodies of the envelopes.

use bitcoin::secp256k1::schnorr::Signature;
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::encoding::schnorr;
use federation_tbs::encryption::DecryptionShare;
use serde::{Deserialize, Serialize};

use crate::{Contract, ContractId, Preimage};

/// The most decryption shares in one item; the rest waits for the next epoch.
pub const MAX_SHARES: usize = 256;

/// Money out of a contract. The key of the envelope must be the one that the contract names for it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum LightningInput {
    /// The gateway takes an outgoing contract.
    ClaimOutgoing {
        /// Which contract.
        contract: ContractId,
        /// The proof that the payment was made.
        preimage: Preimage,
    },
    /// The user takes an outgoing contract back.
    RefundOutgoing {
        /// Which contract.
        contract: ContractId,
        /// The gateway's cancellation; needed before the expiry height.
        cancellation: Option<Cancellation>,
    },
    /// The user takes an incoming contract whose preimage was right.
    ClaimIncoming {
        /// Which contract.
        contract: ContractId,
    },
    /// The gateway takes back an incoming contract whose preimage was wrong.
    ReclaimIncoming {
        /// Which contract.
        contract: ContractId,
    },
}

/// A gateway's signature of [`sign_cancellation`](crate::contract::sign_cancellation).
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cancellation(
    #[borsh(serialize_with = "schnorr::to", deserialize_with = "schnorr::from")] pub Signature,
);

/// Funds a contract with the amount that it names.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LightningOutput(pub Contract);

/// What a guardian says.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum LightningItem {
    /// The height of the best chain that it sees.
    Height(u32),
    /// Its parts of the decryption of funded contracts' preimages: at least one, at most [`MAX_SHARES`], each contract
    /// once.
    Shares(Vec<(ContractId, DecryptionShare)>),
}

/// What becomes of an output.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum LightningOutcome {
    /// The outgoing contract is funded. What comes next shows in its [report](crate::report).
    Funded,
    /// The incoming contract's preimage was right: the user may claim, the gateway may settle.
    Preimage {
        /// The preimage.
        preimage: Preimage,
    },
    /// The incoming contract's preimage was wrong: the gateway may reclaim.
    Invalid,
}

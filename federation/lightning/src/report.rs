//! What a guardian tells about a contract: `GET contract?id=`.

use std::fmt;
use std::str::FromStr;

use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::Amount;
use serde::{Deserialize, Serialize};

use crate::{ContractId, Preimage};

/// Where a contract stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContractState {
    /// Holds its money. An incoming one waits for decryption shares.
    Funded,
    /// Incoming: the preimage was right, and the money is the user's.
    Decrypted,
    /// Incoming: the preimage was wrong, and the money is the gateway's.
    Invalid,
    /// Taken by the one it was made for: outgoing by the gateway, incoming by the user.
    Claimed,
    /// Taken back by the one who funded it: outgoing by the user, incoming by the gateway.
    Refunded,
}

impl ContractState {
    /// Whether the money has left the contract, once for ever.
    pub fn is_spent(self) -> bool {
        matches!(self, Self::Claimed | Self::Refunded)
    }
}

impl fmt::Display for ContractState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Funded => "funded",
            Self::Decrypted => "decrypted",
            Self::Invalid => "invalid",
            Self::Claimed => "claimed",
            Self::Refunded => "refunded",
        })
    }
}

/// Not the name of a state.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a state is funded, decrypted, invalid, claimed or refunded")]
pub struct ParseStateError;

impl FromStr for ContractState {
    type Err = ParseStateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Funded, Self::Decrypted, Self::Invalid, Self::Claimed, Self::Refunded]
            .into_iter()
            .find(|state| state.to_string() == text)
            .ok_or(ParseStateError)
    }
}

/// Which way a contract goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContractKind {
    /// From user to gateway.
    Outgoing,
    /// From gateway to user.
    Incoming,
}

/// A contract as a guardian sees it. The id commits to all of the contract, so whoever has the contract and f + 1 equal
/// reports knows all about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContractReport {
    /// Which contract.
    pub id: ContractId,
    /// Which way it goes.
    pub kind: ContractKind,
    /// What it holds, or held.
    #[serde(rename = "amount_msat")]
    pub amount: Amount,
    /// Where it stands.
    pub state: ContractState,
    /// Known when the gateway has claimed an outgoing contract, or when an incoming one was decrypted rightly.
    pub preimage: Option<Preimage>,
    /// Outgoing: the expiry height. Incoming: the height before which it had to be funded.
    pub deadline_height: u32,
    /// The block height that the guardians agree on now.
    pub height: u32,
}

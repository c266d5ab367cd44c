//! Keys and parameters, fixed at setup.

use bitcoin::Network;
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::Amount;
use federation_core::encoding::network;
use federation_tbs::dkg::KeySet;
use federation_tbs::encryption::EncryptionKey;
use federation_tbs::{PublicKeyShare, SecretKeyShare};
use serde::{Deserialize, Serialize};

/// What the federation itself charges.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
)]
pub struct LightningFees {
    /// For funding a contract.
    #[serde(rename = "fund_msat")]
    pub fund: Amount,
    /// For taking money out of a contract.
    #[serde(rename = "spend_msat")]
    pub spend: Amount,
}

/// The public part, the same for all.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct LightningConfig {
    /// How many guardians decrypt together: n − f.
    pub threshold: u16,
    /// The network that invoices are of.
    #[borsh(serialize_with = "network::to", deserialize_with = "network::from")]
    pub network: Network,
    /// The key that preimages are encrypted to.
    pub encryption: EncryptionKey,
    /// The guardians' public shares of it, by index.
    pub shares: Vec<PublicKeyShare>,
    /// What the federation charges.
    pub fees: LightningFees,
}

/// A guardian's own part. Its encoding is to be stored encrypted.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub struct LightningSecret {
    /// Its share of the key that preimages are encrypted to.
    pub share: SecretKeyShare,
}

impl LightningConfig {
    /// From one key of the key generation, which must serve no other purpose.
    pub fn generate(keys: KeySet, network: Network, fees: LightningFees) -> (Self, LightningSecret) {
        let threshold = federation_tbs::threshold(keys.shares.len());
        let config = Self {
            // Of at most 20 guardians.
            threshold: u16::try_from(threshold).unwrap_or(u16::MAX),
            network,
            encryption: EncryptionKey::from(&keys.public),
            shares: keys.shares,
            fees,
        };
        (config, LightningSecret { share: keys.secret })
    }
}

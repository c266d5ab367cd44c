//! What the guardians agreed on at setup, and what each of them keeps to itself.

use std::collections::BTreeMap;

use bitcoin::Network;
use bitcoin::secp256k1::{PublicKey, SECP256K1, SecretKey};
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::PeerId;
use federation_core::config::{MAX_GUARDIANS, threshold};
use federation_core::encoding::network;
use federation_tbs as tbs;
use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};

/// Why a configuration or a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The number of keys is not that of a federation.
    #[error(
        "{0} guardians: a federation has 1 to {MAX_GUARDIANS}, numbered from 0, each with a beacon share"
    )]
    Guardians(usize),
    /// The threshold is not n − f.
    #[error("the threshold is {found}, but {expected} guardians of this federation sign together")]
    Threshold {
        /// In the configuration.
        found: u16,
        /// By the number of guardians.
        expected: usize,
    },
    /// A parameter is out of range.
    #[error("the parameter '{0}' is out of range")]
    Parameter(&'static str),
    /// The descriptor cannot be built.
    #[error("no descriptor: {0}")]
    Descriptor(String),
    /// The secrets are those of another guardian or federation.
    #[error(
        "the wallet's secret keys do not belong to guardian {0} of this federation: check the secrets file"
    )]
    ForeignSecret(PeerId),
}

/// The parameters that operators may choose; part of the consensus.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct WalletParams {
    /// Confirmations that make a block final: 1 means the tip itself.
    pub finality: u32,
    /// The smallest deposit that is credited, in satoshi.
    pub min_deposit_sat: u64,
    /// The lowest fee rate that is ever agreed on, in sat per 1,000 vbytes.
    pub fee_floor_sat_per_kvb: u64,
    /// The highest.
    pub fee_ceiling_sat_per_kvb: u64,
    /// For how many blocks a quoted withdrawal fee stays valid.
    pub quote_blocks: u32,
}

impl WalletParams {
    /// The defaults: finality after 10 blocks, on regtest after 1.
    pub fn for_network(network: Network) -> Self {
        Self {
            finality: if network == Network::Regtest { 1 } else { 10 },
            min_deposit_sat: 5_000,
            fee_floor_sat_per_kvb: 1_000,
            fee_ceiling_sat_per_kvb: 500_000,
            quote_blocks: 6,
        }
    }
}

/// The wallet's part of the consensus configuration.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct WalletConfig {
    /// The Bitcoin network.
    #[borsh(serialize_with = "network::to", deserialize_with = "network::from")]
    pub network: Network,
    /// The descriptor keys of the guardians.
    #[borsh(serialize_with = "keys::to", deserialize_with = "keys::from")]
    pub guardians: BTreeMap<PeerId, PublicKey>,
    /// How many of them sign: n − f.
    pub threshold: u16,
    /// What operators chose.
    #[serde(flatten)]
    pub params: WalletParams,
    /// The first block that matters to the federation; the chain is followed from here.
    pub birthday: u32,
    /// The key of the randomness beacon.
    pub beacon: tbs::PublicKey,
    /// Its shares, by guardian.
    pub beacon_shares: Vec<tbs::PublicKeyShare>,
}

impl WalletConfig {
    /// Puts together what the setup exchanged: each guardian's descriptor key, and the beacon's threshold key.
    ///
    /// # Errors
    /// See [`WalletConfig::check`].
    pub fn generate(
        network: Network,
        params: WalletParams,
        birthday: u32,
        guardians: BTreeMap<PeerId, PublicKey>,
        beacon: tbs::PublicKey,
        beacon_shares: Vec<tbs::PublicKeyShare>,
    ) -> Result<Self, ConfigError> {
        let threshold = u16::try_from(threshold(guardians.len())).unwrap_or(u16::MAX);
        let config = Self { network, guardians, threshold, params, birthday, beacon, beacon_shares };
        config.check()?;
        Ok(config)
    }

    /// Whether the configuration is one that a federation can run with.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), ConfigError> {
        let n = self.guardians.len();
        let numbered = self.guardians.keys().zip(0u16..).all(|(peer, index)| peer.0 == index);
        if n == 0 || n > MAX_GUARDIANS || !numbered || self.beacon_shares.len() != n {
            return Err(ConfigError::Guardians(n));
        }
        if usize::from(self.threshold) != threshold(n) {
            return Err(ConfigError::Threshold { found: self.threshold, expected: threshold(n) });
        }
        let params = &self.params;
        if params.finality == 0 || params.finality > 1_000 {
            return Err(ConfigError::Parameter("finality"));
        }
        if params.fee_floor_sat_per_kvb == 0 || params.fee_floor_sat_per_kvb > params.fee_ceiling_sat_per_kvb
        {
            return Err(ConfigError::Parameter("fee_floor_sat_per_kvb"));
        }
        // 10,000 sat/vB: far above any fee ever paid, and small enough that no product overflows.
        if params.fee_ceiling_sat_per_kvb > 10_000_000 {
            return Err(ConfigError::Parameter("fee_ceiling_sat_per_kvb"));
        }
        if params.quote_blocks == 0 || params.quote_blocks > 1_000 {
            return Err(ConfigError::Parameter("quote_blocks"));
        }
        Ok(())
    }
}

/// One guardian's secrets of this module. Its encoding is to be stored encrypted.
#[derive(Clone, BorshSerialize, BorshDeserialize)]
pub struct WalletSecret {
    /// The secret of its descriptor key.
    #[borsh(serialize_with = "secret::to", deserialize_with = "secret::from")]
    pub key: SecretKey,
    /// Its share of the beacon's key.
    pub beacon: tbs::SecretKeyShare,
}

impl WalletSecret {
    /// A fresh descriptor key beside the share that the key generation gave. The public key goes to all others.
    pub fn generate(beacon: tbs::SecretKeyShare, rng: &mut (impl RngCore + CryptoRng)) -> (Self, PublicKey) {
        let key = SecretKey::new(rng);
        (Self { key, beacon }, key.public_key(SECP256K1))
    }

    /// Whether these are the secrets of that guardian.
    ///
    /// # Errors
    /// [`ConfigError::ForeignSecret`] if not.
    pub fn check(&self, config: &WalletConfig, us: PeerId) -> Result<(), ConfigError> {
        let key = config.guardians.get(&us) == Some(&self.key.public_key(SECP256K1));
        let beacon = config.beacon_shares.get(usize::from(us.0)) == Some(&self.beacon.public());
        if key && beacon { Ok(()) } else { Err(ConfigError::ForeignSecret(us)) }
    }
}

impl Drop for WalletSecret {
    fn drop(&mut self) {
        self.key.non_secure_erase();
    }
}

impl std::fmt::Debug for WalletSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WalletSecret(…)")
    }
}

/// Borsh of the map of keys: each as its 33 compressed bytes.
mod keys {
    use std::collections::BTreeMap;

    use bitcoin::secp256k1::PublicKey;
    use borsh::io::{Error, ErrorKind, Read, Result, Write};
    use borsh::{BorshDeserialize, BorshSerialize};
    use federation_core::PeerId;

    pub fn to<W: Write>(keys: &BTreeMap<PeerId, PublicKey>, writer: &mut W) -> Result<()> {
        let bytes: BTreeMap<PeerId, [u8; 33]> =
            keys.iter().map(|(peer, key)| (*peer, key.serialize())).collect();
        bytes.serialize(writer)
    }

    pub fn from<R: Read>(reader: &mut R) -> Result<BTreeMap<PeerId, PublicKey>> {
        let bytes = BTreeMap::<PeerId, [u8; 33]>::deserialize_reader(reader)?;
        let key = |bytes: [u8; 33]| {
            PublicKey::from_slice(&bytes)
                .map_err(|error| Error::new(ErrorKind::InvalidData, error.to_string()))
        };
        bytes.into_iter().map(|(peer, bytes)| Ok((peer, key(bytes)?))).collect()
    }
}

/// Borsh of a secret key: its 32 bytes.
mod secret {
    use bitcoin::secp256k1::SecretKey;
    use borsh::BorshDeserialize;
    use borsh::io::{Error, ErrorKind, Read, Result, Write};
    use zeroize::Zeroizing;

    pub fn to<W: Write>(key: &SecretKey, writer: &mut W) -> Result<()> {
        writer.write_all(Zeroizing::new(key.secret_bytes()).as_slice())
    }

    pub fn from<R: Read>(reader: &mut R) -> Result<SecretKey> {
        let bytes = Zeroizing::new(<[u8; 32]>::deserialize_reader(reader)?);
        SecretKey::from_slice(bytes.as_slice())
            .map_err(|error| Error::new(ErrorKind::InvalidData, error.to_string()))
    }
}

//! The public configuration of a federation: what its id covers, and what it does not.

use std::collections::BTreeMap;

use bitcoin::Network;
use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::secp256k1::XOnlyPublicKey;
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::encoding::{decode, encode, network, xonly};
use crate::{FederationId, ModuleId, PeerId};

/// The newest consensus rules that this program knows.
pub const CONSENSUS_VERSION: u16 = 1;
/// The largest encoded configuration that a client reads, in bytes: 20 guardians, a few hundred keys each.
pub const MAX_CONFIG_SIZE: usize = 4 << 20;
/// The most guardians of a federation.
pub const MAX_GUARDIANS: usize = 20;

/// How many guardians of `n` may be faulty: `(n − 1) / 3`.
pub const fn max_faulty(n: usize) -> usize {
    n.saturating_sub(1) / 3
}

/// How many guardians of `n` it takes to use a key that holds money: `n − f`.
pub const fn threshold(n: usize) -> usize {
    n.saturating_sub(max_faulty(n))
}

/// The keys that a guardian is known by.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct GuardianKeys {
    /// Signs epoch headers and address announcements (BIP-340).
    #[borsh(serialize_with = "xonly::to", deserialize_with = "xonly::from")]
    pub identity: XOnlyPublicKey,
    /// SHA-256 of the guardian's TLS certificate for links.
    #[serde(with = "hex::serde")]
    pub certificate: [u8; 32],
}

/// A module's part of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct ModuleConfig {
    /// Which module reads it, such as `mint`.
    pub kind: String,
    /// The module's canonical encoding of its own configuration.
    #[serde(with = "hex::serde")]
    pub config: Vec<u8>,
}

/// Keys and parameters that all guardians agreed on at setup. Never changes.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct ConsensusConfig {
    /// The consensus rules that the federation started with.
    pub version: u16,
    /// The name given at setup.
    pub name: String,
    /// The Bitcoin network that deposits and invoices are of.
    #[borsh(serialize_with = "network::to", deserialize_with = "network::from")]
    pub network: Network,
    /// The guardians' keys.
    pub guardians: BTreeMap<PeerId, GuardianKeys>,
    /// The public part of the common coin's keys, as `federation-consensus` encodes it.
    #[serde(with = "hex::serde")]
    pub coin_keys: Vec<u8>,
    /// The modules.
    pub modules: BTreeMap<ModuleId, ModuleConfig>,
}

impl ConsensusConfig {
    /// The federation's id: SHA-256 of the canonical encoding.
    pub fn id(&self) -> FederationId {
        FederationId(sha256::Hash::hash(&encode(self)).to_byte_array())
    }

    /// How many guardians may be faulty.
    pub fn max_faulty(&self) -> usize {
        max_faulty(self.guardians.len())
    }

    /// How many guardians it takes to sign.
    pub fn threshold(&self) -> usize {
        threshold(self.guardians.len())
    }

    /// The first module of a kind.
    pub fn module(&self, kind: &str) -> Option<(ModuleId, &ModuleConfig)> {
        self.modules.iter().find(|(_, module)| module.kind == kind).map(|(id, module)| (*id, module))
    }

    /// The typed configuration of the first module of a kind.
    pub fn module_config<T: BorshDeserialize>(&self, kind: &str) -> Option<(ModuleId, T)> {
        let (id, module) = self.module(kind)?;
        decode(&module.config, MAX_CONFIG_SIZE).ok().map(|config| (id, config))
    }
}

/// Where a guardian is reached. Not covered by the federation's id: a guardian can move house.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Endpoint {
    /// The guardian's name.
    pub name: String,
    /// The base URL of its REST API, such as `http://127.0.0.1:8180`.
    pub api_url: String,
    /// `host:port` of its links to other guardians.
    pub link_address: String,
}

/// What a guardian tells clients: `GET /v1/config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigResponse {
    /// The federation's id, for convenience: a client computes it from `consensus`.
    pub federation_id: FederationId,
    /// The canonical encoding of [`ConsensusConfig`], in hex.
    #[serde(with = "hex::serde")]
    pub consensus: Vec<u8>,
    /// Where the guardians are.
    pub endpoints: BTreeMap<PeerId, Endpoint>,
    /// The modules' configurations for people and for clients in any language.
    pub modules: BTreeMap<String, serde_json::Value>,
}

impl ConfigResponse {
    /// The configuration, if it is the one of `expected`.
    pub fn verified(&self, expected: FederationId) -> Option<ConsensusConfig> {
        let config: ConsensusConfig = decode(&self.consensus, MAX_CONFIG_SIZE).ok()?;
        (config.id() == expected).then_some(config)
    }
}

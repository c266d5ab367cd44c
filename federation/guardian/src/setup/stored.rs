//! The setup's state, sealed in the database after each step.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::Network;
use bitcoin::secp256k1::{SECP256K1, SecretKey};
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::PeerId;
use federation_core::config::{ConsensusConfig, Endpoint, GuardianKeys};
use federation_core::db::Database;
use federation_store::WriteBatch;
use serde::Serialize;

use super::code::{FederationParams, SetupCode};
use crate::error::GuardianError;
use crate::secrets::{GuardianSecrets, SealingKey};
use crate::state::{self, SETUP};

/// Keys, codes and, in the end, the configuration.
#[derive(Clone, BorshSerialize, BorshDeserialize)]
pub struct StoredSetup {
    /// This guardian's own code.
    pub own: SetupCode,
    /// Its secrets; the shares are empty until the keys are made.
    pub secrets: GuardianSecrets,
    /// The other guardians' codes.
    pub others: Vec<SetupCode>,
    /// Whether the operator has started the key generation.
    pub started: bool,
    /// The result of the key generation, stored before this guardian confirms it.
    pub result: Option<SetupResult>,
}

/// What the key generation made.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub struct SetupResult {
    /// This guardian's number.
    pub me: PeerId,
    /// The configuration that all guardians have.
    pub config: ConsensusConfig,
    /// Where the guardians are.
    pub endpoints: BTreeMap<PeerId, Endpoint>,
    /// What all guardians must say alike at the end: hashes of the key generation and of the configuration.
    pub confirmation: Vec<u8>,
    /// Whether all guardians have confirmed the same.
    pub confirmed: bool,
}

/// Where the setup stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SetupPhase {
    /// Nothing yet: create this guardian's setup code.
    New,
    /// The code exists; the others' codes are missing.
    Collecting,
    /// All codes are here: start the key generation on every guardian.
    Complete,
    /// The key generation is under way.
    Generating,
    /// The federation exists.
    Done,
}

/// What an operator sees of the setup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SetupStatus {
    /// Where it stands.
    pub phase: SetupPhase,
    /// This guardian's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The federation's parameters, once the founder's code is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub federation: Option<FederationParams>,
    /// Names and fingerprints of all known codes, the own one first. Operators compare them by voice.
    pub guardians: Vec<KnownGuardian>,
    /// What is under way, or why the last try was aborted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A guardian whose code is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KnownGuardian {
    /// Its name.
    pub name: String,
    /// Its code's fingerprint.
    pub fingerprint: String,
}

impl StoredSetup {
    /// Makes a guardian's keys and code.
    pub fn create(
        endpoint: Endpoint,
        network: Network,
        federation: Option<FederationParams>,
    ) -> Result<Self, GuardianError> {
        let identity = SecretKey::new(&mut rand::rngs::OsRng);
        let link = federation_consensus::links::Identity::generate()
            .map_err(|error| GuardianError::Config(error.to_string()))?;
        let keys = GuardianKeys {
            identity: identity.x_only_public_key(SECP256K1).0,
            certificate: link.fingerprint().0,
        };
        let own = SetupCode { endpoint, keys, network, federation };
        // What others would refuse is refused here first.
        let own = own.to_string().parse()?;
        let secrets = GuardianSecrets {
            identity: identity.secret_bytes(),
            link_identity: link.to_bytes().to_vec(),
            coin_keys: Vec::new(),
            modules: BTreeMap::new(),
        };
        Ok(Self { own, secrets, others: Vec::new(), started: false, result: None })
    }

    /// Makes the keys if there are none; the same name again is harmless, another one is refused.
    pub fn ensure(
        known: Option<Self>,
        endpoint: Endpoint,
        network: Network,
        federation: Option<FederationParams>,
    ) -> Result<Self, GuardianError> {
        match known {
            None => Self::create(endpoint, network, federation),
            Some(setup)
                if setup.own.endpoint.name == endpoint.name
                    && (federation.is_none() || setup.own.federation == federation) =>
            {
                Ok(setup)
            }
            Some(setup) => Err(GuardianError::SetupState(format!(
                "this guardian has its keys already, as '{}'; a new federation needs a new data folder",
                setup.own.endpoint.name
            ))),
        }
    }

    /// Reads the state; `None` before the first step.
    pub async fn load(db: &Arc<dyn Database>, key: &SealingKey) -> Result<Option<Self>, GuardianError> {
        let sealed = SETUP.get(&state::local_reader(Arc::clone(db) as _), &()).await?;
        sealed.map(|sealed| key.open(&sealed)).transpose()
    }

    /// Writes the state; durable when it returns.
    pub async fn save(&self, db: &Arc<dyn Database>, key: &SealingKey) -> Result<(), GuardianError> {
        let mut batch = WriteBatch::new(Arc::clone(db));
        SETUP.put(&mut state::local(&mut batch), &(), &key.seal(self)?);
        Ok(batch.commit().await?)
    }

    /// Adds another guardian's code, or refuses it with the reason. Adding the same again is harmless.
    pub fn add(&mut self, code: SetupCode) -> Result<(), GuardianError> {
        let refuse = |reason: &str| Err(GuardianError::SetupCode(reason.to_owned()));
        if self.started || self.result.is_some() {
            return refuse("the key generation has been started; codes can't be added any more");
        }
        if code.keys == self.own.keys {
            return refuse("it is this guardian's own code: add those of the others");
        }
        if self.others.contains(&code) {
            return Ok(());
        }
        if code.network != self.own.network {
            return refuse(&format!("it is for {}, this guardian is on {}", code.network, self.own.network));
        }
        let known = || self.others.iter().chain([&self.own]);
        if known().any(|other| other.endpoint.name == code.endpoint.name) {
            return refuse(&format!(
                "there is a guardian named '{}' already: names must differ",
                code.endpoint.name
            ));
        }
        if known().any(|other| {
            other.keys.identity == code.keys.identity || other.keys.certificate == code.keys.certificate
        }) {
            return refuse("a guardian with the same keys was added before");
        }
        if code.federation.is_some() && self.federation().is_some() {
            return refuse(
                "two codes found a federation: only one operator gives it a name, the others leave it out",
            );
        }
        if self.federation().is_some_and(|params| known().count() >= usize::from(params.guardians)) {
            return refuse("the federation has all its guardians already");
        }
        self.others.push(code);
        Ok(())
    }

    /// The parameters, from the one code that has them.
    pub fn federation(&self) -> Option<&FederationParams> {
        self.others.iter().chain([&self.own]).find_map(|code| code.federation.as_ref())
    }

    /// Whether all codes are here.
    pub fn complete(&self) -> bool {
        self.federation()
            .is_some_and(|params| self.others.len().saturating_add(1) == usize::from(params.guardians))
    }

    /// All codes in the order of the guardians' numbers: by identity key, so that nobody picks a number.
    pub fn guardians(&self) -> Vec<&SetupCode> {
        let mut codes: Vec<_> = self.others.iter().chain([&self.own]).collect();
        codes.sort_by_key(|code| code.keys.identity.serialize());
        codes
    }

    /// The phase.
    pub fn phase(&self) -> SetupPhase {
        match &self.result {
            Some(result) if result.confirmed => SetupPhase::Done,
            _ if self.started => SetupPhase::Generating,
            _ if self.complete() => SetupPhase::Complete,
            _ => SetupPhase::Collecting,
        }
    }

    /// What an operator sees.
    pub fn status(&self, detail: Option<String>) -> SetupStatus {
        let known = |code: &SetupCode| KnownGuardian {
            name: code.endpoint.name.clone(),
            fingerprint: code.fingerprint(),
        };
        SetupStatus {
            phase: self.phase(),
            code: Some(self.own.to_string()),
            federation: self.federation().cloned(),
            guardians: [&self.own].into_iter().chain(&self.others).map(known).collect(),
            detail,
        }
    }
}

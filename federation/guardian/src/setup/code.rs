//! Setup codes: what each operator hands to the others before the key generation.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bitcoin::Network;
use bitcoin::hashes::{Hash as _, sha256};
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::config::{Endpoint, GuardianKeys, MAX_GUARDIANS};
use federation_core::encoding::{decode, encode, network};
use serde::{Deserialize, Serialize};

use crate::error::GuardianError;

const PREFIX: &str = "clnguardian1-";
const MAX_CODE: usize = 2048;
const MAX_TEXT: usize = 200;

/// What all guardians of a federation agree on before they make keys. Given by the one operator who
/// founds it; the others take it from that code.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct FederationParams {
    /// The federation's name.
    pub name: String,
    /// How many guardians it has: 1 to 20.
    pub guardians: u16,
    /// Confirmations until a deposit counts: 10, on regtest 1.
    pub finality: u32,
    /// How many denominations of notes there are: powers of two from 1 msat.
    pub denominations: u8,
}

impl FederationParams {
    /// Checked parameters with the defaults of a network.
    pub fn new(name: &str, guardians: u16, network: Network) -> Self {
        let finality = if network == Network::Regtest { 1 } else { 10 };
        Self { name: name.to_owned(), guardians, finality, denominations: 41 }
    }

    /// Refuses what no federation can start with.
    pub fn check(&self) -> Result<(), GuardianError> {
        let refuse = |reason: String| Err(GuardianError::SetupCode(reason));
        if self.guardians == 0 || usize::from(self.guardians) > MAX_GUARDIANS {
            return refuse(format!(
                "a federation has 1 to {MAX_GUARDIANS} guardians, not {}",
                self.guardians
            ));
        }
        if self.name.is_empty() || self.name.len() > MAX_TEXT {
            return refuse(format!("a federation's name has 1 to {MAX_TEXT} bytes"));
        }
        if !(1..=1000).contains(&self.finality) {
            return refuse(format!("a finality of {} blocks: choose 1 to 1000", self.finality));
        }
        if !(20..=52).contains(&self.denominations) {
            return refuse(format!("{} denominations: choose 20 to 52", self.denominations));
        }
        Ok(())
    }
}

/// A guardian's public part before the setup.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SetupCode {
    /// Name and addresses.
    pub endpoint: Endpoint,
    /// Identity key and certificate.
    pub keys: GuardianKeys,
    /// The Bitcoin network of the guardian's chain backend.
    #[borsh(serialize_with = "network::to", deserialize_with = "network::from")]
    pub network: Network,
    /// The federation's parameters, in the founder's code only.
    pub federation: Option<FederationParams>,
}

impl SetupCode {
    /// Eight hex digits that two people can compare by voice.
    pub fn fingerprint(&self) -> String {
        let hash = sha256::Hash::hash(&encode(self)).to_byte_array();
        hex::encode(hash.first_chunk::<4>().copied().unwrap_or_default())
    }

    fn check(&self) -> Result<(), GuardianError> {
        let Endpoint { name, api_url, link_address } = &self.endpoint;
        for (what, text) in [("name", name), ("API URL", api_url), ("link address", link_address)] {
            if text.is_empty() || text.len() > MAX_TEXT || text.chars().any(char::is_control) {
                return Err(GuardianError::SetupCode(format!(
                    "its {what} is empty, too long or has control characters"
                )));
            }
        }
        self.federation.as_ref().map_or(Ok(()), FederationParams::check)
    }
}

impl fmt::Display for SetupCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = encode(self);
        let checksum = sha256::Hash::hash(&bytes).to_byte_array();
        let sum = checksum.first_chunk::<4>().copied().unwrap_or_default();
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode([bytes.as_slice(), &sum].concat()))
    }
}

impl FromStr for SetupCode {
    type Err = GuardianError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |reason: &str| GuardianError::SetupCode(reason.to_owned());
        let text =
            text.trim().strip_prefix(PREFIX).ok_or_else(|| wrong("it does not start with clnguardian1-"))?;
        let bytes =
            URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong("it was cut or mistyped: copy it again"))?;
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or_else(|| wrong("it was cut: copy it again"))?;
        let checksum = sha256::Hash::hash(body).to_byte_array();
        if checksum.first_chunk::<4>() != Some(sum) {
            return Err(wrong("it was cut or mistyped: copy it again"));
        }
        let code: Self = decode(body, MAX_CODE)
            .map_err(|_| wrong("it is of another version of this program: use the same on all guardians"))?;
        code.check()?;
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_damage() {
        let key = bitcoin::secp256k1::SecretKey::from_slice(&[3; 32]).unwrap();
        let code = SetupCode {
            endpoint: Endpoint {
                name: "alice".into(),
                api_url: "http://127.0.0.1:1".into(),
                link_address: "127.0.0.1:2".into(),
            },
            keys: GuardianKeys {
                identity: key.x_only_public_key(bitcoin::secp256k1::SECP256K1).0,
                certificate: [1; 32],
            },
            network: Network::Regtest,
            federation: Some(FederationParams::new("test", 4, Network::Regtest)),
        };
        let text = code.to_string();
        assert_eq!(text.parse::<SetupCode>().unwrap(), code);
        for damaged in [&text[1..], &text[..text.len() - 1], &text.replace("clnguardian1-", "")] {
            assert!(damaged.parse::<SetupCode>().is_err());
        }
    }
}

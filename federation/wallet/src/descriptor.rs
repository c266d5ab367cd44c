//! The descriptor that holds the federation's bitcoin, and its tweaks.
//!
//! The untweaked descriptor is `wsh(sortedmulti(T, K₀, …, Kₙ₋₁))`; a single guardian has `wpkh(K₀)`. Every address is made
//! from a [`Tweak`]: guardian key Kᵢ becomes `Kᵢ + H(tag, Kᵢ ‖ tweak)·G` (pay to contract). The hash covers Kᵢ, so that a
//! depositor who chooses the tweak still cannot choose a key, and each address of the federation is tied to exactly one
//! depositor's key.

use bitcoin::hashes::Hash as _;
use bitcoin::secp256k1::{PublicKey, SECP256K1, Scalar, SecretKey, XOnlyPublicKey};
use bitcoin::{Address, Network, ScriptBuf};
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::encoding::{tagged_hash, xonly};
use miniscript::Descriptor as Miniscript;

use crate::config::{ConfigError, WalletConfig};

/// What makes an address of the federation different from its others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum Tweak {
    /// A depositor's BIP-340 key; the input that claims the deposit is signed by it.
    Deposit(#[borsh(serialize_with = "xonly::to", deserialize_with = "xonly::from")] XOnlyPublicKey),
    /// Change of the federation itself; nobody can claim it.
    Change([u8; 32]),
}

impl Tweak {
    fn hash(&self, key: &PublicKey) -> [u8; 32] {
        match self {
            Self::Deposit(depositor) => {
                tagged_hash("cln-federation/wallet/deposit", &[&key.serialize(), &depositor.serialize()])
            }
            Self::Change(change) => tagged_hash("cln-federation/wallet/change", &[&key.serialize(), change]),
        }
    }

    fn scalar(&self, key: &PublicKey) -> Result<Scalar, ConfigError> {
        // Out of range, as an infinite sum below, with probability 2^-128: such an address is just never given out.
        Scalar::from_be_bytes(self.hash(key)).map_err(|error| ConfigError::Descriptor(error.to_string()))
    }

    /// A guardian's public key for this tweak.
    ///
    /// # Errors
    /// With negligible probability: there is no such key.
    pub fn public(&self, key: &PublicKey) -> Result<PublicKey, ConfigError> {
        key.add_exp_tweak(SECP256K1, &self.scalar(key)?)
            .map_err(|error| ConfigError::Descriptor(error.to_string()))
    }

    /// The secret of [`public`](Self::public).
    ///
    /// # Errors
    /// As there.
    pub fn secret(&self, key: &SecretKey) -> Result<SecretKey, ConfigError> {
        let tweak = self.scalar(&key.public_key(SECP256K1))?;
        key.add_tweak(&tweak).map_err(|error| ConfigError::Descriptor(error.to_string()))
    }
}

/// The 32 bytes that tell the scripts of one federation apart: the witness program, padded by zeros for `wpkh`.
pub type Program = [u8; 32];

/// The federation's descriptor, untweaked, from which all addresses come.
#[derive(Clone, Debug)]
pub struct Descriptor {
    keys: Vec<PublicKey>,
    threshold: usize,
    network: Network,
}

impl Descriptor {
    /// The descriptor of a configuration that passed its check.
    pub fn new(config: &WalletConfig) -> Self {
        Self {
            keys: config.guardians.values().copied().collect(),
            threshold: usize::from(config.threshold),
            network: config.network,
        }
    }

    fn build(&self, keys: Vec<PublicKey>) -> Result<Miniscript<bitcoin::PublicKey>, ConfigError> {
        let mut keys: Vec<_> = keys.into_iter().map(bitcoin::PublicKey::new).collect();
        let built = match (keys.len(), keys.pop()) {
            (1, Some(key)) => Miniscript::new_wpkh(key),
            (_, last) => {
                keys.extend(last);
                Miniscript::new_wsh_sortedmulti(self.threshold, keys)
            }
        };
        built.map_err(|error| ConfigError::Descriptor(error.to_string()))
    }

    /// The untweaked descriptor, as Bitcoin Core takes it, with its checksum.
    ///
    /// # Errors
    /// If the keys make no descriptor.
    pub fn untweaked(&self) -> Result<Miniscript<bitcoin::PublicKey>, ConfigError> {
        self.build(self.keys.clone())
    }

    /// The descriptor of a tweak.
    ///
    /// # Errors
    /// With negligible probability.
    pub fn tweaked(&self, tweak: &Tweak) -> Result<Miniscript<bitcoin::PublicKey>, ConfigError> {
        let keys = self.keys.iter().map(|key| tweak.public(key)).collect::<Result<_, _>>()?;
        self.build(keys)
    }

    /// The script that coins of a tweak are paid to.
    ///
    /// # Errors
    /// As [`tweaked`](Self::tweaked).
    pub fn script(&self, tweak: &Tweak) -> Result<ScriptBuf, ConfigError> {
        Ok(self.tweaked(tweak)?.script_pubkey())
    }

    /// The address to show to a depositor.
    ///
    /// # Errors
    /// As [`tweaked`](Self::tweaked).
    pub fn deposit_address(&self, key: &XOnlyPublicKey) -> Result<Address, ConfigError> {
        self.tweaked(&Tweak::Deposit(*key))?
            .address(self.network)
            .map_err(|error| ConfigError::Descriptor(error.to_string()))
    }

    /// The weight units that an input of this descriptor adds to a transaction: 4 × 41 bytes and the largest witness.
    ///
    /// # Errors
    /// As [`tweaked`](Self::tweaked).
    pub fn input_weight(&self) -> Result<u64, ConfigError> {
        let satisfaction = self
            .untweaked()?
            .max_weight_to_satisfy()
            .map_err(|error| ConfigError::Descriptor(error.to_string()))?;
        // One weight unit for the count of witness items is left out there.
        Ok(4 * 41 + satisfaction.to_wu() + 1)
    }

    /// The bytes of an output to this descriptor: 8 of amount, and the script with its length.
    pub fn output_size(&self) -> u64 {
        if self.keys.len() == 1 { 31 } else { 43 }
    }

    /// The part of a script that tells one of ours from another; `None` if it isn't of our type.
    pub fn program(&self, script: &bitcoin::Script) -> Option<Program> {
        let bytes = script.as_bytes();
        if self.keys.len() > 1 {
            script.is_p2wsh().then(|| bytes.get(2..)?.try_into().ok())?
        } else {
            let short: [u8; 20] = script.is_p2wpkh().then(|| bytes.get(2..)?.try_into().ok())??;
            let mut program = [0; 32];
            program.get_mut(..20)?.copy_from_slice(&short);
            Some(program)
        }
    }
}

/// An outpoint of Bitcoin as the key of a table: the 32 bytes of the txid as they are hashed, the index big-endian.
pub fn outpoint_key(outpoint: &bitcoin::OutPoint) -> [u8; 36] {
    let mut key = [0; 36];
    let (txid, vout) = key.split_at_mut(32);
    txid.copy_from_slice(outpoint.txid.as_byte_array());
    vout.copy_from_slice(&outpoint.vout.to_be_bytes());
    key
}

/// The inverse of [`outpoint_key`].
pub fn outpoint_of(key: &[u8; 36]) -> bitcoin::OutPoint {
    let mut txid = [0; 32];
    let mut vout = [0; 4];
    let (head, tail) = key.split_at(32);
    txid.copy_from_slice(head);
    vout.copy_from_slice(tail);
    bitcoin::OutPoint { txid: bitcoin::Txid::from_byte_array(txid), vout: u32::from_be_bytes(vout) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use federation_core::PeerId;
    use proptest::prelude::*;

    use super::*;

    fn secrets(n: u8) -> Vec<SecretKey> {
        (1..=n).map(|i| SecretKey::from_slice(&[i; 32]).unwrap()).collect()
    }

    fn descriptor(n: u8) -> Descriptor {
        let keys: BTreeMap<PeerId, PublicKey> =
            (0..).map(PeerId).zip(secrets(n).iter().map(|key| key.public_key(SECP256K1))).collect();
        Descriptor {
            threshold: federation_core::config::threshold(keys.len()),
            keys: keys.into_values().collect(),
            network: Network::Regtest,
        }
    }

    #[test]
    fn one_guardian_has_wpkh_and_more_have_sorted_multisig() {
        assert!(descriptor(1).untweaked().unwrap().to_string().starts_with("wpkh("));
        assert!(descriptor(4).untweaked().unwrap().to_string().starts_with("wsh(sortedmulti(3,"));
        assert!(descriptor(20).untweaked().unwrap().to_string().starts_with("wsh(sortedmulti(14,"));
    }

    #[test]
    fn kinds_of_tweak_are_kept_apart() {
        let key = secrets(1)[0].x_only_public_key(SECP256K1).0;
        let descriptor = descriptor(4);
        let deposit = descriptor.script(&Tweak::Deposit(key)).unwrap();
        assert_ne!(deposit, descriptor.script(&Tweak::Change(key.serialize())).unwrap());
        assert!(descriptor.program(&deposit).is_some());
        assert!(descriptor.program(&ScriptBuf::new()).is_none());
    }

    proptest! {
        #[test]
        fn the_tweaked_secret_fits_the_tweaked_key(change in any::<[u8; 32]>(), secret in 1u8..200) {
            let secret = SecretKey::from_slice(&[secret; 32]).unwrap();
            let tweak = Tweak::Change(change);
            let public = tweak.public(&secret.public_key(SECP256K1)).unwrap();
            prop_assert_eq!(tweak.secret(&secret).unwrap().public_key(SECP256K1), public);
        }

        #[test]
        fn outpoints_round_trip(txid in any::<[u8; 32]>(), vout in any::<u32>()) {
            let outpoint = bitcoin::OutPoint { txid: bitcoin::Txid::from_byte_array(txid), vout };
            prop_assert_eq!(outpoint_of(&outpoint_key(&outpoint)), outpoint);
        }
    }
}

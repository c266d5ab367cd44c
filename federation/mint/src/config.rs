//! What all guardians agreed on at setup: keys, fees and limits; and what each keeps to itself.

use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::Amount;
use federation_tbs::dkg::KeySet;
use federation_tbs::{PublicKey, PublicKeyShare, SecretKeyShare, threshold};
use serde::{Deserialize, Serialize};

use crate::{Denomination, MintError};

/// The keys of one denomination.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct DenominationKeys {
    /// What its notes are checked with.
    pub public: PublicKey,
    /// What each guardian's partial signatures are checked with, by guardian.
    pub shares: Vec<PublicKeyShare>,
}

/// The mint's part of the federation's configuration.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct MintConfig {
    /// The keys of the denomination of 2^index msat.
    pub denominations: Vec<DenominationKeys>,
    /// How many guardians' partial signatures make a signature.
    pub threshold: u16,
    /// The fee for each note that is spent.
    #[serde(rename = "fee_in_msat")]
    pub fee_in: Amount,
    /// The fee for each note that is issued.
    #[serde(rename = "fee_out_msat")]
    pub fee_out: Amount,
    /// The most that may be in circulation at a time.
    #[serde(rename = "max_issuance_msat")]
    pub max_issuance: Option<Amount>,
}

/// What a federation chooses at setup; without fees and limits unless it does.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
)]
pub struct MintParams {
    /// The fee for each note that is spent.
    #[serde(rename = "fee_in_msat")]
    pub fee_in: Amount,
    /// The fee for each note that is issued.
    #[serde(rename = "fee_out_msat")]
    pub fee_out: Amount,
    /// The most that may be in circulation at a time.
    #[serde(rename = "max_issuance_msat")]
    pub max_issuance: Option<Amount>,
}

/// One guardian's secret shares, by denomination; wiped when dropped. Encoded only to be stored encrypted.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct MintSecret {
    /// The share of the denomination of 2^index msat.
    pub shares: Vec<SecretKeyShare>,
}

/// Makes the configuration, the same at every guardian, and this guardian's secret out of the result of the key
/// generation: one key a denomination, the smallest first; 1 to [`Denomination::COUNT`], further ones are left out.
pub fn generate(keysets: Vec<KeySet>, params: MintParams) -> (MintConfig, MintSecret) {
    let guardians = keysets.first().map_or(0, |keys| keys.shares.len());
    let (denominations, shares) = keysets
        .into_iter()
        .take(Denomination::COUNT)
        .map(|keys| (DenominationKeys { public: keys.public, shares: keys.shares }, keys.secret))
        .unzip();
    let config = MintConfig {
        denominations,
        // At most 20 guardians.
        threshold: u16::try_from(threshold(guardians)).unwrap_or(u16::MAX),
        fee_in: params.fee_in,
        fee_out: params.fee_out,
        max_issuance: params.max_issuance,
    };
    (config, MintSecret { shares })
}

impl MintConfig {
    /// The keys of a denomination, if this federation has it.
    pub fn keys(&self, denomination: Denomination) -> Option<&DenominationKeys> {
        self.denominations.get(usize::from(denomination.exponent()))
    }

    /// The denominations that this federation has, the smallest first.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = Denomination> {
        let count = self.denominations.len().min(Denomination::COUNT);
        // (At most 64, so the conversion loses nothing.)
        (0..count as u8).filter_map(|exponent| Denomination::new(exponent).ok())
    }

    /// How many guardians there are.
    pub fn guardians(&self) -> usize {
        self.denominations.first().map_or(0, |keys| keys.shares.len())
    }

    /// Checks that the secret shares are those of guardian `us` under this configuration.
    ///
    /// # Errors
    /// [`MintError::SecretMismatch`]: a backup of another guardian or federation.
    pub fn check_secret(&self, secret: &MintSecret, us: u16) -> Result<(), MintError> {
        let fits = secret.shares.len() == self.denominations.len()
            && secret
                .shares
                .iter()
                .zip(&self.denominations)
                .all(|(secret, keys)| keys.shares.get(usize::from(us)) == Some(&secret.public()));
        if fits { Ok(()) } else { Err(MintError::SecretMismatch) }
    }
}

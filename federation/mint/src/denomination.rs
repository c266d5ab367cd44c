//! What a note can be worth: a power of two in msat.

use std::fmt;

use borsh::io::{Error, ErrorKind, Read, Result};
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::Amount;
use federation_core::db::TableKey;
use serde::{Deserialize, Serialize};

/// The exponent of a power of two in msat, 0 to 63; encoded as that one byte, in JSON as that number.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, Serialize, Deserialize,
)]
#[serde(try_from = "u8", into = "u8")]
pub struct Denomination(u8);

/// An exponent above 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no denomination: exponents go from 0 to 63")]
pub struct DenominationError(pub u8);

impl Denomination {
    /// How many there can be at most.
    pub const COUNT: usize = 64;

    /// 2^`exponent` msat.
    ///
    /// # Errors
    /// An exponent above 63.
    pub const fn new(exponent: u8) -> std::result::Result<Self, DenominationError> {
        if exponent < Self::COUNT as u8 { Ok(Self(exponent)) } else { Err(DenominationError(exponent)) }
    }

    /// The power of two: the place of its keys in the configuration.
    pub const fn exponent(self) -> u8 {
        self.0
    }

    /// What a note of it is worth.
    pub const fn amount(self) -> Amount {
        Amount::from_msat(1 << self.0)
    }
}

impl TryFrom<u8> for Denomination {
    type Error = DenominationError;

    fn try_from(exponent: u8) -> std::result::Result<Self, DenominationError> {
        Self::new(exponent)
    }
}

impl From<Denomination> for u8 {
    fn from(denomination: Denomination) -> Self {
        denomination.0
    }
}

impl BorshDeserialize for Denomination {
    fn deserialize_reader<R: Read>(reader: &mut R) -> Result<Self> {
        Self::new(u8::deserialize_reader(reader)?).map_err(|error| Error::new(ErrorKind::InvalidData, error))
    }
}

impl TableKey for Denomination {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Self::new(u8::read(bytes)?).ok()
    }
}

impl fmt::Display for Denomination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.amount().fmt(f)
    }
}

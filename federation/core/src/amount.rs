//! Amounts of money.

use std::fmt;
use std::str::FromStr;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

/// An amount in millisatoshi. All arithmetic is checked: `None` means overflow or a negative result.
///
/// Serialises as a plain number of msat; field names that carry it end in `_msat`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    BorshSerialize,
    BorshDeserialize,
    Serialize,
    Deserialize,
)]
#[serde(transparent)]
pub struct Amount(u64);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// From millisatoshi.
    pub const fn from_msat(msat: u64) -> Self {
        Self(msat)
    }

    /// From satoshi; `None` above `u64::MAX` msat.
    pub const fn from_sat(sat: u64) -> Option<Self> {
        match sat.checked_mul(1000) {
            Some(msat) => Some(Self(msat)),
            None => None,
        }
    }

    /// In millisatoshi.
    pub const fn msat(self) -> u64 {
        self.0
    }

    /// In whole satoshi, rounded down.
    pub const fn sat_floor(self) -> u64 {
        self.0 / 1000
    }

    /// In satoshi, if it is a whole number of them.
    pub const fn sat_exact(self) -> Option<u64> {
        if self.0.is_multiple_of(1000) { Some(self.0 / 1000) } else { None }
    }

    /// Whether this is nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, if it fits.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, if it is not negative.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// The product with a plain number, if it fits.
    pub fn checked_mul(self, factor: u64) -> Option<Self> {
        self.0.checked_mul(factor).map(Self)
    }

    /// `base + self × ppm / 1,000,000`, rounded up: how every fee in this project is computed.
    pub fn fee(self, base: Amount, ppm: u64) -> Option<Amount> {
        let proportional = (u128::from(self.0) * u128::from(ppm)).div_ceil(1_000_000);
        u64::try_from(proportional).ok().map(Self)?.checked_add(base)
    }

    /// The sum of all, if it fits.
    pub fn checked_sum(amounts: impl IntoIterator<Item = Amount>) -> Option<Amount> {
        amounts.into_iter().try_fold(Self::ZERO, Self::checked_add)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} msat", self.0)
    }
}

/// Why a text is no amount.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no amount: write a whole number with the unit, such as 1000sat or 2500msat")]
pub struct ParseAmountError(String);

/// `"1000sat"` or `"2500msat"`; a bare number is satoshi.
impl FromStr for Amount {
    type Err = ParseAmountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseAmountError(text.chars().take(40).collect());
        let trimmed = text.trim();
        let (digits, factor) = if let Some(digits) = trimmed.strip_suffix("msat") {
            (digits, 1)
        } else {
            (trimmed.strip_suffix("sat").unwrap_or(trimmed), 1000)
        };
        let digits = digits.trim_end();
        // `u64::from_str` takes a leading plus sign; an amount does not.
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error());
        }
        digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).map(Self).ok_or_else(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_units() {
        assert_eq!("1000".parse(), Ok(Amount::from_msat(1_000_000)));
        assert_eq!("1000sat".parse(), Ok(Amount::from_msat(1_000_000)));
        assert_eq!("7msat".parse(), Ok(Amount::from_msat(7)));
        for bad in ["", "-1", "+1", "1btc", "1.5sat", "18446744073709551615sat"] {
            assert!(bad.parse::<Amount>().is_err(), "{bad}");
        }
    }

    #[test]
    fn fees_round_up() {
        assert_eq!(Amount::from_msat(1).fee(Amount::from_msat(10), 1), Some(Amount::from_msat(11)));
        assert_eq!(Amount::from_msat(u64::MAX).fee(Amount::from_msat(1), 1_000_000), None);
    }
}

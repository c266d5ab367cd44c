//! Which addresses and scripts a withdrawal can pay.

use std::str::FromStr;

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Network, Script, ScriptBuf};

/// Why a withdrawal cannot go there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is no Bitcoin address.
    #[error("'{0}' is no Bitcoin address: check it for typing errors")]
    Malformed(String),
    /// It belongs to another network.
    #[error("the address {address} is not of {network}, where this federation is: ask for one of {network}")]
    WrongNetwork {
        /// The address.
        address: String,
        /// The federation's network.
        network: Network,
    },
    /// It is of a kind that the federation doesn't pay to.
    #[error("withdrawals go to p2pkh, p2sh, p2wpkh, p2wsh and p2tr addresses only")]
    Kind,
    /// So little that nodes would not relay the transaction.
    #[error("{amount_sat} sat are dust for this address: it takes at least {minimum_sat} sat")]
    Dust {
        /// What was asked for.
        amount_sat: u64,
        /// The least that can be paid.
        minimum_sat: u64,
    },
}

impl AddressError {
    /// The stable code for the API.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "bad_address",
            Self::WrongNetwork { .. } => "wrong_network",
            Self::Kind => "address_kind",
            Self::Dust { .. } => "dust",
        }
    }
}

/// The script of an address of this network.
///
/// # Errors
/// If it is no address, of another network, or of another kind than withdrawals go to.
pub fn script_of(address: &str, network: Network) -> Result<ScriptBuf, AddressError> {
    let parsed = Address::<NetworkUnchecked>::from_str(address.trim())
        .map_err(|_| AddressError::Malformed(address.to_owned()))?;
    let script = parsed
        .require_network(network)
        .map_err(|_| AddressError::WrongNetwork { address: address.to_owned(), network })?
        .script_pubkey();
    check_kind(&script)?;
    Ok(script)
}

fn check_kind(script: &Script) -> Result<(), AddressError> {
    let known =
        script.is_p2pkh() || script.is_p2sh() || script.is_p2wpkh() || script.is_p2wsh() || script.is_p2tr();
    known.then_some(()).ok_or(AddressError::Kind)
}

/// Whether this amount can be paid to this script.
///
/// # Errors
/// [`AddressError::Kind`] or [`AddressError::Dust`].
pub fn check_payment(script: &Script, amount_sat: u64) -> Result<(), AddressError> {
    check_kind(script)?;
    let minimum_sat = script.minimal_non_dust().to_sat();
    if amount_sat < minimum_sat { Err(AddressError::Dust { amount_sat, minimum_sat }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_kinds_and_dust() {
        let regtest = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
        let script = script_of(regtest, Network::Regtest).unwrap();
        assert_eq!(script_of(regtest, Network::Bitcoin).unwrap_err().code(), "wrong_network");
        assert_eq!(script_of("nonsense", Network::Regtest).unwrap_err().code(), "bad_address");
        check_payment(&script, 294).unwrap();
        assert_eq!(
            check_payment(&script, 293),
            Err(AddressError::Dust { amount_sat: 293, minimum_sat: 294 })
        );
        assert_eq!(check_payment(&ScriptBuf::new_op_return([]), 1000), Err(AddressError::Kind));
        for main in [
            "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2",
            "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy",
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
            "bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3",
            "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
        ] {
            script_of(main, Network::Bitcoin).unwrap();
        }
    }
}

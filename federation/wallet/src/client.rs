//! The user's side: pure functions. Whoever uses them talks to guardians by the types of [`crate::body`].
//!
//! ```text
//! DepositKeys::key(i) ─▶ POST register ─▶ address; pay to it
//!                     ─▶ GET deposits ─▶ proof ─▶ deposit_input ─▶ Input, signed with the same key
//! GET quote ─▶ withdrawal_output ─▶ Output
//! ```

use bitcoin::Network;
use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey, XOnlyPublicKey};
use federation_core::encoding::{DecodeError, decode, encode};
use federation_core::module::MAX_BODY;
use federation_core::{Amount, FederationId, Input, ModuleId, Output};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::address::{AddressError, check_payment, script_of};
use crate::body::{DepositInput, Quote, WithdrawalOutput};
use crate::config::{ConfigError, WalletConfig};
use crate::descriptor::{Descriptor, Tweak};
use crate::proof::ProofError;

/// Why a proof that a guardian gave cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DepositError {
    /// Not hexadecimal.
    #[error("the guardian's proof is no hexadecimal text: ask another guardian")]
    Hex,
    /// Not a proof.
    #[error("the guardian's proof cannot be read ({0}): ask another guardian")]
    Encoding(#[from] DecodeError),
    /// It proves nothing.
    #[error("the guardian's proof is wrong ({0}): ask another guardian")]
    Proof(#[from] ProofError),
    /// It proves a payment to somebody else.
    #[error("the guardian's proof is for another address: ask another guardian")]
    OtherAddress,
    /// No address for this key (negligible probability).
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// More money than there is.
    #[error("the deposit's amount overflows")]
    Overflow,
}

/// The deposit keys of one wallet in one federation, all derived from its seed.
pub struct DepositKeys {
    hkdf: Hkdf<Sha256>,
    federation: FederationId,
}

impl DepositKeys {
    /// From the wallet's seed.
    pub fn new(seed: &[u8; 64], federation: FederationId) -> Self {
        Self { hkdf: Hkdf::new(Some(b"cln-federation/wallet/deposit-keys"), seed), federation }
    }

    /// The key pair of an index. A restore walks the indices from 0.
    pub fn key(&self, index: u32) -> Keypair {
        // The first counter gives a key but with probability 2^-128.
        for counter in 0u8..=u8::MAX {
            let mut bytes = Zeroizing::new([0; 32]);
            let info = [self.federation.0.as_slice(), &index.to_be_bytes(), &[counter]].concat();
            // 32 bytes are one block of HKDF's output: never too long.
            if self.hkdf.expand(&info, bytes.as_mut()).is_ok()
                && let Ok(key) = SecretKey::from_slice(bytes.as_slice())
            {
                return Keypair::from_secret_key(SECP256K1, &key);
            }
        }
        unreachable!("256 hashes in a row outside the group order")
    }
}

/// The address to deposit to with a key. Compute it rather than believe a guardian.
///
/// # Errors
/// With negligible probability.
pub fn deposit_address(config: &WalletConfig, key: &XOnlyPublicKey) -> Result<bitcoin::Address, ConfigError> {
    Descriptor::new(config).deposit_address(key)
}

/// Turns the proof of a guardian's answer into an input of a transaction, and says what it is worth. The transaction is to
/// be signed with the deposit key.
///
/// # Errors
/// If the proof is not one of a payment to this key's address. Whether its block is final only the federation knows.
pub fn deposit_input(
    config: &WalletConfig,
    module: ModuleId,
    key: &XOnlyPublicKey,
    proof: &str,
) -> Result<(Input, Amount), DepositError> {
    let bytes = hex::decode(proof).map_err(|_| DepositError::Hex)?;
    let input: DepositInput = decode(&bytes, MAX_BODY)?;
    input.proof.check()?;
    let (_, output) = input.proof.output(input.vout)?;
    if output.script_pubkey != Descriptor::new(config).script(&Tweak::Deposit(*key))? {
        return Err(DepositError::OtherAddress);
    }
    let amount = Amount::from_sat(output.value.to_sat()).ok_or(DepositError::Overflow)?;
    Ok((Input { module, key: *key, body: encode(&input) }, amount))
}

/// The output of a withdrawal by a quote; it takes the quote's amount and its fee from the transaction.
///
/// # Errors
/// If the quote's address is not one that this federation pays to.
pub fn withdrawal_output(network: Network, module: ModuleId, quote: &Quote) -> Result<Output, AddressError> {
    let script = script_of(&quote.address, network)?;
    check_payment(&script, quote.amount_sat)?;
    let body = WithdrawalOutput { script, amount_sat: quote.amount_sat, fee_sat: quote.fee_sat };
    Ok(Output { module, body: encode(&body) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deposit_keys_depend_on_seed_federation_and_index() {
        let keys = DepositKeys::new(&[1; 64], FederationId([2; 32]));
        let key = keys.key(0).public_key();
        assert_eq!(key, DepositKeys::new(&[1; 64], FederationId([2; 32])).key(0).public_key());
        assert_ne!(key, keys.key(1).public_key());
        assert_ne!(key, DepositKeys::new(&[1; 64], FederationId([3; 32])).key(0).public_key());
        assert_ne!(key, DepositKeys::new(&[3; 64], FederationId([2; 32])).key(0).public_key());
    }

    #[test]
    fn a_withdrawal_needs_a_good_address() {
        let quote = Quote {
            address: "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080".to_owned(),
            amount_sat: 10_000,
            fee_sat: 300,
            rate_sat_per_kvb: 1_000,
            valid_until_height: 10,
        };
        let output = withdrawal_output(Network::Regtest, ModuleId(1), &quote).unwrap();
        let body: WithdrawalOutput = decode(&output.body, 100).unwrap();
        assert_eq!((body.amount_sat, body.fee_sat), (10_000, 300));
        assert!(withdrawal_output(Network::Bitcoin, ModuleId(1), &quote).is_err());
        assert!(withdrawal_output(Network::Regtest, ModuleId(1), &Quote { amount_sat: 1, ..quote }).is_err());
    }
}

//! Deposits: an output in a final block to an address of the depositor's key becomes a coin, once.

use bitcoin::secp256k1::XOnlyPublicKey;
use bitcoin::{BlockHash, OutPoint};
use federation_core::Amount;
use federation_core::db::Namespaced;
use federation_core::module::{ModuleError, Value};

use super::Wallet;
use super::blocks::last_final;
use super::tables::{CLAIMED, COINS, Coin, HEADERS};
use crate::body::DepositInput;
use crate::descriptor::{Tweak, outpoint_key};

/// What a deposit's proof proves, if its block is final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenDeposit {
    outpoint: OutPoint,
    coin: Coin,
    block: BlockHash,
    height: u32,
}

impl Wallet {
    /// Everything that needs no state: the Merkle path, and that the output pays to the key's address.
    pub(super) fn prepare_deposit(
        &self,
        key: &XOnlyPublicKey,
        input: &DepositInput,
    ) -> Result<ProvenDeposit, ModuleError> {
        let proof = &input.proof;
        proof.check().map_err(|error| ModuleError::refused("bad_proof", error.to_string()))?;
        let (outpoint, output) =
            proof.output(input.vout).map_err(|error| ModuleError::refused("bad_proof", error.to_string()))?;
        let tweak = Tweak::Deposit(*key);
        let script = self
            .descriptor
            .script(&tweak)
            .map_err(|error| ModuleError::refused("bad_tweak", error.to_string()))?;
        if script != output.script_pubkey {
            return Err(ModuleError::refused(
                "wrong_address",
                format!("the output {outpoint} does not pay to the deposit address of the input's key"),
            ));
        }
        let coin = Coin { amount_sat: output.value.to_sat(), tweak };
        Ok(ProvenDeposit { outpoint, coin, block: proof.block_hash(), height: proof.height })
    }

    /// Takes the coin.
    pub(super) async fn apply_deposit(
        &self,
        db: &mut Namespaced<'_>,
        deposit: &ProvenDeposit,
    ) -> Result<Value, ModuleError> {
        let &ProvenDeposit { outpoint, coin, block, height } = deposit;
        match HEADERS.get(db, &height).await? {
            Some(header) if header.hash() == block => {}
            Some(_) => {
                return Err(ModuleError::refused(
                    "wrong_block",
                    format!(
                        "the block {block} is not the one that the federation agreed on at height {height}"
                    ),
                ));
            }
            None if height < self.config.birthday => {
                return Err(ModuleError::refused("wrong_block", "the block is older than the federation"));
            }
            None => {
                let last = last_final(db).await?.map_or(0, |(height, _)| height);
                return Err(ModuleError::refused(
                    "not_final",
                    format!(
                        "block {height} is not final yet: the federation is at {last}; wait for more blocks"
                    ),
                ));
            }
        }
        let key = outpoint_key(&outpoint);
        if CLAIMED.contains(db, &key).await? {
            return Err(ModuleError::refused(
                "already_claimed",
                format!("the deposit {outpoint} was claimed already"),
            ));
        }
        let minimum = self.config.params.min_deposit_sat;
        if coin.amount_sat < minimum {
            return Err(ModuleError::refused(
                "deposit_too_small",
                format!("{} sat were deposited, but at least {minimum} sat are needed", coin.amount_sat),
            ));
        }
        let amount = Amount::from_sat(coin.amount_sat)
            .ok_or_else(|| ModuleError::refused("overflow", "more money than there is"))?;
        CLAIMED.put(db, &key, &());
        COINS.put(db, &key, &coin);
        Ok(Value::free(amount))
    }
}

//! Withdrawals: accepted into a queue, and all that wait at the end of an epoch paid by one transaction.
//!
//! What a user pays covers the transaction's fixed part, its own output, a change output and the inputs that it adds to
//! those of the queue. So the fees of a whole queue cover its transaction; what is left over goes into the reserve. If
//! coins changed since, the reserve helps; failing that a lower fee rate, down to the floor; failing that the
//! withdrawal waits for change to be confirmed. Nothing else of the federation's money is ever spent on fees.

use bitcoin::absolute::LockTime;
use bitcoin::psbt::Psbt;
use bitcoin::transaction::Version;
use bitcoin::{Amount as Satoshis, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use federation_core::db::{DbError, Namespaced, Reader};
use federation_core::encoding::tagged_hash;
use federation_core::module::{Epoch, ModuleError, Value};
use federation_core::{Amount, OutPoint};
use tracing::{info, warn};

use super::Wallet;
use super::coins::{KeyedCoin, Payment, Selection, count, output_weight, select, sort};
use super::tables::{ACTIVE, Active, COINS, Change, Coin, FINAL, NUMBER, QUEUE, Queued, RESERVE, Stage};
use crate::address::check_payment;
use crate::body::WithdrawalOutput;
use crate::config::ConfigError;
use crate::descriptor::{Tweak, outpoint_key, outpoint_of};

/// The most withdrawals in one transaction.
const MAX_PAYMENTS: usize = 200;
/// More than all bitcoin there will ever be, in satoshi.
const MAX_SAT: u64 = 2_100_000_000_000_000;

/// What a withdrawal costs at the state of now.
pub(super) struct Cost {
    /// The inputs that it adds.
    inputs: usize,
    outputs_weight: u64,
}

impl Wallet {
    /// All that the federation can count on: coins, and change that is on its way.
    async fn all_coins(&self, db: &dyn Reader) -> Result<Vec<KeyedCoin>, DbError> {
        let mut coins = COINS.all(db).await?;
        for (txid, active) in ACTIVE.all(db).await? {
            coins.extend(active.change.map(|change| {
                let outpoint = bitcoin::OutPoint {
                    txid: bitcoin::hashes::Hash::from_byte_array(txid),
                    vout: change.vout,
                };
                (outpoint_key(&outpoint), change.coin)
            }));
        }
        sort(&mut coins);
        Ok(coins)
    }

    /// What paying this would add to the queue's transaction.
    pub(super) async fn cost(&self, db: &dyn Reader, output: &TxOut) -> Result<Cost, ModuleError> {
        let short = || {
            ModuleError::refused(
                "insufficient_reserves",
                "the federation's bitcoin, less what is already being withdrawn, do not cover this amount",
            )
        };
        let coins = self.all_coins(db).await?;
        let mut queued = 0u64;
        for (_, waiting) in QUEUE.all(db).await? {
            queued = queued.saturating_add(waiting.output.value.to_sat()).saturating_add(waiting.fee_sat);
        }
        let before = count(&coins, queued).ok_or_else(short)?;
        let after = count(&coins, queued.saturating_add(output.value.to_sat())).ok_or_else(short)?;
        Ok(Cost { inputs: after.saturating_sub(before).max(1), outputs_weight: output_weight(output) })
    }

    /// The fee for it. A quote has one input to `spare`: then coins may change a little while it is valid.
    pub(super) fn withdrawal_fee(&self, cost: &Cost, spare: usize, rate: u64) -> Result<u64, ModuleError> {
        self.weights.fee(cost.inputs.saturating_add(spare), cost.outputs_weight, rate).ok_or_else(|| {
            ModuleError::refused(
                "too_many_coins",
                "this amount takes more coins than fit into one transaction: withdraw less at once",
            )
        })
    }

    /// Takes on a withdrawal.
    pub(super) async fn apply_withdrawal(
        &self,
        db: &mut Namespaced<'_>,
        point: OutPoint,
        output: &WithdrawalOutput,
    ) -> Result<Value, ModuleError> {
        let &WithdrawalOutput { ref script, amount_sat, fee_sat } = output;
        check_payment(script, amount_sat)
            .map_err(|error| ModuleError::refused(error.code(), error.to_string()))?;
        if amount_sat > MAX_SAT || fee_sat > MAX_SAT {
            return Err(ModuleError::refused("overflow", "more money than there is"));
        }
        let Some(rate) = self.lowest_rate(db).await? else {
            return Err(ModuleError::refused(
                "no_fee_rate",
                "the federation has not agreed on a fee rate yet: try again after the next block",
            ));
        };
        let output = TxOut { value: Satoshis::from_sat(amount_sat), script_pubkey: script.clone() };
        let needed = self.withdrawal_fee(&self.cost(db, &output).await?, 0, rate)?;
        if fee_sat < needed {
            return Err(ModuleError::refused(
                "quote_expired",
                format!(
                    "the fee of {fee_sat} sat is too low by now, it takes {needed} sat: ask for a new quote"
                ),
            ));
        }
        let value = Amount::from_sat(amount_sat)
            .zip(Amount::from_sat(fee_sat))
            .map(|(amount, fee)| Value { amount, fee })
            .ok_or_else(|| ModuleError::refused("overflow", "more money than there is"))?;
        let number = self.next_number(db).await?;
        QUEUE.put(db, &number, &Queued { point, output, fee_sat });
        Ok(value)
    }

    async fn next_number(&self, db: &mut Namespaced<'_>) -> Result<u64, DbError> {
        let number = NUMBER.get(db, &()).await?.unwrap_or_default();
        NUMBER.put(db, &(), &number.saturating_add(1));
        Ok(number)
    }

    /// Pays as many of the queue's first as the coins allow, in one transaction.
    pub(super) async fn pay_queue(&self, db: &mut Namespaced<'_>, epoch: Epoch) -> Result<(), DbError> {
        let queue = QUEUE.scan(db, &(), None, MAX_PAYMENTS).await?;
        if queue.is_empty() {
            return Ok(());
        }
        let Some(rate) = self.agreed_rate(db).await? else { return Ok(()) };
        let mut coins = COINS.all(db).await?;
        sort(&mut coins);
        let reserve = RESERVE.get(db, &()).await?.unwrap_or_default();
        for size in (1..=queue.len()).rev() {
            let part: Vec<_> = queue.iter().take(size).map(|(_, queued)| queued).collect();
            let Some((selection, left)) = self.plan(&coins, &part, reserve, rate) else { continue };
            let made_at = FINAL.get(db, &()).await?.unwrap_or_default();
            let tag = self.next_number(db).await?;
            let spent: Vec<_> = coins.iter().take(selection.inputs).copied().collect();
            let built = self.build(&spent, &part, &selection, made_at, tag);
            let (txid, active) = match built {
                Ok(built) => built,
                // A change key that does not exist (probability 2^-128): the next epoch takes another one.
                Err(error) => {
                    warn!("no withdrawal transaction in epoch {}: {error}", epoch.number);
                    return Ok(());
                }
            };
            for (key, _) in &spent {
                COINS.delete(db, key);
            }
            for (number, _) in queue.iter().take(size) {
                QUEUE.delete(db, number);
            }
            RESERVE.put(db, &(), &left);
            ACTIVE.put(db, &bitcoin::hashes::Hash::to_byte_array(txid), &active);
            info!("transaction {txid} pays {size} withdrawals of epoch {}", epoch.number);
            return Ok(());
        }
        Ok(())
    }

    /// How to pay these, and what is then left in the reserve.
    fn plan(
        &self,
        coins: &[KeyedCoin],
        part: &[&Queued],
        reserve: u64,
        rate: u64,
    ) -> Option<(Selection, u64)> {
        let sum = |value: fn(&Queued) -> u64| {
            part.iter().try_fold(0u64, |sum, queued| sum.checked_add(value(queued)))
        };
        let budget_sat = sum(|queued| queued.fee_sat)?.checked_add(reserve)?;
        let outputs_weight = sum(|queued| output_weight(&queued.output))?;
        let payment = Payment {
            amount_sat: sum(|queued| queued.output.value.to_sat())?,
            outputs_weight,
            rate_sat_per_kvb: rate,
            budget_sat,
        };
        let floor = Payment { rate_sat_per_kvb: self.config.params.fee_floor_sat_per_kvb, ..payment };
        let selection = select(coins, &payment, &self.weights)
            .or_else(|| {
                // Slower, but on its way: all of the budget, as far as it improves the rate.
                let mut selection = select(coins, &floor, &self.weights)?;
                let change = selection.change_sat?.checked_add(selection.fee_sat)?;
                let wanted = self.weights.fee(selection.inputs, outputs_weight, rate)?.min(budget_sat);
                let rest = change.checked_sub(wanted).filter(|rest| *rest >= super::coins::MIN_CHANGE_SAT);
                if let Some(rest) = rest.filter(|_| wanted > selection.fee_sat) {
                    selection = Selection { fee_sat: wanted, change_sat: Some(rest), ..selection };
                }
                Some(selection)
            })
            .or_else(|| select(coins, &floor, &self.weights))?;
        Some((selection, budget_sat.checked_sub(selection.fee_sat)?))
    }

    /// The transaction, inputs and outputs sorted as in BIP-69, so that nothing tells the change.
    fn build(
        &self,
        spent: &[KeyedCoin],
        part: &[&Queued],
        selection: &Selection,
        made_at: u32,
        tag: u64,
    ) -> Result<(bitcoin::Txid, Active), ConfigError> {
        let mut spent: Vec<(bitcoin::OutPoint, Coin)> =
            spent.iter().map(|(key, coin)| (outpoint_of(key), *coin)).collect();
        spent.sort_unstable_by_key(|(outpoint, _)| *outpoint);
        let mut outputs: Vec<TxOut> = part.iter().map(|queued| queued.output.clone()).collect();
        let mut change_script = ScriptBuf::new();
        let change_coin = match selection.change_sat {
            Some(amount_sat) => {
                let federation = &self.federation.0;
                let tag =
                    tagged_hash("cln-federation/wallet/change-number", &[federation, &tag.to_be_bytes()]);
                let tweak = Tweak::Change(tag);
                change_script = self.descriptor.script(&tweak)?;
                outputs.push(TxOut {
                    value: Satoshis::from_sat(amount_sat),
                    script_pubkey: change_script.clone(),
                });
                Some(Coin { amount_sat, tweak })
            }
            None => None,
        };
        outputs.sort_unstable_by(|a, b| (a.value, &a.script_pubkey).cmp(&(b.value, &b.script_pubkey)));
        // By the amount too: a user may have guessed the script and withdrawn to it.
        let is_change = |output: &TxOut, coin: &Coin| {
            output.script_pubkey == change_script && output.value.to_sat() == coin.amount_sat
        };
        let change = change_coin.and_then(|coin| {
            let vout = outputs.iter().position(|output| is_change(output, &coin))?;
            Some(Change { vout: u32::try_from(vout).ok()?, coin })
        });
        let transaction = Transaction {
            version: Version::TWO,
            // Against fee sniping: not valid in a block that replaces one which is final already.
            lock_time: LockTime::from_height(made_at).unwrap_or(LockTime::ZERO),
            input: spent
                .iter()
                .map(|(outpoint, _)| TxIn {
                    previous_output: *outpoint,
                    script_sig: ScriptBuf::new(),
                    sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                    witness: Witness::new(),
                })
                .collect(),
            output: outputs,
        };
        let txid = transaction.compute_txid();
        let mut psbt = Psbt::from_unsigned_tx(transaction)
            .map_err(|error| ConfigError::Descriptor(error.to_string()))?;
        for (input, (_, coin)) in psbt.inputs.iter_mut().zip(&spent) {
            let descriptor = self.descriptor.tweaked(&coin.tweak)?;
            input.witness_utxo = Some(TxOut {
                value: Satoshis::from_sat(coin.amount_sat),
                script_pubkey: descriptor.script_pubkey(),
            });
            if descriptor.script_pubkey().is_p2wsh() {
                let script = descriptor
                    .explicit_script()
                    .map_err(|error| ConfigError::Descriptor(error.to_string()))?;
                input.witness_script = Some(script);
            }
        }
        let active = Active {
            stage: Stage::Signing(psbt.serialize()),
            tweaks: spent.iter().map(|(_, coin)| coin.tweak).collect(),
            points: part.iter().map(|queued| queued.point).collect(),
            change,
            made_at,
        };
        Ok((txid, active))
    }
}

//! Which coins a transaction spends, and what it weighs. Pure; the same on every guardian.
//!
//! Largest first: few inputs, so small fees. Change below [`MIN_CHANGE_SAT`] is not made; it goes to the miner, if fees that
//! users paid cover it.

use bitcoin::TxOut;

use super::tables::Coin;

/// The smallest change that is worth an output.
pub(super) const MIN_CHANGE_SAT: u64 = 1_000;
/// What a node relays is 400,000 weight units; the estimate is an upper bound, and a margin costs nothing.
const MAX_WEIGHT: u64 = 390_000;
/// Version, lock time, the largest counts of inputs and outputs, the segwit marker.
const OVERHEAD_WEIGHT: u64 = 4 * (4 + 4 + 3 + 3) + 2;

/// A coin and its key in the table.
pub(super) type KeyedCoin = ([u8; 36], Coin);

/// The weights of a descriptor's inputs and outputs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weights {
    pub input: u64,
    pub change: u64,
}

/// The weight of an output.
pub(super) fn output_weight(output: &TxOut) -> u64 {
    4 * output.size() as u64
}

impl Weights {
    /// The weight of a transaction with these outputs.
    fn transaction(&self, inputs: usize, outputs_weight: u64, change: bool) -> u64 {
        let inputs = (inputs as u64).saturating_mul(self.input);
        let change = if change { self.change } else { 0 };
        OVERHEAD_WEIGHT.saturating_add(inputs).saturating_add(outputs_weight).saturating_add(change)
    }

    /// The fee of a transaction with these outputs and change, in satoshi, rounded up. `None`: too heavy to be relayed.
    pub fn fee(&self, inputs: usize, outputs_weight: u64, rate_sat_per_kvb: u64) -> Option<u64> {
        let weight = self.transaction(inputs, outputs_weight, true);
        (weight <= MAX_WEIGHT).then(|| fee(weight, rate_sat_per_kvb))?
    }
}

fn fee(weight: u64, rate_sat_per_kvb: u64) -> Option<u64> {
    Some(weight.div_ceil(4).checked_mul(rate_sat_per_kvb)?.div_ceil(1_000))
}

/// Sorts coins as they are spent: the largest first; equal ones by outpoint.
pub(super) fn sort(coins: &mut [KeyedCoin]) {
    coins.sort_unstable_by(|a, b| b.1.amount_sat.cmp(&a.1.amount_sat).then(a.0.cmp(&b.0)));
}

/// How a payment is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Selection {
    /// How many coins, from the front.
    pub inputs: usize,
    /// What the miner gets.
    pub fee_sat: u64,
    /// What comes back, if anything.
    pub change_sat: Option<u64>,
}

/// What is to be paid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Payment {
    /// The sum of the outputs.
    pub amount_sat: u64,
    /// Their weight.
    pub outputs_weight: u64,
    /// The fee rate wanted.
    pub rate_sat_per_kvb: u64,
    /// The most that may be spent on fees.
    pub budget_sat: u64,
}

/// Takes coins from the front of the sorted list until they cover amount and fee. `None` if they can't, if the fee is over
/// the budget, or if the transaction would be too heavy.
pub(super) fn select(coins: &[KeyedCoin], payment: &Payment, weights: &Weights) -> Option<Selection> {
    let mut sum = 0u64;
    for (inputs, (_, coin)) in (1..).zip(coins) {
        sum = sum.checked_add(coin.amount_sat)?;
        let weight = |change| weights.transaction(inputs, payment.outputs_weight, change);
        if weight(true) > MAX_WEIGHT {
            return None;
        }
        let with_change = fee(weight(true), payment.rate_sat_per_kvb)?;
        let without = fee(weight(false), payment.rate_sat_per_kvb)?;
        // More coins only cost more.
        if without > payment.budget_sat {
            return None;
        }
        let Some(rest) = sum.checked_sub(payment.amount_sat) else { continue };
        if let Some(change) = rest.checked_sub(with_change).filter(|change| *change >= MIN_CHANGE_SAT)
            && with_change <= payment.budget_sat
        {
            return Some(Selection { inputs, fee_sat: with_change, change_sat: Some(change) });
        }
        if rest >= without && rest <= payment.budget_sat {
            return Some(Selection { inputs, fee_sat: rest, change_sat: None });
        }
    }
    None
}

/// How many of the largest coins cover an amount, fees apart; `None` if all together don't.
pub(super) fn count(coins: &[KeyedCoin], amount_sat: u64) -> Option<usize> {
    let mut sum = 0u64;
    if amount_sat == 0 {
        return Some(0);
    }
    for (inputs, (_, coin)) in (1..).zip(coins) {
        sum = sum.checked_add(coin.amount_sat)?;
        if sum >= amount_sat {
            return Some(inputs);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::descriptor::Tweak;

    const WEIGHTS: Weights = Weights { input: 540, change: 172 };

    fn coins(amounts: &[u64]) -> Vec<KeyedCoin> {
        let mut coins = Vec::new();
        for (i, amount_sat) in amounts.iter().copied().enumerate() {
            let mut key = [0; 36];
            key[..8].copy_from_slice(&i.to_be_bytes());
            coins.push((key, Coin { amount_sat, tweak: Tweak::Change([0; 32]) }));
        }
        sort(&mut coins);
        coins
    }

    fn payment(amount_sat: u64, budget_sat: u64) -> Payment {
        Payment { amount_sat, outputs_weight: 124, rate_sat_per_kvb: 1_000, budget_sat }
    }

    #[test]
    fn the_largest_coin_is_enough() {
        let selection = select(&coins(&[10_000, 100_000]), &payment(50_000, 1_000), &WEIGHTS).unwrap();
        assert_eq!(selection.inputs, 1);
        assert_eq!(selection.change_sat, Some(50_000 - selection.fee_sat));
    }

    #[test]
    fn everything_goes_without_change() {
        let selection = select(&coins(&[50_300]), &payment(50_000, 300), &WEIGHTS).unwrap();
        assert_eq!(selection, Selection { inputs: 1, fee_sat: 300, change_sat: None });
    }

    #[test]
    fn too_little_money_or_budget_or_space() {
        assert_eq!(select(&coins(&[50_000]), &payment(50_000, 1_000), &WEIGHTS), None);
        assert_eq!(select(&coins(&[100_000]), &payment(50_000, 100), &WEIGHTS), None);
        let dust = coins(&[1_000; 256].map(|amount| amount * 4));
        let heavy = Weights { input: 1_900, change: 172 };
        assert!(select(&dust, &payment(1_000_000, 10_000_000), &heavy).is_none());
    }

    proptest! {
        #[test]
        fn money_is_conserved_and_the_budget_kept(
            amounts in proptest::collection::vec(1u64..1_000_000, 1..60),
            amount in 1u64..3_000_000,
            rate in 1_000u64..200_000,
            budget in 0u64..200_000,
        ) {
            let coins = coins(&amounts);
            let payment = Payment { amount_sat: amount, outputs_weight: 172, rate_sat_per_kvb: rate, budget_sat: budget };
            if let Some(selection) = select(&coins, &payment, &WEIGHTS) {
                let sum: u64 = coins[..selection.inputs].iter().map(|(_, coin)| coin.amount_sat).sum();
                prop_assert_eq!(sum, amount + selection.fee_sat + selection.change_sat.unwrap_or(0));
                prop_assert!(selection.fee_sat <= budget);
                let weight = WEIGHTS.transaction(selection.inputs, 172, selection.change_sat.is_some());
                prop_assert!(selection.fee_sat >= fee(weight, rate).unwrap());
            }
        }
    }
}

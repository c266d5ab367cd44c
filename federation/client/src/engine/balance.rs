//! Which notes go into a transaction and which come back, so that inputs cover outputs and fees.

use federation_core::Amount;
use federation_core::module::Value;
use federation_core::transaction::MAX_PARTS;
use federation_mint::client::{DEFAULT_SPREAD, Held, change, select_notes};
use federation_mint::{Denomination, MintConfig, MintError};

use crate::{ClientError, Result};

/// The parts of a transaction that are given.
pub struct Given<'a> {
    /// What inputs other than notes of ours bring.
    pub inputs: &'a [Value],
    /// What outputs other than change take, notes to be issued included.
    pub outputs: &'a [Value],
}

/// The parts that balance it.
#[derive(Debug, PartialEq, Eq)]
pub struct Balanced {
    /// Which of our notes are spent: places in the list given.
    pub spend: Vec<usize>,
    /// The change.
    pub change: Vec<Denomination>,
    /// All that leaves our hands for nothing: fees, and what is too little for a note.
    pub fees: Amount,
}

/// An amount and its fee.
pub fn cost(value: &Value) -> Option<Amount> {
    value.amount.checked_add(value.fee)
}

fn sum(amounts: impl IntoIterator<Item = Option<Amount>>) -> Result<Amount> {
    amounts
        .into_iter()
        .try_fold(Amount::ZERO, |sum, amount| sum.checked_add(amount?))
        .ok_or(ClientError::AmountTooLarge)
}

fn mint_error(error: MintError) -> ClientError {
    match error {
        MintError::Insufficient { available, wanted } => {
            ClientError::InsufficientFunds { needed: wanted, available }
        }
        MintError::TooManyNotes(_) => ClientError::TooManyNotes,
        other => ClientError::Internal(other.to_string()),
    }
}

/// Balances. `available` are our free notes.
///
/// # Errors
/// [`ClientError::InsufficientFunds`], [`ClientError::TooManyNotes`], [`ClientError::AmountTooLarge`];
/// [`ClientError::BelowFees`] if nothing at all would come out.
pub fn balance(config: &MintConfig, available: &[Denomination], given: &Given<'_>) -> Result<Balanced> {
    let have = sum(given.inputs.iter().map(|value| Some(value.amount)))?;
    let input_fees = sum(given.inputs.iter().map(|value| Some(value.fee)))?;
    let need = sum(given.outputs.iter().map(cost).chain([Some(input_fees)]))?;
    let (spend, over) = match have.checked_sub(need) {
        Some(over) => (Vec::new(), over),
        None => {
            let missing = need.checked_sub(have).ok_or(ClientError::AmountTooLarge)?;
            let selection = select_notes(available, missing, config.fee_in).map_err(mint_error)?;
            (selection.places, selection.over)
        }
    };
    if spend.len().saturating_add(given.inputs.len()) > MAX_PARTS {
        return Err(ClientError::TooManyNotes);
    }
    let held = held(available, &spend);
    let room = MAX_PARTS.saturating_sub(given.outputs.len());
    let fits = |notes: &Vec<Denomination>| notes.len() <= room;
    // A spread of small notes is a comfort; without room for it the fewest notes do.
    let notes = [DEFAULT_SPREAD, 0]
        .into_iter()
        .find_map(|spread| change(over, config, &held, spread).ok().map(|(notes, _)| notes).filter(fits));
    let change = notes.ok_or(ClientError::TooManyNotes)?;
    if change.is_empty() && given.outputs.is_empty() {
        return Err(ClientError::BelowFees(have));
    }
    let spent = sum(spend.iter().map(|place| available.get(*place).map(|d| d.amount())).chain([Some(have)]))?;
    let outputs = given.outputs.iter().map(|value| value.amount);
    let kept = sum(outputs.chain(change.iter().map(|d| d.amount())).map(Some))?;
    let fees = spent.checked_sub(kept);
    let fees = fees.ok_or_else(|| ClientError::Internal("a transaction was out of balance".to_owned()))?;
    Ok(Balanced { spend, change, fees })
}

/// The same of a transaction that only reissues these of our notes.
///
/// # Errors
/// [`ClientError::BelowFees`] if nothing would come out; [`ClientError::TooManyNotes`].
pub fn reissue(
    config: &MintConfig,
    available: &[Denomination],
    spend: Vec<usize>,
    spread: usize,
) -> Result<Balanced> {
    let spent = sum(spend.iter().map(|place| available.get(*place).map(|d| d.amount())))?;
    let input_fees = sum(spend.iter().map(|_| Some(config.fee_in)))?;
    let over = spent.checked_sub(input_fees).ok_or(ClientError::BelowFees(spent))?;
    let (change, _) = change(over, config, &held(available, &spend), spread).map_err(mint_error)?;
    if change.is_empty() {
        return Err(ClientError::BelowFees(spent));
    }
    let kept = sum(change.iter().map(|d| Some(d.amount())))?;
    let fees = spent.checked_sub(kept);
    let fees = fees.ok_or_else(|| ClientError::Internal("a transaction was out of balance".to_owned()))?;
    Ok(Balanced { spend, change, fees })
}

/// What is left when these are spent.
fn held(available: &[Denomination], spend: &[usize]) -> Held {
    let mut held = Held::new();
    for (place, denomination) in available.iter().enumerate() {
        if spend.binary_search(&place).is_err() {
            let count = held.entry(*denomination).or_default();
            *count = count.saturating_add(1);
        }
    }
    held
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config(fee_in: u64, fee_out: u64) -> MintConfig {
        // The keys play no part here.
        let key = crate::testing::mint_config().denominations.first().unwrap().clone();
        MintConfig {
            denominations: vec![key; 30],
            threshold: 1,
            fee_in: Amount::from_msat(fee_in),
            fee_out: Amount::from_msat(fee_out),
            max_issuance: None,
        }
    }

    fn value(msat: u64, fee: u64) -> Value {
        Value { amount: Amount::from_msat(msat), fee: Amount::from_msat(fee) }
    }

    fn notes(exponents: &[u8]) -> Vec<Denomination> {
        exponents.iter().map(|e| Denomination::new(*e).unwrap()).collect()
    }

    #[test]
    fn too_little_says_how_much() {
        let result = balance(&config(0, 0), &notes(&[3]), &Given { inputs: &[], outputs: &[value(9, 1)] });
        match result {
            Err(ClientError::InsufficientFunds { needed, available }) => {
                assert_eq!((needed.msat(), available.msat()), (10, 8));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_input_below_its_fees_is_refused() {
        let result = balance(&config(1, 1), &[], &Given { inputs: &[value(3, 3)], outputs: &[] });
        assert!(matches!(result, Err(ClientError::BelowFees(_))), "{result:?}");
    }

    #[test]
    fn an_overflow_is_an_error() {
        let outputs = [value(u64::MAX, 0), value(1, 0)];
        let result = balance(&config(0, 0), &[], &Given { inputs: &[], outputs: &outputs });
        assert!(matches!(result, Err(ClientError::AmountTooLarge)));
    }

    proptest! {
        #[test]
        fn every_balance_covers_outputs_and_fees(
            exponents in proptest::collection::vec(0u8..20, 0..60),
            incoming in 0u64..100_000, outgoing in 0u64..200_000,
            fee_in in 0u64..3, fee_out in 0u64..3, fee in 0u64..100,
        ) {
            let config = config(fee_in, fee_out);
            let available = notes(&exponents);
            let (inputs, outputs) = ([value(incoming, fee)], [value(outgoing, fee)]);
            if let Ok(result) = balance(&config, &available, &Given { inputs: &inputs, outputs: &outputs }) {
                let spent: u64 = result.spend.iter().map(|place| available[*place].amount().msat()).sum();
                let change: u64 = result.change.iter().map(|d| d.amount().msat()).sum();
                let fees = 2 * fee + fee_in * result.spend.len() as u64 + fee_out * result.change.len() as u64;
                prop_assert!(incoming + spent >= outgoing + change + fees);
                prop_assert_eq!(result.fees.msat(), incoming + spent - outgoing - change);
                // What is lost beyond the fees is less than the smallest note that is worth it, with its fees.
                prop_assert!(result.fees.msat() - fees <= 4 * (1 + fee_in + fee_out));
            }
        }
    }
}

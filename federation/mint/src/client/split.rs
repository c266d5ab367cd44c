//! Which denominations to ask for.

use std::collections::BTreeMap;

use federation_core::Amount;
use federation_core::transaction::MAX_PARTS;

use crate::{Denomination, MintConfig, MintError};

/// How many notes of each denomination a wallet likes to hold.
pub const DEFAULT_SPREAD: usize = 3;
/// The most notes that are asked for only in order to hold a spread.
const MAX_SPREAD_NOTES: usize = MAX_PARTS / 2;

/// How many notes of each denomination a wallet already holds.
pub type Held = BTreeMap<Denomination, usize>;

/// The fewest notes that are worth exactly `amount`, the smallest first.
///
/// # Errors
/// More notes than a transaction takes.
pub fn represent(amount: Amount, config: &MintConfig) -> Result<Vec<Denomination>, MintError> {
    represent_spread(amount, config, &Held::new(), 0)
}

/// Notes that are worth exactly `amount`: up to `spread` of each denomination (those in `held` counted), the small ones
/// first, and the rest in the fewest notes.
///
/// # Errors
/// More notes than a transaction takes.
pub fn represent_spread(
    amount: Amount,
    config: &MintConfig,
    held: &Held,
    spread: usize,
) -> Result<Vec<Denomination>, MintError> {
    let usable: Vec<_> = config.all().collect();
    Ok(fill(amount.msat(), &usable, 0, held, spread)?.0)
}

/// The notes to ask for with what is left over in a transaction, each costing its amount and `fee_out`; and what remains,
/// too little for a note that is worth more than its own fees, and so lost to the federation.
///
/// # Errors
/// More notes than a transaction takes.
pub fn change(
    budget: Amount,
    config: &MintConfig,
    held: &Held,
    spread: usize,
) -> Result<(Vec<Denomination>, Amount), MintError> {
    // A note that costs more to spend than it is worth would be dust.
    let usable: Vec<_> = config.all().filter(|denomination| denomination.amount() > config.fee_in).collect();
    let (notes, rest) = fill(budget.msat(), &usable, config.fee_out.msat(), held, spread)?;
    Ok((notes, Amount::from_msat(rest)))
}

fn fill(
    budget: u64,
    usable: &[Denomination],
    fee: u64,
    held: &Held,
    spread: usize,
) -> Result<(Vec<Denomination>, u64), MintError> {
    let mut notes = Vec::new();
    let mut rest = budget;
    let cost = |denomination: &Denomination| denomination.amount().msat().saturating_add(fee);
    for denomination in usable {
        let missing = spread.saturating_sub(held.get(denomination).copied().unwrap_or(0));
        for _ in 0..missing {
            if rest < cost(denomination) || notes.len() >= MAX_SPREAD_NOTES {
                break;
            }
            notes.push(*denomination);
            rest -= cost(denomination);
        }
    }
    for denomination in usable.iter().rev() {
        let number = rest / cost(denomination);
        rest -= number * cost(denomination);
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        if notes.len().saturating_add(number) > MAX_PARTS {
            return Err(MintError::TooManyNotes(notes.len().saturating_add(number)));
        }
        notes.extend(std::iter::repeat_n(*denomination, number));
    }
    notes.sort_unstable();
    Ok((notes, rest))
}

//! Choosing notes to spend.

use federation_core::Amount;
use federation_core::transaction::MAX_PARTS;

use crate::{Denomination, MintError};

/// Notes that were chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Their places in the list that was given, in ascending order.
    pub places: Vec<usize>,
    /// What they are worth.
    pub total: Amount,
    /// The fees for spending them.
    pub fee: Amount,
    /// What they bring beyond the target and the fees: the change.
    pub over: Amount,
}

/// How many notes there are of each denomination.
struct Counts([u64; Denomination::COUNT]);

impl Counts {
    fn of(notes: impl Iterator<Item = Denomination>) -> Self {
        let mut counts = [0; Denomination::COUNT];
        for note in notes {
            if let Some(count) = counts.get_mut(usize::from(note.exponent())) {
                *count += 1;
            }
        }
        Self(counts)
    }

    fn total(&self) -> u128 {
        self.0.iter().enumerate().map(|(exponent, count)| u128::from(*count) << exponent).sum()
    }

    fn len(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The notes that come nearest to `limit` from below, the largest first. Each denomination divides the next one, so
    /// this greedy choice is the best there is, and of the sets with its sum the one of the fewest notes.
    fn up_to(&self, limit: u128) -> Self {
        let mut left = limit;
        let mut taken = [0; Denomination::COUNT];
        for (exponent, (have, take)) in self.0.iter().zip(&mut taken).enumerate().rev() {
            // (Bounded by `have`, so the conversion loses nothing.)
            *take = (left >> exponent).min(u128::from(*have)) as u64;
            left -= u128::from(*take) << exponent;
        }
        Self(taken)
    }

    /// The notes that come nearest to `target` from above: whatever may stay behind stays behind.
    fn at_least(&self, target: u128) -> Option<Self> {
        let rest = self.total().checked_sub(target)?;
        Some(self.up_to(self.total() - self.up_to(rest).total()))
    }

    /// Where such notes are in a list.
    fn places(mut self, notes: &[Denomination]) -> Vec<usize> {
        let mut places = Vec::new();
        for (place, note) in notes.iter().enumerate() {
            if let Some(count) = self.0.get_mut(usize::from(note.exponent()))
                && *count > 0
            {
                *count -= 1;
                places.push(place);
            }
        }
        places
    }
}

/// Notes that bring at least `target` after a fee of `fee_in` each, with as little over as possible and, with that, as few
/// notes as possible. Notes that are worth no more than their fee are left alone.
///
/// # Errors
/// [`MintError::Insufficient`]; [`MintError::TooManyNotes`] if it takes more than a transaction holds: consolidate first.
pub fn select_notes(
    available: &[Denomination],
    target: Amount,
    fee_in: Amount,
) -> Result<Selection, MintError> {
    let counts = Counts::of(available.iter().copied().filter(|note| note.amount() > fee_in));
    let (wanted, fee) = (u128::from(target.msat()), u128::from(fee_in.msat()));
    let mut paid_for = 0;
    let chosen = loop {
        let need = wanted + u128::from(paid_for) * fee;
        let Some(chosen) = counts.at_least(need) else {
            let available = counts.total() - u128::from(counts.len()) * fee;
            let available = Amount::from_msat(u64::try_from(available).unwrap_or(u64::MAX));
            return Err(MintError::Insufficient { available, wanted: target });
        };
        if fee == 0 || chosen.len() <= paid_for {
            break chosen;
        }
        paid_for = chosen.len();
    };
    let limit = MAX_PARTS as u64;
    let chosen = if chosen.len() > limit { largest(&counts, wanted, fee, limit)? } else { chosen };
    let (total, fee) = (chosen.total(), u128::from(chosen.len()) * fee);
    let amount = |msat: u128| Amount::from_msat(u64::try_from(msat).unwrap_or(u64::MAX));
    let over = total.saturating_sub(fee).saturating_sub(wanted);
    Ok(Selection {
        places: chosen.places(available),
        total: amount(total),
        fee: amount(fee),
        over: amount(over),
    })
}

/// As few notes as possible, whatever is over.
fn largest(counts: &Counts, target: u128, fee: u128, limit: u64) -> Result<Counts, MintError> {
    let mut chosen = Counts([0; Denomination::COUNT]);
    let (mut sum, mut number) = (0u128, 0u64);
    for (exponent, (have, take)) in counts.0.iter().zip(&mut chosen.0).enumerate().rev() {
        let net = (1u128 << exponent).saturating_sub(fee).max(1);
        let missing = target.saturating_sub(sum).div_ceil(net);
        *take = missing.min(u128::from(*have)) as u64;
        sum += u128::from(*take) * net;
        number += *take;
    }
    if number > limit {
        Err(MintError::TooManyNotes(usize::try_from(number).unwrap_or(usize::MAX)))
    } else {
        Ok(chosen)
    }
}

/// The fewest notes that are worth exactly `amount`, to be handed on without asking the mint; `None` if there are none such
/// (or more than one transaction takes): then reissue first.
pub fn select_exact(available: &[Denomination], amount: Amount) -> Option<Vec<usize>> {
    let chosen = Counts::of(available.iter().copied()).up_to(u128::from(amount.msat()));
    (chosen.total() == u128::from(amount.msat()) && chosen.len() <= MAX_PARTS as u64)
        .then(|| chosen.places(available))
}

//! Which notes a wallet reissues in order to hold fewer, or handier ones.
//!
//! Two things make notes unhandy. Many of one denomination: small notes come in with every payment, and a payment takes a
//! limited number of them. And none of many denominations: then exact change can't be had without the federation.
//!
//! Reissuing costs fees, so it must be worth it ([`MOST_COST`]), and it must come to an end: after each time there are at most
//! half as many of the notes that were reissued, or denominations that were missing are there; and what is there then gives no reason
//! to begin again.

use federation_core::transaction::MAX_PARTS;

use super::split::{DEFAULT_SPREAD, Held, change};
use crate::{Denomination, MintConfig};

/// More notes of one denomination than this are too many.
const MANY: usize = 3 * DEFAULT_SPREAD;
/// So many denominations that there could be notes of, and aren't, are too many.
const MISSING: usize = 5;
/// What new notes may cost, now and when they are spent: one part in so many of what is reissued.
const MOST_COST: u64 = 1000;

/// How many notes of each denomination to reissue now; `None`: all is well, or it isn't worth it.
pub fn consolidation(held: &Held, config: &MintConfig) -> Option<Held> {
    surplus(held, config).or_else(|| refill(held, config))
}

/// The largest notes, as many as one transaction takes, if that makes fewer of them: for a payment that takes too many.
pub fn merge(held: &Held, config: &MintConfig) -> Option<Held> {
    let mut room = MAX_PARTS;
    let mut spend = Held::new();
    for (denomination, count) in held.iter().rev() {
        let count = (*count).min(room);
        if count > 0 && mergeable(*denomination, config) {
            spend.insert(*denomination, count);
            room -= count;
        }
    }
    // Whoever needs it pays for it.
    reissued(&spend, &Held::new(), config, 0).filter(|notes| halves(&spend, notes)).map(|_| spend)
}

/// Whether notes of it can become larger ones, and are worth their fee.
fn mergeable(denomination: Denomination, config: &MintConfig) -> bool {
    denomination.amount() > config.fee_in && config.all().next_back().is_some_and(|top| denomination < top)
}

fn halves(spend: &Held, notes: &[Denomination]) -> bool {
    2 * notes.len() <= spend.values().sum()
}

/// All that is too much of any denomination.
fn surplus(held: &Held, config: &MintConfig) -> Option<Held> {
    let mut room = MAX_PARTS;
    let mut spend = Held::new();
    for (denomination, count) in held {
        if *count > MANY && mergeable(*denomination, config) {
            let surplus = (*count - DEFAULT_SPREAD).min(room);
            room -= surplus;
            if surplus > 0 {
                spend.insert(*denomination, surplus);
            }
        }
    }
    let notes = reissued(&spend, &rest(held, &spend), config, DEFAULT_SPREAD)?;
    (halves(&spend, &notes) && is_worth_it(&spend, &notes, config)).then_some(spend)
}

/// The smallest note that gives enough of what is missing: more denominations each time, so that it ends.
fn refill(held: &Held, config: &MintConfig) -> Option<Held> {
    let there = |denomination: &Denomination| held.get(denomination).is_some_and(|count| *count > 0);
    held.keys().filter(|denomination| there(denomination)).find_map(|denomination| {
        let missing = config.all().filter(|small| small < denomination && small.amount() > config.fee_in);
        let missing: Vec<_> = missing.filter(|small| !there(small)).collect();
        if missing.len() < MISSING {
            return None;
        }
        let spend = Held::from([(*denomination, 1)]);
        let notes = reissued(&spend, &rest(held, &spend), config, DEFAULT_SPREAD)?;
        let gained = missing.iter().filter(|small| notes.contains(small)).count();
        (gained >= MISSING && is_worth_it(&spend, &notes, config)).then_some(spend)
    })
}

fn rest(held: &Held, spend: &Held) -> Held {
    let left = |(denomination, count): (&Denomination, &usize)| {
        (*denomination, count.saturating_sub(spend.get(denomination).copied().unwrap_or(0)))
    };
    held.iter().map(left).collect()
}

fn worth(notes: &Held) -> u64 {
    let worth = |(denomination, count): (&Denomination, &usize)| {
        denomination.amount().msat().saturating_mul(u64::try_from(*count).unwrap_or(u64::MAX))
    };
    notes.iter().map(worth).fold(0, u64::saturating_add)
}

/// What comes out; `None`: nothing.
fn reissued(spend: &Held, rest: &Held, config: &MintConfig, spread: usize) -> Option<Vec<Denomination>> {
    let count = u64::try_from(spend.values().sum::<usize>()).ok()?;
    let fees = config.fee_in.msat().checked_mul(count)?;
    let budget = worth(spend).checked_sub(fees).filter(|budget| *budget > 0)?;
    let budget = federation_core::Amount::from_msat(budget);
    change(budget, config, rest, spread).ok().map(|(notes, _)| notes).filter(|notes| !notes.is_empty())
}

/// Those that are spent would have cost their fee some day; what counts is what the new ones cost.
fn is_worth_it(spend: &Held, notes: &[Denomination], config: &MintConfig) -> bool {
    let each = config.fee_in.msat().saturating_add(config.fee_out.msat());
    let cost = each.saturating_mul(u64::try_from(notes.len()).unwrap_or(u64::MAX));
    cost.saturating_mul(MOST_COST) <= worth(spend)
}

#[cfg(test)]
mod tests {
    use federation_core::Amount;
    use proptest::prelude::*;

    use super::*;
    use crate::MintParams;

    fn config(fee_in: u64, fee_out: u64) -> MintConfig {
        let (fee_in, fee_out) = (Amount::from_msat(fee_in), Amount::from_msat(fee_out));
        let config = crate::tests::config(MintParams { fee_in, fee_out, max_issuance: None });
        // The keys play no part here.
        let key = config.denominations[0].clone();
        MintConfig { denominations: vec![key; 14], ..config }
    }

    fn held(notes: &[(u8, usize)]) -> Held {
        notes.iter().map(|(exponent, count)| (Denomination::new(*exponent).unwrap(), *count)).collect()
    }

    /// What is held afterwards, and what it cost.
    fn apply(before: &Held, spend: &Held, config: &MintConfig, spread: usize) -> (Held, u64) {
        let mut after = rest(before, spend);
        for note in reissued(spend, &after.clone(), config, spread).unwrap() {
            *after.entry(note).or_default() += 1;
        }
        let cost = worth(before) - worth(&after);
        (after, cost)
    }

    #[test]
    fn a_few_notes_are_left_alone() {
        assert_eq!(consolidation(&held(&[]), &config(0, 0)), None);
        let spread: Vec<_> = (0..6).map(|exponent| (exponent, 3)).collect();
        assert_eq!(consolidation(&held(&spread), &config(0, 0)), None);
        assert_eq!(consolidation(&held(&[(0, MANY)]), &config(0, 0)), None);
    }

    #[test]
    fn many_notes_become_few() {
        let many = held(&[(0, 200), (1, 5)]);
        let spend = consolidation(&many, &config(0, 0)).unwrap();
        assert_eq!(spend, held(&[(0, 197)]));
        let (after, cost) = apply(&many, &spend, &config(0, 0), DEFAULT_SPREAD);
        assert_eq!((cost, worth(&after)), (0, 210));
        assert!(after.values().sum::<usize>() < 30);
        // Where it costs more than it brings, no.
        assert_eq!(consolidation(&many, &config(0, 1)), None);
        assert_eq!(consolidation(&many, &config(1, 0)), None);
    }

    #[test]
    fn a_large_note_alone_gives_small_ones() {
        let config = config(0, 0);
        let top = config.denominations.len() as u8 - 1;
        let one = held(&[(0, 0), (top, 2)]);
        let spend = consolidation(&one, &config).unwrap();
        assert_eq!(spend, held(&[(top, 1)]));
        let (after, _) = apply(&one, &spend, &config, DEFAULT_SPREAD);
        assert_eq!(consolidation(&after, &config), None);
        assert!(after.values().filter(|count| **count >= 3).count() >= 5);
    }

    #[test]
    fn what_takes_too_many_notes_is_merged() {
        let many = held(&[(0, 5000), (2, 40)]);
        let spend = merge(&many, &config(0, 0)).unwrap();
        assert_eq!(spend, held(&[(2, 40), (0, MAX_PARTS - 40)]));
        assert_eq!(merge(&held(&[(0, 1), (1, 1)]), &config(0, 0)), None, "nothing to gain");
        assert_eq!(merge(&held(&[(0, 500)]), &config(1, 0)), None, "worth no more than their fees");
    }

    proptest! {
        #[test]
        fn it_comes_to_an_end_at_little_cost(
            counts in proptest::collection::vec(0..300usize, 1..8), fee_in in 0..3u64, fee_out in 0..3u64,
        ) {
            let config = config(fee_in, fee_out);
            let top = config.denominations.len();
            let notes: Vec<_> = (0u8..).zip(counts).take(top).collect();
            let mut now = held(&notes);
            let all = worth(&now);
            let (mut rounds, mut costs, mut fees) = (0, 0, 0);
            while let Some(spend) = consolidation(&now, &config) {
                let count: usize = spend.values().sum();
                prop_assert!(count > 0 && count <= MAX_PARTS);
                prop_assert!(spend.iter().all(|(denomination, count)| now[denomination] >= *count));
                let (after, cost) = apply(&now, &spend, &config, DEFAULT_SPREAD);
                costs += cost;
                fees += count as u64 * fee_in;
                rounds += 1;
                prop_assert!(rounds <= 20, "{:?}", after);
                now = after;
            }
            // Beyond the fees that the notes would have cost anyway: a thousandth each time, and what is too little for a note.
            prop_assert!(costs <= fees + rounds * (all / 1000 + 4 * (1 + fee_in + fee_out)), "{} {} {}", costs, fees, rounds);
            if fee_in == 0 && fee_out == 0 {
                prop_assert_eq!(worth(&now), all);
                let many = now.iter().filter(|(denomination, count)| **count > MANY && mergeable(**denomination, &config));
                prop_assert_eq!(many.count(), 0);
            }
        }
    }
}

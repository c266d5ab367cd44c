//! Deriving, choosing and splitting.

use federation_core::transaction::MAX_PARTS;
use federation_core::{Amount, FederationId};
use proptest::prelude::*;

use super::federation::{ID, config, denomination};
use crate::client::{Deriver, Held, change, represent, represent_spread, select_exact, select_notes};
use crate::{Denomination, MintError, MintParams};

fn msat(msat: u64) -> Amount {
    Amount::from_msat(msat)
}

fn worth(notes: &[Denomination]) -> u64 {
    notes.iter().map(|note| note.amount().msat()).sum()
}

fn notes(exponents: &[u8]) -> Vec<Denomination> {
    exponents.iter().map(|exponent| denomination(*exponent)).collect()
}

#[test]
fn secrets_are_fixed_by_seed_federation_and_number() {
    let secret = |seed, federation, index| {
        let note = Deriver::new(&[seed; 64], FederationId([federation; 32])).note(index);
        (note.key.secret_bytes(), *note.blinding.to_bytes())
    };
    let first = secret(1, 2, 3);
    assert_eq!(first, secret(1, 2, 3));
    for (seed, federation, index) in [(0, 2, 3), (1, 0, 3), (1, 2, 0)] {
        let other = secret(seed, federation, index);
        assert!(first.0 != other.0 && first.1 != other.1);
    }
    // Computed by another program from the formulas alone. A change would lose every wallet's notes.
    let note = Deriver::new(&[1; 64], ID).note(5);
    assert_eq!(hex::encode(note.key.secret_bytes()), KEY);
    assert_eq!(hex::encode(note.blinding.to_bytes()), BLINDING);
}

const KEY: &str = "3efaf9e0283c74d0e57d7369ac46c3676f2a7ed2cc0ade88c6b92396017b213e";
const BLINDING: &str = "01293d36e2b6cdac4a708d076fa008548f92c8511dd8e059ebc1c65bf35c3b4d";

#[test]
fn wishes_that_cannot_be_met() {
    let available = notes(&[0, 3, 9]);
    let short = MintError::Insufficient { available: msat(521), wanted: msat(522) };
    assert_eq!(select_notes(&available, msat(522), Amount::ZERO), Err(short));
    let short = MintError::Insufficient { available: msat(516), wanted: msat(517) };
    assert_eq!(select_notes(&available, msat(517), msat(2)), Err(short));
    let dust = vec![denomination(0); 300];
    assert_eq!(select_notes(&dust, msat(257), Amount::ZERO), Err(MintError::TooManyNotes(257)));
    let many = [dust, notes(&[8, 8])].concat();
    let selection = select_notes(&many, msat(257), Amount::ZERO).unwrap();
    assert_eq!((selection.places.len(), selection.total), (2, msat(257)));
    let config = config(MintParams::default());
    assert!(matches!(represent(msat(u64::MAX), &config), Err(MintError::TooManyNotes(_))));
    assert_eq!(represent(Amount::ZERO, &config).unwrap(), []);
}

/// All sums that go, with the fewest notes for each; the obvious way.
fn best(available: &[Denomination], target: u64, fee: u64) -> Option<(u64, u32)> {
    (0u32..1 << available.len())
        .filter_map(|set| {
            let chosen =
                available.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1).map(|(_, note)| *note);
            let chosen: Vec<_> = chosen.collect();
            let net = worth(&chosen).checked_sub(fee * chosen.len() as u64)?;
            Some((net.checked_sub(target)?, set.count_ones()))
        })
        .min()
}

proptest! {
    #[test]
    fn selection_without_fees_is_the_best_there_is(
        exponents in proptest::collection::vec(0..7u8, 0..10), target in 0..300u64,
    ) {
        let available = notes(&exponents);
        let selection = select_notes(&available, msat(target), Amount::ZERO).ok();
        let found = selection.map(|s| {
            let chosen: Vec<_> = s.places.iter().map(|place| available[*place]).collect();
            assert_eq!(worth(&chosen), s.total.msat());
            assert_eq!(s.total.msat(), target + s.over.msat());
            (s.over.msat(), chosen.len() as u32)
        });
        prop_assert_eq!(found, best(&available, target, 0));
    }

    #[test]
    fn selection_with_fees_covers_them_or_nothing_does(
        exponents in proptest::collection::vec(0..7u8, 0..10), target in 0..300u64, fee in 1..10u64,
    ) {
        let available = notes(&exponents);
        match select_notes(&available, msat(target), msat(fee)) {
            Ok(s) => {
                let chosen: Vec<_> = s.places.iter().map(|place| available[*place]).collect();
                prop_assert_eq!(worth(&chosen), target + s.fee.msat() + s.over.msat());
                prop_assert_eq!(s.fee.msat(), fee * chosen.len() as u64);
                prop_assert!(chosen.iter().all(|note| note.amount().msat() > fee));
            }
            Err(_) => prop_assert_eq!(best(&available, target, fee), None),
        }
    }

    #[test]
    fn exact_change_is_found_if_there_is_any(
        exponents in proptest::collection::vec(0..7u8, 0..10), target in 0..300u64,
    ) {
        let available = notes(&exponents);
        match (select_exact(&available, msat(target)), best(&available, target, 0)) {
            (Some(places), Some((0, fewest))) => {
                let chosen: Vec<_> = places.iter().map(|place| available[*place]).collect();
                prop_assert_eq!(worth(&chosen), target);
                prop_assert_eq!(chosen.len() as u32, fewest);
            }
            (None, other) => prop_assert!(other.is_none_or(|(over, _)| over > 0)),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn splitting_keeps_the_amount(amount in 0..20_000u64, spread in 0..4usize, small in 0..5usize) {
        let config = config(MintParams::default());
        let plain = represent(msat(amount), &config).unwrap();
        prop_assert_eq!(worth(&plain), amount);
        let held = Held::from([(denomination(0), small)]);
        let spread_notes = represent_spread(msat(amount), &config, &held, spread).unwrap();
        prop_assert_eq!(worth(&spread_notes), amount);
        prop_assert!(plain.len() <= spread_notes.len() && spread_notes.len() <= MAX_PARTS);
        prop_assert!(plain.is_sorted() && spread_notes.is_sorted());
    }

    #[test]
    fn change_pays_its_fees_and_leaves_only_dust(
        budget in 0..20_000u64, fee_in in 0..5u64, fee_out in 0..5u64, spread in 0..4usize,
    ) {
        let config = config(MintParams { fee_in: msat(fee_in), fee_out: msat(fee_out), max_issuance: None });
        let (notes, rest) = change(msat(budget), &config, &Held::new(), spread).unwrap();
        prop_assert_eq!(worth(&notes) + fee_out * notes.len() as u64 + rest.msat(), budget);
        let smallest = (fee_in + 1).next_power_of_two();
        prop_assert!(rest.msat() < smallest + fee_out);
        prop_assert!(notes.iter().all(|note| note.amount().msat() > fee_in));
    }
}

#[test]
fn a_spread_holds_some_of_each() {
    let config = config(MintParams::default());
    let notes = represent_spread(msat(1000), &config, &Held::from([(denomination(1), 2)]), 3).unwrap();
    for exponent in 0..7u8 {
        let number = notes.iter().filter(|note| note.exponent() == exponent).count();
        assert!(number >= if exponent == 1 { 1 } else { 3 }, "{notes:?}");
    }
}

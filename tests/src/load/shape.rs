//! What the transactions of a run are like.

use anyhow::{Result, ensure};
use federation_core::transaction::MAX_PARTS;
use federation_mint::Denomination;

/// What the notes of a client are worth together: 2^16 msat, so that 256 notes of it are possible.
const WORTH: u8 = 16;

/// Notes in and out. If there are as many of both, a transaction's outputs are the inputs of the next for ever. Else every second
/// transaction goes the other way, so that a run can go on: then per transaction there are on average (in + out) / 2 of either.
#[derive(Clone, Debug)]
pub struct Shape {
    sides: [Vec<Denomination>; 2],
}

impl Shape {
    /// So many notes in, so many out, worth the same.
    ///
    /// # Errors
    /// Numbers that no transaction may have.
    pub fn new(notes_in: usize, notes_out: usize) -> Result<Self> {
        Ok(Self { sides: [split(notes_in)?, split(notes_out)?] })
    }

    /// What a client holds before its transaction number `turn`.
    pub fn held(&self, turn: usize) -> &[Denomination] {
        let [even, odd] = &self.sides;
        if turn.is_multiple_of(2) { even } else { odd }
    }

    /// Notes in, or out, of a transaction on average.
    pub fn notes(&self) -> f64 {
        self.sides.iter().map(Vec::len).sum::<usize>() as f64 / 2.0
    }

    /// Those of two transactions in a row.
    pub fn both(&self) -> impl Iterator<Item = Denomination> + Clone + '_ {
        self.sides.iter().flatten().copied()
    }

    /// What a client needs, in satoshi.
    pub fn sat() -> u64 {
        (1 << WORTH) / 1000 + 1
    }
}

/// The most even parts.
fn split(notes: usize) -> Result<Vec<Denomination>> {
    ensure!(
        (1..=MAX_PARTS).contains(&notes),
        "{notes} notes: a transaction has 1 to {MAX_PARTS} on each side"
    );
    // `notes` parts: those of the next power of two below, some of them halved.
    let level = notes.ilog2();
    let halved = notes - (1 << level);
    let (large, small) = (u32::from(WORTH) - level, u32::from(WORTH) - level - 1);
    let exponents =
        std::iter::repeat_n(large, (1 << level) - halved).chain(std::iter::repeat_n(small, 2 * halved));
    exponents.map(|exponent| Ok(Denomination::new(u8::try_from(exponent)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_worth_the_same() {
        for notes in 1..=MAX_PARTS {
            let parts = split(notes).unwrap();
            assert_eq!(parts.len(), notes);
            assert_eq!(parts.iter().map(|part| part.amount().msat()).sum::<u64>(), 1 << WORTH);
        }
        assert!(Shape::new(0, 1).is_err() && Shape::new(1, MAX_PARTS + 1).is_err());
    }
}

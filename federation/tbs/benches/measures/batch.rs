//! A batch of notes on one core, against checking them one by one with `bls12_381`.

use crate::fixture::{DENOMINATIONS, Keys, NOTES};
use crate::table::Row;
use crate::turns::{medians, micros};

const TURNS: usize = 15;
/// Of the notes, as many are checked one by one in a turn.
const SAMPLE: usize = 16;

/// The rows.
pub fn measure() -> Result<Vec<Row>, String> {
    let keys = Keys::new()?;
    let notes = keys.notes(NOTES)?;
    let sample = notes.get(..SAMPLE).unwrap_or_default();
    let small = notes.get(..NOTES / 4).unwrap_or_default();
    let mut one_bad = notes.clone();
    if let [first, second, ..] = one_bad.as_mut_slice() {
        first.signature = second.signature;
    }
    let times = medians(
        TURNS,
        &mut [
            Box::new(|| assert!(keys.all_valid(&notes))),
            Box::new(|| assert!(sample.iter().all(|note| keys.reference(note)))),
            Box::new(|| assert!(keys.all_valid(small))),
            Box::new(|| assert!(!keys.all_valid(&one_bad))),
        ],
    );
    let [batch, single, small, one_bad] = times.as_slice() else { return Err("no times".to_owned()) };
    let batch = micros(*batch) / NOTES as f64;
    let single = micros(*single) / SAMPLE as f64;
    Ok(vec![
        Row::at_least(
            format!(
                "a batch of {NOTES} notes of {DENOMINATIONS} denominations, one core, against bls12_381 one by one: faster by"
            ),
            single / batch,
            8.0,
            " ×",
        ),
        Row::info("a note of the batch, from bytes", format!("{batch:.0} µs")),
        Row::info("one by one with bls12_381, from bytes, prepared keys", format!("{single:.0} µs")),
        Row::info(
            format!("a note of a batch of {}", NOTES / 4),
            format!("{:.0} µs", micros(*small) / (NOTES / 4) as f64),
        ),
        Row::info(
            "a note of the batch, if one of them is bad and searched for",
            format!("{:.0} µs", micros(*one_bad) / NOTES as f64),
        ),
    ])
}

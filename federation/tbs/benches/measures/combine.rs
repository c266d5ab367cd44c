//! What a guardian does for the outputs of an epoch, against one signature check.

use std::collections::BTreeMap;

use federation_tbs::{
    BlindedMessage, BlindedSignatureShare, BlindingKey, PublicKey, blind, combine, dkg, sign, threshold,
    verify_blinded_batch,
};

use crate::fixture::{DENOMINATIONS, Keys, NOTES as OUTPUTS, points};
use crate::table::Row;
use crate::turns::{medians, micros};

const GUARDIANS: usize = 4;
const TURNS: usize = 15;
const CHECKS: usize = 16;

/// An output with the shares that others sent, as bytes.
struct Output {
    blinded: BlindedMessage,
    key: PublicKey,
    shares: Vec<(u16, [u8; 48])>,
    decoded: BTreeMap<u16, BlindedSignatureShare>,
}

fn outputs() -> Result<Vec<Output>, String> {
    let rng = &mut rand::thread_rng();
    let guardians = dkg::testing::run(GUARDIANS, DENOMINATIONS, rng).map_err(|error| error.to_string())?;
    let output = |number: usize| {
        let blinded = blind(&number.to_le_bytes(), &BlindingKey::random(rng));
        let key = number % DENOMINATIONS;
        // Any T of them: in turn each is the one that is left out.
        let decoded: BTreeMap<u16, BlindedSignatureShare> = (0..)
            .zip(&guardians)
            .filter(|(index, _)| usize::from(*index) != number % GUARDIANS)
            .filter_map(|(index, guardian)| Some((index, sign(&blinded, &guardian.keys.get(key)?.secret))))
            .collect();
        let shares = decoded.iter().map(|(index, share)| (*index, share.to_bytes())).collect();
        let key = guardians.first()?.keys.get(key)?.public.clone();
        Some(Output { blinded, key, shares, decoded })
    };
    (0..OUTPUTS).map(output).collect::<Option<_>>().ok_or_else(|| "outputs can't be made".to_owned())
}

/// Decodes the shares, where asked to, combines them, and checks all results at once.
fn combine_and_check(outputs: &[Output], decode: bool) -> bool {
    let combined: Vec<_> = outputs
        .iter()
        .filter_map(|output| {
            let shares = if decode {
                let share = |(index, bytes): &(u16, [u8; 48])| {
                    Some((*index, BlindedSignatureShare::from_bytes(bytes).ok()?))
                };
                output.shares.iter().map(share).collect::<Option<_>>()?
            } else {
                output.decoded.clone()
            };
            let signature = combine(&shares, threshold(GUARDIANS)).ok()?;
            Some((output.blinded.clone(), signature, output.key.clone()))
        })
        .collect();
    combined.len() == outputs.len() && verify_blinded_batch(&combined).iter().all(|valid| *valid)
}

/// The rows.
pub fn measure() -> Result<Vec<Row>, String> {
    let outputs = outputs()?;
    let keys = Keys::new()?;
    let note = *keys.notes(1)?.first().ok_or("no note")?;
    let points = points(&note).ok_or("the reference refuses a note")?;
    let times = medians(
        TURNS,
        &mut [
            Box::new(|| assert!(combine_and_check(&outputs, true))),
            Box::new(|| assert!(combine_and_check(&outputs, false))),
            Box::new(|| (0..CHECKS).for_each(|_| assert!(keys.reference_check(&points, note.denomination)))),
        ],
    );
    let [decoded, combined, check] = times.as_slice() else { return Err("no times".to_owned()) };
    let [decoded, combined] = [decoded, combined].map(|time| micros(*time) / OUTPUTS as f64);
    let check = micros(*check) / CHECKS as f64;
    Ok(vec![
        Row::at_most(
            format!(
                "combine and check {OUTPUTS} outputs (n = {GUARDIANS}), an output, shares from bytes, against one bls12_381 check"
            ),
            decoded / check,
            0.2,
            " ×",
        ),
        Row::info("an output, its three shares from bytes", format!("{decoded:.0} µs")),
        Row::info("an output, its shares decoded before", format!("{combined:.0} µs")),
        Row::info(
            "one bls12_381 signature check: its pairings alone, prepared keys",
            format!("{check:.0} µs"),
        ),
    ])
}

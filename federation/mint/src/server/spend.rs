//! Inputs: a note is verified once and spent once.

use bitcoin::secp256k1::XOnlyPublicKey;
use federation_core::db::Namespaced;
use federation_core::module::{ModuleError, Value};
use federation_tbs::{BatchItem, EncodingError, PublicKey, Signature, pool, verify_batch_on_pool};

use super::Mint;
use super::tables::{COUNTS, SPENT, TOTALS};
use crate::{Denomination, MintConfig, NoteInput};

/// Fewer notes than this are not worth a thread to read their points.
const MIN_PIECE: usize = 8;

/// Says that a note's signature is right: it was verified, or n − f guardians have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Good(());

/// Checks the signatures of many notes in one batch.
pub(super) fn verify(
    config: &MintConfig,
    inputs: &[(XOnlyPublicKey, NoteInput)],
) -> Vec<Result<Good, ModuleError>> {
    let read = pool::map_pieces(inputs.iter().collect(), MIN_PIECE, |piece| {
        piece.into_iter().map(|(nonce, note)| read(config, nonce, note)).collect()
    });
    let batch: Vec<BatchItem<'_>> = read
        .iter()
        .flatten()
        .map(|note| BatchItem { message: &note.nonce, signature: &note.signature, key: note.key })
        .collect();
    let mut valid = verify_batch_on_pool(&batch).into_iter();
    let mut verdict = |note: Readable<'_>| {
        let bad = || format!("the federation did not sign this note of {}", note.denomination);
        if valid.next() == Some(true) { Ok(Good(())) } else { Err(ModuleError::refused("bad_note", bad())) }
    };
    read.into_iter().map(|note| note.and_then(&mut verdict)).collect()
}

/// Takes their signatures for right.
pub(super) fn presume(
    config: &MintConfig,
    inputs: &[(XOnlyPublicKey, NoteInput)],
) -> Vec<Result<Good, ModuleError>> {
    let known =
        |denomination| config.keys(denomination).map(|_| Good(())).ok_or_else(|| unknown(denomination));
    inputs.iter().map(|(_, note)| known(note.denomination)).collect()
}

/// A note whose signature is a point, and whose denomination has a key.
struct Readable<'a> {
    nonce: [u8; 32],
    denomination: Denomination,
    signature: Signature,
    key: &'a PublicKey,
}

fn read<'a>(
    config: &'a MintConfig,
    nonce: &XOnlyPublicKey,
    note: &NoteInput,
) -> Result<Readable<'a>, ModuleError> {
    let malformed = |error: EncodingError| ModuleError::refused("malformed", error.to_string());
    let denomination = note.denomination;
    let key = &config.keys(denomination).ok_or_else(|| unknown(denomination))?.public;
    let signature = note.signature.decode().map_err(malformed)?;
    Ok(Readable { nonce: nonce.serialize(), denomination, signature, key })
}

pub(super) fn unknown(denomination: Denomination) -> ModuleError {
    ModuleError::refused("unknown_denomination", format!("the federation has no notes of {denomination}"))
}

impl Mint {
    pub(super) async fn spend(
        &self,
        db: &mut Namespaced<'_>,
        nonce: XOnlyPublicKey,
        denomination: Denomination,
    ) -> Result<Value, ModuleError> {
        let nonce = nonce.serialize();
        if SPENT.contains(db, &nonce).await? {
            return Err(ModuleError::refused("double_spend", "this note was already spent"));
        }
        let mut counts = COUNTS.get(db, &denomination).await?.unwrap_or_default();
        let mut totals = TOTALS.get(db, &()).await?.unwrap_or_default();
        if counts.spent >= counts.issued {
            // Somebody has forged notes, maybe not this one. The federation can't pay out more than it took in.
            tracing::error!(%denomination, "more notes are being spent than were ever issued");
            return Err(ModuleError::refused(
                "more_spent_than_issued",
                format!("all notes of {denomination} that were ever issued are already spent"),
            ));
        }
        counts.spent += 1;
        totals.spent += u128::from(denomination.amount().msat());
        SPENT.put(db, &nonce, &());
        COUNTS.put(db, &denomination, &counts);
        TOTALS.put(db, &(), &totals);
        Ok(Value { amount: denomination.amount(), fee: self.config.fee_in })
    }
}

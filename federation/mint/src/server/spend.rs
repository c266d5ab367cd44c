//! Inputs: a note is verified once and spent once.

use bitcoin::secp256k1::XOnlyPublicKey;
use federation_core::db::Namespaced;
use federation_core::module::{ModuleError, Value};
use federation_tbs::{BatchItem, verify_batch_on_pool};

use super::Mint;
use super::tables::{COUNTS, SPENT, TOTALS};
use crate::{Denomination, MintConfig, NoteInput};

/// Proof that a note's signature is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified(());

/// Checks the signatures of many notes in one batch.
pub(super) fn verify(
    config: &MintConfig,
    inputs: &[(XOnlyPublicKey, NoteInput)],
) -> Vec<Result<Verified, ModuleError>> {
    let inputs: Vec<_> = inputs.iter().map(|(nonce, note)| (nonce.serialize(), note)).collect();
    let batch: Vec<BatchItem<'_>> = inputs
        .iter()
        .filter_map(|(nonce, note)| {
            let key = &config.keys(note.denomination)?.public;
            Some(BatchItem { message: nonce, signature: &note.signature, key })
        })
        .collect();
    let mut valid = verify_batch_on_pool(&batch).into_iter();
    inputs
        .iter()
        .map(|(_, note)| match config.keys(note.denomination) {
            None => Err(unknown(note.denomination)),
            Some(_) if valid.next() == Some(true) => Ok(Verified(())),
            Some(_) => Err(ModuleError::refused(
                "bad_note",
                format!("the federation did not sign this note of {}", note.denomination),
            )),
        })
        .collect()
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

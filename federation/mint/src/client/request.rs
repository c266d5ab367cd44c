//! Asking for notes, and what comes back.

use federation_core::encoding::encode;
use federation_core::{ModuleId, Output};
use federation_tbs::{BatchItem, BlindedMessage, BlindedSignature, Signature, blind, unblind, verify_batch};

use super::{Deriver, Note, NoteSecret};
use crate::{Denomination, MintConfig, MintError, NoteOutput};

/// A note that is being asked for. To be persisted as its number and denomination: the rest derives from the seed.
pub struct NoteRequest {
    /// The number of the note in this wallet and federation.
    pub index: u64,
    /// What it shall be worth.
    pub denomination: Denomination,
    secret: NoteSecret,
    blinded_nonce: BlindedMessage,
}

impl NoteRequest {
    /// Derives and blinds.
    pub fn new(deriver: &Deriver, index: u64, denomination: Denomination) -> Self {
        let secret = deriver.note(index);
        let blinded_nonce = blind(&secret.keypair().x_only_public_key().0.serialize(), &secret.blinding);
        Self { index, denomination, secret, blinded_nonce }
    }

    /// What the mint sees of the nonce; also what a restore looks up.
    pub fn blinded_nonce(&self) -> &BlindedMessage {
        &self.blinded_nonce
    }

    /// The output that asks for it.
    pub fn output(&self, module: ModuleId) -> Output {
        let body = NoteOutput { denomination: self.denomination, blinded_nonce: self.blinded_nonce.clone() };
        Output { module, body: encode(&body) }
    }

    fn nonce(&self) -> [u8; 32] {
        self.secret.keypair().x_only_public_key().0.serialize()
    }

    fn note(&self, signature: Signature) -> Note {
        Note::new(self.denomination, signature, self.secret.key)
    }
}

/// Makes the note out of the outcome of its output.
///
/// # Errors
/// [`MintError::BadSignature`] if it is not the federation's signature: another guardian may have the right one.
pub fn finish(
    request: &NoteRequest,
    outcome: &BlindedSignature,
    config: &MintConfig,
) -> Result<Note, MintError> {
    finish_all(&[(request, outcome)], config).pop().unwrap_or(Err(MintError::BadSignature))
}

/// [`finish`] for many at once, which is much cheaper; a result a request, in order.
pub fn finish_all(
    requests: &[(&NoteRequest, &BlindedSignature)],
    config: &MintConfig,
) -> Vec<Result<Note, MintError>> {
    let unblinded: Vec<_> = requests
        .iter()
        .map(|(request, outcome)| (*request, request.nonce(), unblind(outcome, &request.secret.blinding)))
        .collect();
    let batch: Vec<_> = unblinded
        .iter()
        .filter_map(|(request, nonce, signature)| {
            let key = &config.keys(request.denomination)?.public;
            Some(BatchItem { message: nonce, signature, key })
        })
        .collect();
    let valid = verify_batch(&batch);
    let mut valid = valid.into_iter();
    unblinded
        .into_iter()
        .map(|(request, _, signature)| match config.keys(request.denomination) {
            None => Err(MintError::UnknownDenomination(request.denomination)),
            Some(_) if valid.next() == Some(true) => Ok(request.note(signature)),
            Some(_) => Err(MintError::BadSignature),
        })
        .collect()
}

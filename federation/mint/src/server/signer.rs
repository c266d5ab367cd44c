//! This guardian's own partial signatures, computed once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use federation_core::OutPoint;
use federation_core::db::DbError;
use federation_tbs::pool::map_pieces;
use federation_tbs::{BlindedMessage, BlindedSignatureShare, EncodingError, sign};

use super::blocking;
use super::tables::Pending;
use crate::{Denomination, MintSecret, NoteOutput};

/// Fewer outputs than this are not worth a thread.
const MIN_PIECE: usize = 8;
/// The most outputs that are remembered, some 400 bytes each. Above that all is forgotten and computed again on demand.
const CAPACITY: usize = 32_768;

/// What is known of an output: points that need no second check, and what was signed.
#[derive(Clone)]
struct Known {
    denomination: Denomination,
    blinded: BlindedMessage,
    share: Option<BlindedSignatureShare>,
}

/// Signs, and remembers. An [`OutPoint`] names its output's content for ever (the txid is a hash of it), so an entry can
/// be superfluous but never wrong, whatever became of its transaction.
pub(super) struct Signer {
    secret: Arc<MintSecret>,
    known: Mutex<HashMap<OutPoint, Known>>,
}

fn corrupt(error: EncodingError) -> DbError {
    DbError::Corrupt { table: "pending outputs".to_owned(), reason: error.to_string() }
}

impl Signer {
    pub fn new(secret: MintSecret) -> Self {
        Self { secret: Arc::new(secret), known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<OutPoint, Known>> {
        // Entries are inserted whole, so a panic elsewhere leaves them sound.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, entries: impl IntoIterator<Item = (OutPoint, Known)>) {
        let mut known = self.known();
        for (point, entry) in entries {
            if known.len() >= CAPACITY {
                known.clear();
            }
            known.insert(point, entry);
        }
    }

    /// Keeps the checked point of an output that was just applied, or will be.
    pub fn remember(&self, point: OutPoint, output: &NoteOutput) {
        // Also of what is only tried, so whoever has a note can have any number remembered.
        let mut known = self.known();
        if known.len() >= CAPACITY && !known.contains_key(&point) {
            known.clear();
        }
        known.entry(point).or_insert_with(|| Known {
            denomination: output.denomination,
            blinded: output.blinded_nonce.clone(),
            share: None,
        });
    }

    /// Drops what is finished.
    pub fn forget<'a>(&self, points: impl IntoIterator<Item = &'a OutPoint>) {
        let mut known = self.known();
        for point in points {
            known.remove(point);
        }
    }

    /// The checked point and our own share of an output, as far as they are remembered.
    pub fn recall(&self, point: &OutPoint) -> Option<(BlindedMessage, Option<BlindedSignatureShare>)> {
        self.known().get(point).cloned().map(|known| (known.blinded, known.share))
    }

    /// What an output asks for, as far as it is remembered.
    pub fn content(&self, point: &OutPoint) -> Option<(Denomination, BlindedMessage)> {
        self.known().get(point).map(|known| (known.denomination, known.blinded.clone()))
    }

    /// Signs these outputs, in order.
    pub async fn sign(
        &self,
        outputs: Vec<(OutPoint, Pending)>,
    ) -> Result<Vec<(OutPoint, BlindedSignatureShare)>, DbError> {
        let mut done: HashMap<OutPoint, BlindedSignatureShare> = HashMap::new();
        let mut work: Vec<(OutPoint, Denomination, Result<BlindedMessage, Pending>)> = Vec::new();
        let order: Vec<OutPoint> = outputs.iter().map(|(point, _)| *point).collect();
        {
            let known = self.known();
            for (point, pending) in outputs {
                match known.get(&point) {
                    Some(Known { share: Some(share), .. }) => {
                        done.insert(point, share.clone());
                    }
                    Some(Known { blinded, share: None, .. }) => {
                        work.push((point, pending.denomination, Ok(blinded.clone())));
                    }
                    None => work.push((point, pending.denomination, Err(pending))),
                }
            }
        }
        if !work.is_empty() {
            let secret = Arc::clone(&self.secret);
            let signed = blocking(move || {
                map_pieces(work, MIN_PIECE, |piece| {
                    piece.into_iter().map(|work| sign_one(&secret, work)).collect()
                })
            })
            .await?
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
            for (point, known) in &signed {
                done.extend(known.share.clone().map(|share| (*point, share)));
            }
            self.insert(signed);
        }
        Ok(order.into_iter().filter_map(|point| done.remove(&point).map(|share| (point, share))).collect())
    }
}

fn sign_one(
    secret: &MintSecret,
    (point, denomination, blinded): (OutPoint, Denomination, Result<BlindedMessage, Pending>),
) -> Result<(OutPoint, Known), DbError> {
    let blinded = blinded.or_else(|pending| pending.blinded_nonce.decode().map_err(corrupt))?;
    // An output of a denomination without a key was never accepted.
    let share = secret.shares.get(usize::from(denomination.exponent())).map(|key| sign(&blinded, key));
    Ok((point, Known { denomination, blinded, share }))
}

#[cfg(test)]
mod tests {
    use federation_core::TxId;
    use federation_tbs::{BlindingKey, blind};

    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let signer = Signer::new(MintSecret { shares: Vec::new() });
        let blinded_nonce = blind(b"nonce", &BlindingKey::from_bytes_wide([7; 64]));
        let output = NoteOutput { denomination: Denomination::new(0).unwrap(), blinded_nonce };
        for number in 0..CAPACITY as u64 + 10 {
            let mut txid = [0; 32];
            txid[..8].copy_from_slice(&number.to_be_bytes());
            signer.remember(OutPoint { txid: TxId(txid), index: 0 }, &output);
        }
        assert!(signer.known().len() <= CAPACITY);
    }
}

//! Notes out of the partial signatures that guardians serve as soon as a transaction is accepted, an epoch before the outcome.

use std::collections::BTreeMap;

use federation_core::PeerId;
use federation_tbs::pool::map_pieces;
use federation_tbs::{BlindedSignature, BlindedSignatureShare, combine};
use serde::{Deserialize, Serialize};

use super::{Note, NoteRequest, finish_all};
use crate::combine::{Job, Share, combine_all};
use crate::{MintConfig, MintError, PointBytes};

/// Fewer notes than this are not worth a thread.
const MIN_PIECE: usize = 3;

/// One guardian's answer to `GET shares`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharesAnswer {
    /// Who it is, by its own word.
    pub guardian: PeerId,
    /// Its partial signatures of the outputs that are pending, by index.
    pub shares: BTreeMap<u16, PointBytes>,
    /// The signatures of those that are ready.
    pub outcomes: BTreeMap<u16, PointBytes>,
}

/// What became of a note that was asked for.
#[derive(Debug)]
pub struct Early {
    /// The note, checked: the same that the outcome will make, since there is one signature only.
    pub note: Result<Note, MintError>,
    /// Whose partial signatures were wrong. Those that weren't needed weren't looked at.
    pub wrong: Vec<PeerId>,
}

/// Combines, unblinds and checks, all notes in one batch; a result a request, in order. Only where that fails are the shares
/// looked at one by one: the wrong ones are left out and named, and others used if there are enough.
///
/// The shares are keyed by the guardians that gave them. Takes milliseconds of a core: not for an async thread.
pub fn finish_early(
    asked: &[(&NoteRequest, &BTreeMap<PeerId, PointBytes>)],
    config: &MintConfig,
) -> Vec<Early> {
    let threshold = usize::from(config.threshold);
    let combined = map_pieces(asked.to_vec(), MIN_PIECE, |piece| {
        piece.into_iter().map(|(_, shares)| combine_first(shares, threshold)).collect()
    });
    let mut found: Vec<Option<Note>> = asked.iter().map(|_| None).collect();
    finish_into(&mut found, asked, &combined, config);

    let left: Vec<usize> =
        found.iter().enumerate().filter(|(_, note)| note.is_none()).map(|(place, _)| place).collect();
    let jobs = left.iter().filter_map(|place| asked.get(*place)).map(|(request, shares)| Job {
        denomination: request.denomination,
        blinded: request.blinded_nonce().clone(),
        shares: shares.iter().map(|(peer, share)| (peer.0, Share::Encoded(*share))).collect(),
    });
    let jobs: Vec<Job> = jobs.collect();
    let singly = if jobs.is_empty() { Vec::new() } else { combine_all(config, jobs) };
    let mut wrong: BTreeMap<usize, Vec<PeerId>> = BTreeMap::new();
    let mut combined: Vec<Option<BlindedSignature>> = asked.iter().map(|_| None).collect();
    for (place, result) in left.into_iter().zip(singly) {
        wrong.insert(place, result.bad.into_iter().map(PeerId).collect());
        if let Some(combined) = combined.get_mut(place) {
            *combined = result.signature;
        }
    }
    finish_into(&mut found, asked, &combined, config);

    let results = found.into_iter().zip(asked).enumerate().map(|(place, (note, (request, shares)))| {
        let wrong = wrong.remove(&place).unwrap_or_default();
        let note = note.ok_or_else(|| match config.keys(request.denomination) {
            None => MintError::UnknownDenomination(request.denomination),
            Some(_) => {
                MintError::NotEnoughShares { have: shares.len().saturating_sub(wrong.len()), need: threshold }
            }
        });
        Early { note, wrong }
    });
    results.collect()
}

/// Of the first T shares, checked to be points of the group only.
fn combine_first(shares: &BTreeMap<PeerId, PointBytes>, threshold: usize) -> Option<BlindedSignature> {
    let decoded: Option<BTreeMap<u16, BlindedSignatureShare>> =
        shares.iter().take(threshold).map(|(peer, share)| Some((peer.0, share.decode().ok()?))).collect();
    combine(&decoded?, threshold).ok()
}

/// Unblinds and checks what was combined.
fn finish_into(
    found: &mut [Option<Note>],
    asked: &[(&NoteRequest, &BTreeMap<PeerId, PointBytes>)],
    combined: &[Option<BlindedSignature>],
    config: &MintConfig,
) {
    let (mut places, mut pairs) = (Vec::new(), Vec::new());
    for (place, ((request, _), signature)) in asked.iter().zip(combined).enumerate() {
        if let Some(signature) = signature {
            places.push(place);
            pairs.push((*request, signature));
        }
    }
    for (place, note) in places.into_iter().zip(finish_all(&pairs, config)) {
        if let (Some(found), Ok(note)) = (found.get_mut(place), note) {
            *found = Some(note);
        }
    }
}

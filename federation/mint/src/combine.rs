//! Partial signatures become signatures, and wrong ones get a name.

use std::collections::BTreeMap;

use federation_tbs::pool::map_pieces;
use federation_tbs::{
    BlindedMessage, BlindedSignature, BlindedSignatureShare, combine, verify_blinded_batch_on_pool,
    verify_share,
};

use crate::{Denomination, MintConfig, PointBytes};

/// Fewer outputs than this are not worth a thread: to decode and combine their shares.
const MIN_PIECE: usize = 3;

/// A partial signature, decoded or not yet.
#[derive(Clone)]
pub(crate) enum Share {
    Decoded(BlindedSignatureShare),
    Encoded(PointBytes),
}

/// An output with what was signed for it.
pub(crate) struct Job {
    pub denomination: Denomination,
    pub blinded: BlindedMessage,
    /// By guardian.
    pub shares: BTreeMap<u16, Share>,
}

/// What became of a [`Job`].
#[derive(Default)]
pub(crate) struct Combined {
    /// Checked. `None`: too few right shares.
    pub signature: Option<BlindedSignature>,
    /// The guardians whose shares were wrong. Shares that weren't needed weren't looked at.
    pub bad: Vec<u16>,
}

/// Combines and checks, in order. The result is a function of its arguments alone: of more shares than are needed those of
/// the lowest guardians are used, so that all guardians find the same ones wrong.
pub(crate) fn combine_all(config: &MintConfig, jobs: Vec<Job>) -> Vec<Combined> {
    let mut results: Vec<Combined> = jobs.iter().map(|_| Combined::default()).collect();
    let mut open: Vec<(usize, Job)> = jobs.into_iter().enumerate().collect();
    // Each round but the last takes at least one share away from each output that is still open.
    while !open.is_empty() {
        let attempts = map_pieces(std::mem::take(&mut open), MIN_PIECE, |piece| {
            piece.into_iter().map(|(place, job)| (place, attempt(config, job))).collect()
        });
        let mut checking = Vec::with_capacity(attempts.len());
        for (place, (attempt, undecodable)) in attempts {
            let Some(result) = results.get_mut(place) else { continue };
            result.bad.extend(undecodable);
            checking.extend(attempt.map(|attempt| (place, attempt)));
        }
        for (place, attempt, guilty) in check(config, checking) {
            let Some(result) = results.get_mut(place) else { continue };
            match guilty {
                None => result.signature = attempt.signature,
                // (A wrong result of right shares would be a wrong configuration: left pending.)
                Some(guilty) if guilty.is_empty() => {}
                Some(guilty) => {
                    let mut job = attempt.job;
                    job.shares.retain(|guardian, _| !guilty.contains(guardian));
                    result.bad.extend(guilty);
                    open.push((place, job));
                }
            }
        }
    }
    results
}

/// One try at an output.
struct Attempt {
    job: Job,
    used: BTreeMap<u16, BlindedSignatureShare>,
    signature: Option<BlindedSignature>,
}

/// Checks what was combined. Where it is wrong, it comes with the guardians whose shares were.
fn check(config: &MintConfig, attempts: Vec<(usize, Attempt)>) -> Vec<(usize, Attempt, Option<Vec<u16>>)> {
    let checks: Vec<_> = attempts
        .iter()
        .filter_map(|(_, attempt)| {
            let key = &config.keys(attempt.job.denomination)?.public;
            Some((attempt.job.blinded.clone(), attempt.signature.clone()?, key.clone()))
        })
        .collect();
    let mut valid = verify_blinded_batch_on_pool(&checks).into_iter();
    attempts
        .into_iter()
        .map(|(place, attempt)| {
            let right = attempt.signature.is_some() && valid.next() == Some(true);
            let guilty = (!right).then(|| guilty(config, &attempt));
            (place, attempt, guilty)
        })
        .collect()
}

/// Takes the first T shares that decode, if there are as many; and names the guardians of those that don't.
fn attempt(config: &MintConfig, mut job: Job) -> (Option<Attempt>, Vec<u16>) {
    let mut undecodable = Vec::new();
    if config.keys(job.denomination).is_none() {
        return (None, undecodable);
    }
    let threshold = usize::from(config.threshold);
    let mut used = BTreeMap::new();
    for (guardian, share) in &mut job.shares {
        if used.len() == threshold {
            break;
        }
        let decoded = match share {
            Share::Decoded(share) => Ok(share.clone()),
            Share::Encoded(bytes) => bytes.decode(),
        };
        match decoded {
            Ok(point) => {
                *share = Share::Decoded(point.clone());
                used.insert(*guardian, point);
            }
            Err(_) => undecodable.push(*guardian),
        }
    }
    job.shares.retain(|guardian, _| !undecodable.contains(guardian));
    // Shares that cancel out combine to an error: at least one is wrong.
    let attempt = (used.len() == threshold).then(|| {
        let signature = combine(&used, threshold).ok();
        Attempt { job, used, signature }
    });
    (attempt, undecodable)
}

fn guilty(config: &MintConfig, attempt: &Attempt) -> Vec<u16> {
    let Some(keys) = config.keys(attempt.job.denomination) else { return Vec::new() };
    let wrong = |guardian: &u16, share| {
        keys.shares
            .get(usize::from(*guardian))
            .is_none_or(|key| !verify_share(&attempt.job.blinded, share, key))
    };
    attempt
        .used
        .iter()
        .filter(|(guardian, share)| wrong(guardian, share))
        .map(|(guardian, _)| *guardian)
        .collect()
}

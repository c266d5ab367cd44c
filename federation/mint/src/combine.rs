//! Partial signatures become signatures, and wrong ones get a name.

use std::collections::BTreeMap;

use federation_tbs::{
    BlindedMessage, BlindedSignature, BlindedSignatureShare, combine, verify_blinded_batch, verify_share,
};

use crate::{Denomination, MintConfig, PointBytes, parallel};

/// Fewer outputs than this are not worth a thread.
const MIN_PIECE: usize = 16;

/// A partial signature, decoded or not yet.
#[derive(Clone)]
pub(crate) enum Share {
    Decoded(BlindedSignatureShare),
    #[cfg_attr(not(feature = "server"), allow(dead_code))]
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
    parallel::map_pieces(jobs, MIN_PIECE, |piece| combine_piece(config, piece))
}

/// One try at an output.
struct Attempt {
    place: usize,
    job: Job,
    used: BTreeMap<u16, BlindedSignatureShare>,
    signature: Option<BlindedSignature>,
}

fn combine_piece(config: &MintConfig, jobs: Vec<Job>) -> Vec<Combined> {
    let mut results: Vec<Combined> = jobs.iter().map(|_| Combined::default()).collect();
    let mut open: Vec<(usize, Job)> = jobs.into_iter().enumerate().collect();
    // Each round but the last takes at least one share away from each output that is still open.
    while !open.is_empty() {
        let attempts: Vec<Attempt> = open
            .drain(..)
            .filter_map(|(place, job)| attempt(config, place, job, &mut results.get_mut(place)?.bad))
            .collect();
        let checks: Vec<_> = attempts
            .iter()
            .filter_map(|a| {
                let key = &config.keys(a.job.denomination)?.public;
                Some((a.job.blinded.clone(), a.signature.clone()?, key.clone()))
            })
            .collect();
        let mut valid = verify_blinded_batch(&checks).into_iter();
        for mut attempt in attempts {
            let Some(result) = results.get_mut(attempt.place) else { continue };
            if attempt.signature.is_some() && valid.next() == Some(true) {
                result.signature = attempt.signature;
                continue;
            }
            let guilty = guilty(config, &attempt);
            // (A wrong result of right shares would be a wrong configuration: left pending.)
            if !guilty.is_empty() {
                attempt.job.shares.retain(|guardian, _| !guilty.contains(guardian));
                result.bad.extend(guilty);
                open.push((attempt.place, attempt.job));
            }
        }
    }
    results
}

/// Takes the first T shares that decode; `None` if there are not as many.
fn attempt(config: &MintConfig, place: usize, mut job: Job, bad: &mut Vec<u16>) -> Option<Attempt> {
    config.keys(job.denomination)?;
    let threshold = usize::from(config.threshold);
    let mut used = BTreeMap::new();
    let mut undecodable = Vec::new();
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
    bad.extend(undecodable);
    // Shares that cancel out combine to an error: at least one is wrong.
    (used.len() == threshold).then(|| {
        let signature = combine(&used, threshold).ok();
        Attempt { place, job, used, signature }
    })
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

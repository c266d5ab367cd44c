//! The end of an epoch: outputs with enough partial signatures get their signature.

use std::collections::BTreeMap;
use std::sync::Arc;

use federation_core::db::{DbError, Namespaced};
use federation_core::{OutPoint, PeerId};

use super::ahead::Shares;
use super::tables::{FAULTS, OUTCOMES, PENDING, Pending, SHARES, ShareState};
use super::{Mint, blocking};
use crate::PointBytes;
use crate::combine::{Combined, Job, Share, combine_all};

/// The guardians' parts in one output.
type Parts = BTreeMap<PeerId, ShareState>;

impl Mint {
    pub(super) async fn finish_outputs(&self, db: &mut Namespaced<'_>) -> Result<(), DbError> {
        let mut outputs: BTreeMap<OutPoint, Parts> = BTreeMap::new();
        // Small: what is signed by enough guardians is finished here and now.
        for ((point, peer), state) in SHARES.all(db).await? {
            outputs.entry(point).or_default().insert(peer, state);
        }
        let threshold = usize::from(self.config.threshold);
        let sent = |parts: &Parts| parts.values().filter(|s| matches!(s, ShareState::Sent(_))).count();
        outputs.retain(|_, parts| sent(parts) >= threshold);
        if outputs.is_empty() {
            return Ok(());
        }
        let points: Vec<OutPoint> = outputs.keys().copied().collect();
        let pending = PENDING.get_many(db, &points).await?;
        let mut jobs = Vec::with_capacity(points.len());
        let mut finishing = Vec::with_capacity(points.len());
        let mut ready = Vec::new();
        for ((point, parts), pending) in outputs.into_iter().zip(pending) {
            // (Shares are kept for pending outputs only.)
            let Some(pending) = pending else { continue };
            if let Some(signature) = self.ahead.signature(&point, &first(&parts, threshold)) {
                ready.push((point, parts, signature));
                continue;
            }
            jobs.push(self.job(&point, &pending, &parts));
            finishing.push((point, parts));
        }
        for (point, parts, signature) in ready {
            self.finish(db, point, &parts, signature);
        }
        if jobs.is_empty() {
            return Ok(());
        }
        let config = Arc::clone(&self.config);
        let combined = blocking(move || {
            let jobs = jobs.into_iter().map(Decoding::finish).collect::<Result<Vec<_>, _>>()?;
            Ok::<_, DbError>(combine_all(&config, jobs))
        })
        .await??;
        for ((point, parts), result) in finishing.iter().zip(combined) {
            self.write(db, *point, parts, result).await?;
        }
        Ok(())
    }

    async fn write(
        &self,
        db: &mut Namespaced<'_>,
        point: OutPoint,
        parts: &Parts,
        result: Combined,
    ) -> Result<(), DbError> {
        for guardian in result.bad.into_iter().map(PeerId) {
            tracing::warn!(%guardian, %point, "a guardian sent a wrong partial signature");
            let faults = FAULTS.get(db, &guardian).await?.unwrap_or_default();
            FAULTS.put(db, &guardian, &faults.saturating_add(1));
            SHARES.put(db, &(point, guardian), &ShareState::Wrong);
        }
        if let Some(signature) = result.signature {
            self.finish(db, point, parts, PointBytes(signature.to_bytes()));
        }
        Ok(())
    }

    fn finish(&self, db: &mut Namespaced<'_>, point: OutPoint, parts: &Parts, signature: PointBytes) {
        OUTCOMES.put(db, &point, &signature);
        PENDING.delete(db, &point);
        for peer in parts.keys() {
            SHARES.delete(db, &(point, *peer));
        }
        self.signer.forget([&point]);
        self.ahead.forget(&point);
        self.early.finished(point, signature);
    }

    fn job(&self, point: &OutPoint, pending: &Pending, parts: &Parts) -> Decoding {
        let (blinded, own) = self.signer.recall(point).unzip();
        let own = own.flatten();
        let own_bytes = own.as_ref().map(|share| PointBytes(share.to_bytes()));
        let shares = parts
            .iter()
            .filter_map(|(peer, state)| {
                match state {
                    // Our own needs no second check, if it is what we would say.
                    ShareState::Sent(bytes) if own_bytes.as_ref() == Some(bytes) => {
                        own.clone().map(Share::Decoded)
                    }
                    ShareState::Sent(bytes) => Some(Share::Encoded(*bytes)),
                    ShareState::Wrong => None,
                }
                .map(|share| (peer.0, share))
            })
            .collect();
        Decoding { pending: pending.clone(), blinded, shares }
    }
}

/// The shares that are used, if all are right.
fn first(parts: &Parts, threshold: usize) -> Shares {
    let sent = parts.iter().filter_map(|(peer, state)| match state {
        ShareState::Sent(bytes) => Some((peer.0, *bytes)),
        ShareState::Wrong => None,
    });
    sent.take(threshold).collect()
}

/// A [`Job`] whose message may have to be decoded, on the blocking thread.
struct Decoding {
    pending: Pending,
    blinded: Option<federation_tbs::BlindedMessage>,
    shares: BTreeMap<u16, Share>,
}

impl Decoding {
    fn finish(self) -> Result<Job, DbError> {
        let blinded = match self.blinded {
            Some(blinded) => blinded,
            None => self.pending.blinded_nonce.decode().map_err(|error| DbError::Corrupt {
                table: "pending outputs".to_owned(),
                reason: error.to_string(),
            })?,
        };
        Ok(Job { denomination: self.pending.denomination, blinded, shares: self.shares })
    }
}

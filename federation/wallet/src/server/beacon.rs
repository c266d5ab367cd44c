//! The randomness beacon's items: shares for the epoch that is over, combined and verified.
//!
//! Nobody opens an epoch for it. A share for epoch e comes in a later one, when e's content is fixed; once T are there the
//! beacon is combined and checked as a whole; only if that fails, the guilty share is looked for. Curve arithmetic runs on the
//! blocking pool, and begins with the last share that is needed: while the epoch's transactions are applied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use federation_core::PeerId;
use federation_core::db::{DbError, Namespaced, Reader};
use federation_core::module::{Epoch, ModuleError};
use federation_tbs::{
    PublicKey, PublicKeyShare, SignatureShare, combine_message, sign_message, verify_message,
    verify_message_share,
};
use tokio::task::JoinHandle;
use tracing::warn;

use super::Wallet;
use super::ahead::Found;
use super::tables::{BEACON, Beacon, EPOCH, SHARES};
use crate::beacon::message;
use crate::body::{Item, ShareBytes};

/// For how many epochs an incomplete beacon is kept.
pub(super) const KEPT: u64 = 4;

/// Shares of one beacon, by guardian.
pub(super) type Shares = BTreeMap<u16, ShareBytes>;

/// What was computed ahead.
#[derive(Default)]
pub(super) struct Ahead(Mutex<Work>);

#[derive(Default)]
pub(super) struct Work {
    /// Our share of an epoch's beacon.
    own: Option<(u64, ShareBytes)>,
    /// The shares of an epoch's beacon that have come, as long as they are too few.
    coming: (u64, Shares),
    /// An epoch's beacon from exactly T shares.
    combining: Option<(u64, Shares, JoinHandle<Combined>)>,
    /// What was combined before its epoch was applied.
    pub found: Found,
}

impl Ahead {
    pub fn work(&self) -> MutexGuard<'_, Work> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, DbError> {
    joined(tokio::task::spawn_blocking(work)).await
}

async fn joined<T>(work: JoinHandle<T>) -> Result<T, DbError> {
    work.await.map_err(|error| DbError::Engine(format!("a computation of the beacon was cut off: {error}")))
}

impl Wallet {
    /// Our share for the last epoch, if it isn't there yet.
    pub(super) async fn propose_beacon(&self, db: &dyn Reader) -> Result<Option<Item>, DbError> {
        let Some(epoch) = EPOCH.get(db, &()).await? else { return Ok(None) };
        let known = BEACON.get(db, &()).await?.is_some_and(|beacon| beacon.epoch >= epoch);
        if known || SHARES.contains(db, &(epoch, self.us)).await? {
            return Ok(None);
        }
        let signed = self.ahead.work().own.filter(|(of, _)| *of == epoch);
        let share = match signed {
            Some((_, share)) => share,
            None => {
                let (message, key) = (message(self.federation, epoch), self.secret.beacon.clone());
                let share = blocking(move || sign_message(&message, &key).to_bytes()).await?;
                self.ahead.work().own = Some((epoch, share));
                share
            }
        };
        Ok(Some(Item::BeaconShare { epoch, share }))
    }

    /// Records a share.
    pub(super) async fn apply_share(
        &self,
        db: &mut Namespaced<'_>,
        now: Epoch,
        from: PeerId,
        epoch: u64,
        share: ShareBytes,
    ) -> Result<(), ModuleError> {
        if epoch >= now.number {
            return Err(ModuleError::refused("early_share", "a beacon share for an epoch that is not over"));
        }
        let newest = BEACON.get(db, &()).await?.map(|beacon| beacon.epoch);
        // Late ones are no fault: their sender was behind.
        if newest.is_some_and(|newest| epoch <= newest) || epoch.saturating_add(KEPT) < now.number {
            return Ok(());
        }
        SHARES.put(db, &(epoch, from), &share);
        self.begin_to_combine(from, epoch, share);
        Ok(())
    }

    /// Starts to combine when T shares have come since the start of this epoch. It may turn out that others were to be used:
    /// then it was in vain.
    fn begin_to_combine(&self, from: PeerId, epoch: u64, share: ShareBytes) {
        let mut work = self.ahead.work();
        if work.coming.0 != epoch {
            work.coming = (epoch, Shares::new());
        }
        work.coming.1.insert(from.0, share);
        if work.coming.1.len() == usize::from(self.config.threshold) {
            let shares = work.coming.1.clone();
            if work.found.get(epoch, &shares).is_some() {
                return;
            }
            let task = tokio::task::spawn_blocking(self.combination(epoch, shares.clone()));
            work.combining = Some((epoch, shares, task));
        }
    }

    fn combination(&self, epoch: u64, shares: Shares) -> impl FnOnce() -> Combined + Send + use<> {
        let (message, threshold) = (message(self.federation, epoch), usize::from(self.config.threshold));
        let (key, keys) = (self.config.beacon.clone(), self.config.beacon_shares.clone());
        move || combine(&message, &shares, threshold, &key, &keys)
    }

    /// Combines these shares, or takes what was made of those that are used.
    async fn combined(&self, epoch: u64, shares: &Shares) -> Result<Combined, DbError> {
        let used: Shares =
            shares.iter().take(usize::from(self.config.threshold)).map(|(k, v)| (*k, *v)).collect();
        let begun = {
            let mut work = self.ahead.work();
            if let Some(signature) = work.found.get(epoch, &used) {
                return Ok(Combined { signature: Some(signature), wrong: BTreeSet::new() });
            }
            work.combining.take()
        };
        if let Some((_, _, task)) = begun.filter(|(of, with, _)| *of == epoch && *with == used) {
            let combined = joined(task).await?;
            if combined.signature.is_some() {
                return Ok(combined);
            }
        }
        blocking(self.combination(epoch, shares.clone())).await
    }

    /// Combines the newest beacon that has enough shares.
    pub(super) async fn finish_beacon(&self, db: &mut Namespaced<'_>, now: Epoch) -> Result<(), DbError> {
        EPOCH.put(db, &(), &now.number);
        let mut epochs: BTreeMap<u64, Shares> = BTreeMap::new();
        for ((epoch, peer), share) in SHARES.all(db).await? {
            epochs.entry(epoch).or_default().insert(peer.0, share);
        }
        let mut done = now.number.checked_sub(KEPT);
        for (epoch, shares) in epochs.iter().rev() {
            if shares.len() < usize::from(self.config.threshold) {
                continue;
            }
            let Combined { signature, wrong } = self.combined(*epoch, shares).await?;
            for peer in wrong {
                warn!("guardian {peer} sent a false share of the beacon of epoch {epoch}");
                SHARES.delete(db, &(*epoch, PeerId(peer)));
            }
            if let Some(signature) = signature {
                BEACON.put(db, &(), &Beacon { epoch: *epoch, signature });
                done = Some(*epoch);
                break;
            }
        }
        {
            let mut work = self.ahead.work();
            work.coming.1.clear();
            done.into_iter().for_each(|done| work.found.forget(done));
        }
        for (epoch, shares) in epochs.iter().filter(|(epoch, _)| done.is_some_and(|done| **epoch <= done)) {
            for peer in shares.keys() {
                SHARES.delete(db, &(*epoch, PeerId(*peer)));
            }
        }
        Ok(())
    }
}

/// What came of some shares.
struct Combined {
    /// Checked, here or by n - f others.
    signature: Option<ShareBytes>,
    /// Whose shares are false, as far as that was looked at.
    wrong: BTreeSet<u16>,
}

/// Combines the first `threshold` shares, or those that are right. At most two tries: the second time, all shares are right. Not
/// one try an epoch, or a guardian that sends its false share again in each would keep the beacon away.
fn combine(
    message: &[u8],
    shares: &Shares,
    threshold: usize,
    key: &PublicKey,
    keys: &[PublicKeyShare],
) -> Combined {
    let attempt = |shares: &BTreeMap<u16, SignatureShare>| {
        let signature = combine_message(shares, threshold).ok();
        signature.filter(|signature| verify_message(message, signature, key)).map(|found| found.to_bytes())
    };
    let first: Option<BTreeMap<u16, SignatureShare>> = shares
        .iter()
        .take(threshold)
        .map(|(peer, share)| Some((*peer, SignatureShare::from_bytes(share).ok()?)))
        .collect();
    if let Some(signature) = first.and_then(|shares| attempt(&shares)) {
        return Combined { signature: Some(signature), wrong: BTreeSet::new() };
    }
    let right: BTreeMap<u16, SignatureShare> = shares
        .iter()
        .filter_map(|(peer, share)| {
            let share = SignatureShare::from_bytes(share).ok()?;
            let key = keys.get(usize::from(*peer))?;
            verify_message_share(message, &share, key).then_some((*peer, share))
        })
        .collect();
    let wrong = shares.keys().filter(|peer| !right.contains_key(peer)).copied().collect();
    Combined { signature: attempt(&right), wrong }
}

//! The randomness beacon's items: shares for the epoch that is over, combined and verified.
//!
//! Nobody opens an epoch for it. A share for epoch e comes in a later one, when e's content is fixed; once T are there the
//! beacon is combined and checked as a whole; only if that fails, the guilty share is looked for.

use std::collections::BTreeMap;

use federation_core::PeerId;
use federation_core::db::{DbError, Namespaced, Reader};
use federation_core::module::{Epoch, ModuleError};
use federation_tbs::{SignatureShare, combine_message, sign_message, verify_message, verify_message_share};
use tracing::warn;

use super::Wallet;
use super::tables::{BEACON, Beacon, EPOCH, SHARES};
use crate::beacon::message;
use crate::body::Item;

/// For how many epochs an incomplete beacon is kept.
const KEPT: u64 = 4;

impl Wallet {
    /// Our share for the last epoch, if it isn't there yet.
    pub(super) async fn propose_beacon(&self, db: &dyn Reader) -> Result<Option<Item>, DbError> {
        let Some(epoch) = EPOCH.get(db, &()).await? else { return Ok(None) };
        let known = BEACON.get(db, &()).await?.is_some_and(|beacon| beacon.epoch >= epoch);
        if known || SHARES.contains(db, &(epoch, self.us)).await? {
            return Ok(None);
        }
        let share = sign_message(&message(self.federation, epoch), &self.secret.beacon);
        Ok(Some(Item::BeaconShare { epoch, share }))
    }

    /// Records a share.
    pub(super) async fn apply_share(
        &self,
        db: &mut Namespaced<'_>,
        now: Epoch,
        from: PeerId,
        epoch: u64,
        share: &SignatureShare,
    ) -> Result<(), ModuleError> {
        if epoch >= now.number {
            return Err(ModuleError::refused("early_share", "a beacon share for an epoch that is not over"));
        }
        let newest = BEACON.get(db, &()).await?.map(|beacon| beacon.epoch);
        // Late ones are no fault: their sender was behind.
        if newest.is_some_and(|newest| epoch <= newest) || epoch.saturating_add(KEPT) < now.number {
            return Ok(());
        }
        SHARES.put(db, &(epoch, from), share);
        Ok(())
    }

    /// Combines the newest beacon that has enough shares.
    pub(super) async fn finish_beacon(&self, db: &mut Namespaced<'_>, now: Epoch) -> Result<(), DbError> {
        EPOCH.put(db, &(), &now.number);
        let mut epochs: BTreeMap<u64, BTreeMap<u16, SignatureShare>> = BTreeMap::new();
        for ((epoch, peer), share) in SHARES.all(db).await? {
            epochs.entry(epoch).or_default().insert(peer.0, share);
        }
        let threshold = usize::from(self.config.threshold);
        let mut done = now.number.checked_sub(KEPT);
        for (epoch, shares) in epochs.iter_mut().rev() {
            let message = message(self.federation, *epoch);
            let mut signature = None;
            // At most twice: the second time, all shares are right. Not one try an epoch, or a guardian that sends its
            // false share again in each would keep the beacon away.
            while signature.is_none() && shares.len() >= threshold {
                signature = combine_message(shares, threshold)
                    .ok()
                    .filter(|signature| verify_message(&message, signature, &self.config.beacon));
                if signature.is_some() {
                    break;
                }
                let before = shares.len();
                shares.retain(|peer, share| {
                    let key = self.config.beacon_shares.get(usize::from(*peer));
                    let right = key.is_some_and(|key| verify_message_share(&message, share, key));
                    if !right {
                        warn!("guardian {peer} sent a false share of the beacon of epoch {epoch}");
                        SHARES.delete(db, &(*epoch, PeerId(*peer)));
                    }
                    right
                });
                if shares.len() == before {
                    break;
                }
            }
            if let Some(signature) = signature {
                BEACON.put(db, &(), &Beacon { epoch: *epoch, signature });
                done = Some(*epoch);
                break;
            }
        }
        for (epoch, shares) in epochs.iter().filter(|(epoch, _)| done.is_some_and(|done| **epoch <= done)) {
            for peer in shares.keys() {
                SHARES.delete(db, &(*epoch, PeerId(*peer)));
            }
        }
        Ok(())
    }
}

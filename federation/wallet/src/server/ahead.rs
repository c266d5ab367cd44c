//! Beacons that are combined before their epochs are applied: those of several epochs are checked with two pairings, or with
//! none where it is known to what state the epochs lead: a wrong one would lead to another.

use std::collections::BTreeMap;

use federation_core::PeerId;
use federation_core::module::Trust;
use federation_tbs::{SignatureShare, combine_message, combine_presumed, verify_messages};

use super::Wallet;
use super::beacon::{KEPT, Shares};
use crate::beacon::message;
use crate::body::{Item, ShareBytes};

/// The most beacons that are remembered; the newest of them.
const CAPACITY: usize = 128;

/// Beacons by epoch, with exactly the shares that they are from. Right for ever, whatever the state, if they were checked.
#[derive(Default)]
pub(super) struct Found(BTreeMap<u64, (Shares, ShareBytes)>);

impl Found {
    /// The beacon of an epoch, if it was combined from these shares.
    pub fn get(&self, epoch: u64, used: &Shares) -> Option<ShareBytes> {
        self.0.get(&epoch).filter(|(with, _)| with == used).map(|(_, signature)| *signature)
    }

    /// Drops all.
    pub fn forget_all(&mut self) {
        self.0.clear();
    }

    /// Drops those up to `epoch`.
    pub fn forget(&mut self, epoch: u64) {
        self.0 = self.0.split_off(&epoch.saturating_add(1));
    }

    fn remember(&mut self, epoch: u64, used: Shares, signature: ShareBytes) {
        self.0.insert(epoch, (used, signature));
        while self.0.len() > CAPACITY {
            self.0.pop_first();
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Wallet {
    pub(super) fn combine_ahead(&self, items: &[(u64, PeerId, Item)], trust: Trust) {
        let threshold = usize::from(self.config.threshold);
        let items = items.iter().filter(|(_, from, _)| self.config.guardians.contains_key(from));
        let mut likely = likely(items, threshold);
        likely.retain(|(epoch, used)| self.ahead.work().found.get(*epoch, used).is_none());
        match trust {
            Trust::Nobody => self.combine_and_check(likely),
            Trust::Signed => self.combine_only(likely),
        }
    }

    fn combine_only(&self, likely: Vec<(u64, Shares)>) {
        let threshold = usize::from(self.config.threshold);
        for (epoch, used) in likely {
            if let Ok(signature) = combine_presumed(&used, threshold) {
                self.ahead.work().found.remember(epoch, used, signature);
            }
        }
    }

    fn combine_and_check(&self, likely: Vec<(u64, Shares)>) {
        let threshold = usize::from(self.config.threshold);
        let combined: Vec<_> = likely
            .into_iter()
            .filter_map(|(epoch, used)| {
                let shares: Option<BTreeMap<u16, SignatureShare>> = used
                    .iter()
                    .map(|(peer, share)| Some((*peer, SignatureShare::from_bytes(share).ok()?)))
                    .collect();
                let signature = combine_message(&shares?, threshold).ok()?;
                Some((epoch, message(self.federation, epoch), used, signature))
            })
            .collect();
        let checks: Vec<(&[u8], _)> =
            combined.iter().map(|(_, message, _, signature)| (message.as_slice(), signature)).collect();
        let right = verify_messages(&checks, &self.config.beacon);
        let mut work = self.ahead.work();
        for ((epoch, _, used, signature), right) in combined.into_iter().zip(right) {
            // Who is guilty where something is wrong is found when it is applied.
            if right {
                work.found.remember(epoch, used, signature.to_bytes());
            }
        }
    }
}

/// Which beacons get enough shares in these epochs, and which of them will be used, if none has come earlier.
fn likely<'a>(items: impl Iterator<Item = &'a (u64, PeerId, Item)>, threshold: usize) -> Vec<(u64, Shares)> {
    let mut said: BTreeMap<u64, Vec<(u64, u16, _)>> = BTreeMap::new();
    for (now, from, item) in items {
        if let Item::BeaconShare { epoch, share } = item
            && epoch < now
            && epoch.saturating_add(KEPT) >= *now
        {
            said.entry(*now).or_default().push((*epoch, from.0, *share));
        }
    }
    let mut coming: BTreeMap<u64, Shares> = BTreeMap::new();
    let mut likely = Vec::new();
    for shares in said.into_values() {
        for (epoch, from, share) in shares {
            coming.entry(epoch).or_default().insert(from, share);
        }
        let complete = coming.iter().rev().find(|(_, shares)| shares.len() >= threshold);
        if let Some((epoch, shares)) = complete {
            let epoch = *epoch;
            likely
                .push((epoch, shares.iter().take(threshold).map(|(peer, share)| (*peer, *share)).collect()));
            coming = coming.split_off(&epoch.saturating_add(1));
        }
    }
    likely
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_foresees_what_is_used() {
        let item = |now: u64, from: u16, epoch: u64| {
            (now, PeerId(from), Item::BeaconShare { epoch, share: [from as u8; 48] })
        };
        let items = [
            item(1, 3, 0),
            item(1, 0, 0),
            item(1, 1, 0),
            item(1, 2, 0),
            item(2, 0, 1),
            item(2, 1, 1),
            item(3, 3, 1),
            item(3, 0, 9),
            item(4, 2, 0),
            item(4, 1, 3),
        ];
        let used: Vec<_> = likely(items.iter(), 3)
            .into_iter()
            .map(|(epoch, used)| (epoch, used.into_keys().collect::<Vec<_>>()))
            .collect();
        assert_eq!(used, [(0, vec![0, 1, 2]), (1, vec![0, 1, 3])]);
    }
}

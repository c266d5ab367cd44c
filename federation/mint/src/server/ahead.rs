//! Signatures that are combined before their epochs are applied: those of several epochs in one batch. They are checked, but
//! where it is known to what state the epochs lead: a wrong one would lead to another.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use federation_core::module::Trust;
use federation_core::{OutPoint, PeerId};
use federation_tbs::combine_presumed;
use federation_tbs::pool::map_pieces;

use super::Mint;
use crate::combine::{Job, Share, combine_all};
use crate::types::MAX_PARTIAL_SIGNATURES;
use crate::{NoteOutput, PartialSignatures, PointBytes};

/// The most signatures that are remembered, about a kilobyte each. Above that all are forgotten and computed when needed.
const CAPACITY: usize = 16_384;

/// Fewer outputs than this are not worth a thread.
const MIN_PIECE: usize = 8;

/// Partial signatures of one output, by guardian.
pub(super) type Shares = BTreeMap<u16, PointBytes>;

/// What came of exactly these shares. Right for ever, whatever the state, if it was checked: an [`OutPoint`] names its output's
/// content.
struct Found {
    used: Shares,
    signature: PointBytes,
}

/// Remembers them until their outputs are finished.
#[derive(Default)]
pub(super) struct Ahead(Mutex<HashMap<OutPoint, Found>>);

impl Ahead {
    fn found(&self) -> MutexGuard<'_, HashMap<OutPoint, Found>> {
        // Entries are inserted whole, so a panic elsewhere leaves them sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The signature that these shares make, if they were looked at, and all are right.
    pub fn signature(&self, point: &OutPoint, used: &Shares) -> Option<PointBytes> {
        self.found().get(point).filter(|found| found.used == *used).map(|found| found.signature)
    }

    /// Drops what is finished.
    pub fn forget(&self, point: &OutPoint) {
        self.found().remove(point);
    }

    /// Drops everything.
    pub fn forget_all(&self) {
        self.found().clear();
    }

    fn remember(&self, entries: impl IntoIterator<Item = (OutPoint, Found)>) {
        let mut found = self.found();
        for (point, entry) in entries {
            if found.len() >= CAPACITY && !found.contains_key(&point) {
                found.clear();
            }
            found.insert(point, entry);
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.found().len()
    }
}

impl Mint {
    #[cfg(test)]
    pub(crate) fn remembered_ahead(&self) -> usize {
        self.ahead.len()
    }

    pub(super) fn combine_ahead(
        &self,
        items: &[(u64, PeerId, PartialSignatures)],
        outputs: &[(OutPoint, &NoteOutput)],
        trust: Trust,
    ) {
        for (point, output) in outputs {
            // Their partial signatures may be in epochs that are looked at later.
            self.signer.remember(*point, output);
        }
        let mut likely = likely(items, self.config.guardians(), usize::from(self.config.threshold));
        likely.retain(|point, used| self.ahead.signature(point, used).is_none());
        match trust {
            Trust::Nobody => self.combine_and_check(likely),
            Trust::Signed => self.combine_only(likely),
        }
    }

    fn combine_only(&self, likely: BTreeMap<OutPoint, Shares>) {
        let threshold = usize::from(self.config.threshold);
        let combined = map_pieces(likely.into_iter().collect(), MIN_PIECE, |piece| {
            let combine = |(point, used): (OutPoint, Shares)| {
                let shares = used.iter().map(|(peer, share)| (*peer, share.0)).collect();
                let signature = combine_presumed(&shares, threshold).ok().map(PointBytes);
                (point, signature.map(|signature| Found { used, signature }))
            };
            piece.into_iter().map(combine).collect()
        });
        self.ahead.remember(combined.into_iter().filter_map(|(point, found)| Some((point, found?))));
    }

    fn combine_and_check(&self, likely: BTreeMap<OutPoint, Shares>) {
        let mut open = Vec::new();
        let mut jobs = Vec::new();
        for (point, used) in likely {
            let Some((denomination, blinded)) = self.signer.content(&point) else { continue };
            let shares = used.iter().map(|(peer, share)| (*peer, Share::Encoded(*share))).collect();
            jobs.push(Job { denomination, blinded, shares });
            open.push((point, used));
        }
        // Who is guilty where something is wrong is found, and counted, when it is applied.
        let combined = combine_all(&self.config, jobs).into_iter();
        let right = open.into_iter().zip(combined).filter_map(|((point, used), combined)| {
            let signature = combined.signature.filter(|_| combined.bad.is_empty())?;
            Some((point, Found { used, signature: PointBytes(signature.to_bytes()) }))
        });
        self.ahead.remember(right);
    }
}

/// Which outputs get enough shares in these epochs, and which of them will be used, if none has come earlier.
fn likely(
    items: &[(u64, PeerId, PartialSignatures)],
    guardians: usize,
    threshold: usize,
) -> BTreeMap<OutPoint, Shares> {
    let mut coming: BTreeMap<OutPoint, Shares> = BTreeMap::new();
    let mut complete: BTreeMap<OutPoint, Shares> = BTreeMap::new();
    for epoch in items.chunk_by(|(a, ..), (b, ..)| a == b) {
        let mut touched = Vec::new();
        for (_, from, PartialSignatures(item)) in epoch {
            if usize::from(from.0) >= guardians || item.len() > MAX_PARTIAL_SIGNATURES {
                continue;
            }
            for partial in item.iter().filter(|partial| !complete.contains_key(&partial.point)) {
                let shares = coming.entry(partial.point).or_default();
                shares.entry(from.0).or_insert(partial.share);
                if shares.len() == threshold {
                    touched.push(partial.point);
                }
            }
        }
        // Only now: of more than are needed the lowest guardians' are used.
        for point in touched {
            if let Some(shares) = coming.remove(&point) {
                complete.insert(point, shares.into_iter().take(threshold).collect());
            }
        }
    }
    complete
}

#[cfg(test)]
mod tests {
    use federation_core::TxId;

    use super::*;
    use crate::PartialSignature;

    fn point(number: u8) -> OutPoint {
        OutPoint { txid: TxId([number; 32]), index: 0 }
    }

    fn item(epoch: u64, from: u16, points: &[u8]) -> (u64, PeerId, PartialSignatures) {
        let share =
            |number: &u8| PartialSignature { point: point(*number), share: PointBytes([from as u8; 48]) };
        (epoch, PeerId(from), PartialSignatures(points.iter().map(share).collect()))
    }

    #[test]
    fn it_foresees_what_is_used() {
        let items = [
            item(0, 0, &[1]),
            item(0, 1, &[1, 1, 2]),
            item(0, 2, &[1]),
            item(0, 3, &[1]),
            item(1, 0, &[1, 3]),
            item(1, 3, &[2]),
            item(2, 2, &[2, 3]),
            item(3, 0, &[2]),
            item(3, 9, &[3]),
        ];
        let used = likely(&items, 4, 3);
        let peers =
            |number: u8| used.get(&point(number)).map(|used| used.keys().copied().collect::<Vec<_>>());
        assert_eq!(peers(1), Some(vec![0, 1, 2]), "four in one epoch: the lowest");
        assert_eq!(peers(2), Some(vec![1, 2, 3]), "what comes after it is complete is too late");
        assert_eq!(peers(3), None, "two, and a stranger");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let ahead = Ahead::default();
        let signature = PointBytes([7; 48]);
        for number in 0..CAPACITY as u64 + 10 {
            let mut txid = [0; 32];
            txid[..8].copy_from_slice(&number.to_be_bytes());
            let point = OutPoint { txid: TxId(txid), index: 0 };
            ahead.remember([(point, Found { used: Shares::new(), signature })]);
        }
        assert!((1..=CAPACITY).contains(&ahead.len()));
    }
}

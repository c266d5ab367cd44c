//! Which past epochs to ask whom for.
//!
//! A guardian that hears of an epoch beyond its own asks for what lies between. An answer proves itself: f + 1
//! signatures of the header, and the header's root of the contributions. So one peer is enough, several are asked side
//! by side for different epochs, and what has come stays whoever is lost.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{MAX_COUNT, Request};
use crate::header::Signatures;
use crate::{Batch, Header, NodeId};

/// Ticks without progress before one asks at all, when only just behind: mostly it is under way.
const PATIENCE: u32 = 2;
/// So many epochs behind one asks at once: an engine can't be that far behind its peers in normal running.
const FAR: u64 = 4;
/// Ticks without an answer before others are asked, too.
const RETRY: u32 = 8;
/// The most ticks that a request is open without an answer: each time that one was given up, the peer gets twice as long.
/// So whoever is behind a slow link gets the time that it needs, and nobody waits for it: others are asked meanwhile.
const MOST_PATIENCE: u32 = 32 * RETRY;
/// Ticks between two pardons.
const FORGIVE: u32 = 4;
/// Epochs that may be fetched ahead of what was handed on.
const AHEAD: u64 = 256;
/// Bytes that may be.
const MAX_BYTES: usize = 64 << 20;

/// A proven epoch.
#[derive(Debug)]
pub(super) struct Proven {
    pub header: Header,
    pub signatures: Signatures,
    pub batch: Batch,
    size: usize,
}

#[derive(Debug)]
struct Asked {
    first: u64,
    end: u64,
    ticks: u32,
}

impl Asked {
    fn covers(&self, epoch: u64) -> bool {
        self.ticks < RETRY && self.first <= epoch && epoch < self.end
    }
}

/// The state of catching up.
#[derive(Debug, Default)]
pub(super) struct Catchup {
    idle_ticks: u32,
    asked: BTreeMap<NodeId, Asked>,
    /// Peers that didn't answer, or wrongly; forgiven after a while when nobody else is left.
    shunned: BTreeSet<NodeId>,
    /// The ticks that a peer has for its next answer, if it isn't [`RETRY`].
    patience: BTreeMap<NodeId, u32>,
    /// Ticks since they were forgiven.
    unforgiving: u32,
    /// Where peers' histories begin, if beyond what was asked for.
    pruned: BTreeMap<NodeId, u64>,
    proven: BTreeMap<u64, Proven>,
    bytes: usize,
    /// The next epoch to be output.
    next: u64,
}

impl Catchup {
    /// Whether past epochs are asked for, or have come.
    pub fn active(&self) -> bool {
        !self.asked.is_empty() || self.has_proof()
    }

    /// Whether an epoch has come that is not output yet.
    pub fn has_proof(&self) -> bool {
        !self.proven.is_empty()
    }

    #[cfg(feature = "testing")]
    pub fn size(&self) -> usize {
        self.proven.len()
    }

    /// The next epoch to be output has become `next`.
    pub fn progress(&mut self, next: u64) {
        self.idle_ticks = 0;
        self.next = next;
        self.pruned.retain(|_, first| *first > next);
        self.proven = self.proven.split_off(&next);
        self.bytes = self.proven.values().map(|proven| proven.size).sum();
        self.asked.retain(|_, asked| asked.end > next);
    }

    pub fn tick(&mut self) {
        self.idle_ticks = self.idle_ticks.saturating_add(1);
        self.unforgiving = self.unforgiving.saturating_add(1);
        for asked in self.asked.values_mut() {
            asked.ticks += 1;
        }
        let late = self.asked.iter().filter(|(peer, asked)| asked.ticks >= self.patience(**peer));
        let late: Vec<NodeId> = late.map(|(peer, _)| *peer).collect();
        for peer in late {
            self.shun(peer);
            let patience = self.patience(peer).saturating_mul(2).min(MOST_PATIENCE);
            self.patience.insert(peer, patience);
        }
    }

    fn patience(&self, peer: NodeId) -> u32 {
        self.patience.get(&peer).copied().unwrap_or(RETRY)
    }

    /// This peer was asked in vain.
    pub fn shun(&mut self, peer: NodeId) {
        self.asked.remove(&peer);
        self.shunned.insert(peer);
    }

    /// Whom to ask for what now. `ahead` are the connected peers that have committed epoch `next`, with their own next epoch.
    pub fn requests(&mut self, next: u64, ahead: &[(NodeId, u64)]) -> Vec<(NodeId, Request)> {
        if ahead.is_empty() {
            // Patience begins when somebody is ahead.
            self.idle_ticks = 0;
        }
        let patient = self.idle_ticks < PATIENCE;
        let ahead: Vec<_> =
            ahead.iter().filter(|(_, end)| !patient || *end >= next.saturating_add(FAR)).collect();
        let asked_in_vain = |peer| self.asked.get(peer).is_some_and(|asked| asked.ticks >= RETRY);
        let hopeless = |peer| self.shunned.contains(peer) || asked_in_vain(peer);
        if self.unforgiving >= FORGIVE && ahead.iter().all(|(peer, _)| hopeless(peer)) {
            self.shunned.clear();
            self.unforgiving = 0;
        }
        let mut requests = Vec::new();
        for (peer, their_end) in &ahead {
            if self.asked.contains_key(peer) || self.shunned.contains(peer) {
                continue;
            }
            let Some(first) = self.first_gap(next, (*their_end).min(next.saturating_add(AHEAD))) else {
                continue;
            };
            // The one that all others wait for always has room.
            let most = if self.bytes < MAX_BYTES { MAX_COUNT } else { 1 };
            if first != next && self.bytes >= MAX_BYTES {
                continue;
            }
            let count = u8::try_from(*their_end - first).unwrap_or(MAX_COUNT).min(most);
            let end = first + u64::from(count);
            self.asked.insert(*peer, Asked { first, end, ticks: 0 });
            requests.push((*peer, Request { first, count, batches: true }));
        }
        requests
    }

    /// The first epoch that is neither here nor asked for, or was asked for too long ago.
    fn first_gap(&self, next: u64, end: u64) -> Option<u64> {
        let mut epoch = next;
        while epoch < end {
            if self.proven.contains_key(&epoch) {
                epoch += 1;
            } else if let Some(asked) = self.asked.values().find(|asked| asked.covers(epoch)) {
                epoch = asked.end;
            } else {
                return Some(epoch);
            }
        }
        None
    }

    /// Whether `epoch` is what this peer has to answer next: in order, so that none is left out.
    pub fn expects(&self, from: NodeId, epoch: u64) -> bool {
        self.asked.get(&from).is_some_and(|asked| asked.first == epoch)
    }

    /// A proven epoch has come.
    pub fn arrived(&mut self, from: NodeId, header: Header, signatures: Signatures, batch: Batch) {
        let size = batch.contributions.values().map(bytes::Bytes::len).sum::<usize>() + 1024;
        let epoch = header.epoch;
        self.shunned.remove(&from);
        if let Some(asked) = self.asked.get_mut(&from) {
            // The next one may take twice as long.
            self.patience.insert(from, asked.ticks.saturating_mul(2).clamp(RETRY, MOST_PATIENCE));
            asked.ticks = 0;
            asked.first = epoch + 1;
            if asked.first >= asked.end {
                self.asked.remove(&from);
            }
        }
        if epoch < self.next {
            return; // Others were faster.
        }
        if let Some(before) = self.proven.insert(epoch, Proven { header, signatures, batch, size }) {
            self.bytes -= before.size;
        }
        self.bytes += size;
    }

    /// A peer's history begins at `first` only. Returns the epoch to begin at when `enough` peers say so of `next`.
    pub fn begins_at(&mut self, from: NodeId, next: u64, first: u64, enough: usize) -> Option<u64> {
        self.shun(from);
        if first <= next {
            return None;
        }
        self.pruned.insert(from, first);
        (self.pruned.len() >= enough).then(|| self.pruned.values().min().copied()).flatten()
    }

    /// Epoch `next`, if it has come.
    pub fn take(&mut self, next: u64) -> Option<Proven> {
        let proven = self.proven.remove(&next)?;
        self.bytes -= proven.size;
        Some(proven)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 1 << 20;

    fn answer(catchup: &mut Catchup, from: NodeId, epoch: u64, bytes: &bytes::Bytes) {
        assert!(catchup.expects(from, epoch), "peer {from}, epoch {epoch}");
        let header = Header { epoch, previous: [0; 32], items: [0; 32], state: [0; 32] };
        let contributions = BTreeMap::from([(from, bytes.clone())]);
        catchup.arrived(from, header, Signatures::new(), Batch { epoch, contributions });
    }

    /// One peer's answers take so many ticks each, all the others are dead.
    #[test]
    fn a_slow_link_is_given_the_time_that_it_needs() {
        let bytes = bytes::Bytes::from_static(b"some");
        for slowness in [RETRY - 1, RETRY, 3 * RETRY, MOST_PATIENCE / 2 + 1] {
            let mut catchup = Catchup::default();
            let (mut next, mut answers_at, mut ticks) = (0, None, 0u32);
            while next < 40 {
                assert!(ticks < 60 * MOST_PATIENCE, "{slowness} ticks an answer: no progress after {next}");
                for (peer, request) in catchup.requests(next, &[(1, 40), (2, 40)]) {
                    if peer == 2 {
                        // Whatever it was sending, it begins anew.
                        answers_at = Some((ticks + slowness, request.first));
                    }
                }
                if let Some((_, epoch)) = answers_at.filter(|(at, _)| *at <= ticks) {
                    if catchup.expects(2, epoch) {
                        answer(&mut catchup, 2, epoch, &bytes);
                    }
                    answers_at = Some((ticks + slowness, epoch + 1));
                }
                while catchup.take(next).is_some() {
                    next += 1;
                    catchup.progress(next);
                }
                catchup.tick();
                ticks += 1;
            }
        }
    }

    /// The first missing epoch was asked of a peer that never answers, and the others have delivered all that
    /// may be fetched ahead of it.
    #[test]
    fn nobody_waits_for_a_peer_that_does_not_answer() {
        // With little bytes, as many epochs as may be; with many, as many bytes.
        for size in [1, SIZE] {
            let bytes = bytes::Bytes::from(vec![7; size]);
            let mut catchup = Catchup::default();
            // It was late before, and may be on a slow link.
            catchup.patience.insert(1, MOST_PATIENCE);
            let ahead = [(1, 1000), (2, 1000), (3, 1000)];
            let (mut next, mut stalled, mut most) = (0, 0, 0);
            catchup.tick();
            let mut held = BTreeSet::new();
            while next < 1000 {
                assert!(stalled <= RETRY, "{stalled} ticks without progress at {next}");
                let requests = catchup.requests(next, &ahead);
                if requests.is_empty() {
                    catchup.tick();
                    stalled += 1;
                }
                for (peer, request) in requests {
                    let epochs = request.first..request.first + u64::from(request.count);
                    held.extend(epochs.clone().filter(|_| peer == 1));
                    for epoch in epochs.filter(|_| peer != 1) {
                        answer(&mut catchup, peer, epoch, &bytes);
                    }
                }
                most = most.max(catchup.bytes);
                while catchup.take(next).is_some() {
                    next += 1;
                    stalled = 0;
                    catchup.progress(next);
                }
            }
            assert!(held.contains(&0), "the silent peer was asked for the first one");
            assert!(most >= MAX_BYTES.min(200 * size) && most < MAX_BYTES + 2 * 16 * 2 * SIZE, "{most}");
        }
    }

    #[test]
    fn what_others_brought_before_is_not_kept() {
        let bytes = bytes::Bytes::from_static(b"some");
        let mut catchup = Catchup::default();
        assert_eq!(catchup.requests(0, &[(1, 9)]).len(), 1);
        catchup.progress(5);
        answer(&mut catchup, 1, 0, &bytes);
        assert!(!catchup.has_proof() && catchup.bytes == 0);
    }
}

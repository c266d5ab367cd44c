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
/// Ticks without an answer before others are asked.
const RETRY: u32 = 8;
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

/// The state of catching up.
#[derive(Debug, Default)]
pub(super) struct Catchup {
    idle_ticks: u32,
    asked: BTreeMap<NodeId, Asked>,
    /// Peers that didn't answer, or wrongly; forgiven after a while when nobody else is left.
    shunned: BTreeSet<NodeId>,
    /// Ticks since they were forgiven.
    unforgiving: u32,
    /// Where peers' histories begin, if beyond what was asked for.
    pruned: BTreeMap<NodeId, u64>,
    proven: BTreeMap<u64, Proven>,
    bytes: usize,
}

impl Catchup {
    pub fn active(&self) -> bool {
        !self.asked.is_empty() || !self.proven.is_empty()
    }

    #[cfg(feature = "testing")]
    pub fn size(&self) -> usize {
        self.proven.len()
    }

    /// The next epoch to be output has become `next`.
    pub fn progress(&mut self, next: u64) {
        self.idle_ticks = 0;
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
        let late = self.asked.iter().filter(|(_, asked)| asked.ticks >= RETRY).map(|(peer, _)| *peer);
        let late: Vec<NodeId> = late.collect();
        for peer in late {
            self.shun(peer);
        }
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
        if self.unforgiving >= FORGIVE && ahead.iter().all(|(peer, _)| self.shunned.contains(peer)) {
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

    /// The first epoch that is neither here nor asked for.
    fn first_gap(&self, next: u64, end: u64) -> Option<u64> {
        let mut epoch = next;
        while epoch < end {
            if self.proven.contains_key(&epoch) {
                epoch += 1;
            } else if let Some(asked) =
                self.asked.values().find(|asked| asked.first <= epoch && epoch < asked.end)
            {
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
        self.shunned.remove(&from);
        if let Some(asked) = self.asked.get_mut(&from) {
            asked.ticks = 0;
            asked.first = header.epoch + 1;
            if asked.first >= asked.end {
                self.asked.remove(&from);
            }
        }
        let epoch = header.epoch;
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

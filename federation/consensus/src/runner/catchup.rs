//! Which past epochs to ask whom for, and when to believe the answers.
//!
//! A guardian is behind when f + 1 others say that they have committed an epoch that it hasn't output. It asks
//! all of them, one for the bytes and the rest for hashes, and takes what f + 1 of them agree on: at least one of those
//! is honest.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::history::{Answer, MAX_COUNT, Request};
use crate::{Batch, NodeId};

/// Ticks without progress before one asks at all, when only one epoch behind: mostly it is under way.
const PATIENCE: u32 = 2;
/// Ticks without progress before others are asked.
const RETRY: u32 = 8;

/// The state of catching up.
#[derive(Debug, Default)]
pub(super) struct Catchup {
    idle_ticks: u32,
    asked: Option<Asked>,
    /// Rotates the peer that is asked for bytes.
    turn: usize,
    hashes: BTreeMap<u64, BTreeMap<NodeId, [u8; 32]>>,
    bodies: BTreeMap<u64, Bytes>,
}

#[derive(Debug)]
struct Asked {
    end: u64,
    from: NodeId,
    ticks: u32,
}

impl Catchup {
    pub const fn active(&self) -> bool {
        self.asked.is_some()
    }

    /// The next epoch to be output has become `next`.
    pub fn progress(&mut self, next: u64) {
        self.idle_ticks = 0;
        self.hashes = self.hashes.split_off(&next);
        self.bodies = self.bodies.split_off(&next);
        match &mut self.asked {
            Some(asked) if next < asked.end => asked.ticks = 0,
            _ => self.asked = None,
        }
    }

    pub const fn tick(&mut self) {
        self.idle_ticks = self.idle_ticks.saturating_add(1);
        if let Some(asked) = &mut self.asked {
            asked.ticks += 1;
        }
    }

    /// Whom to ask for what now. `ahead` are the peers that have committed epoch `next`, with their own next epoch.
    pub fn requests(&mut self, next: u64, ahead: &[(NodeId, u64)], faulty: usize) -> Vec<(NodeId, Request)> {
        if self.asked.as_ref().is_some_and(|asked| asked.ticks < RETRY) {
            return Vec::new();
        }
        let mut ends: Vec<u64> = ahead.iter().map(|(_, end)| *end).collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        // f + 1 have got this far.
        let Some(end) = ends.get(faulty).copied() else {
            self.asked = None;
            return Vec::new();
        };
        if end <= next + 1 && self.idle_ticks < PATIENCE {
            return Vec::new();
        }
        self.turn = self.turn.wrapping_add(1);
        let Some((source, _)) = ahead.get(self.turn % ahead.len().max(1)).copied() else { return Vec::new() };
        let count = u8::try_from(end - next).unwrap_or(MAX_COUNT).min(MAX_COUNT);
        self.asked = Some(Asked { end: next + u64::from(count), from: source, ticks: 0 });
        ahead
            .iter()
            .map(|(peer, _)| (*peer, Request { first: next, count, bodies: *peer == source }))
            .collect()
    }

    /// Takes an answer. `false`: it contradicts itself.
    pub fn answer(&mut self, from: NodeId, next: u64, answer: Answer) -> bool {
        let Some(asked) = &self.asked else { return true };
        if answer.epoch < next || answer.epoch >= asked.end {
            return true;
        }
        self.hashes.entry(answer.epoch).or_default().insert(from, answer.hash);
        if let Some(body) = answer.body {
            if Batch::hash(&body) != answer.hash {
                return false;
            }
            if from == asked.from {
                self.bodies.insert(answer.epoch, body);
            }
        }
        true
    }

    /// The batch of epoch `next`, if enough peers agree on it.
    pub fn take(&self, next: u64, faulty: usize) -> Option<Batch> {
        let body = self.bodies.get(&next)?;
        let hash = Batch::hash(body);
        let agreeing = self.hashes.get(&next)?.values().filter(|other| **other == hash).count();
        if agreeing <= faulty {
            return None;
        }
        Batch::decode(body.clone()).ok().filter(|batch| batch.epoch == next)
    }
}

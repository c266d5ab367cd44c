//! Which chunk of a snapshot to ask whom for, and for how long.
//!
//! One request at a time a peer. Each has as long as its chunk takes on a slow link; who takes longer is not asked any more
//! in this attempt, and gets twice as long in the next one. A chunk that is under way for long is asked of
//! idle peers, too. So nobody, dead or trickling, holds up more than itself, and a link that really is slow is enough in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use federation_consensus::NodeId;
use tokio::time::Instant;

use super::manifest::Manifest;

/// What an answer may take however short it is.
const LATENCY: Duration = Duration::from_secs(5);
/// Bytes a second that a peer has to bring.
const RATE: u64 = 64 << 10;
/// How often a peer's time may double.
const DOUBLINGS: u32 = 4;

/// How often each peer's time was doubled: what is learned in one attempt for the next.
pub type Slowness = BTreeMap<NodeId, u32>;

struct Asked {
    index: u32,
    since: Instant,
    until: Instant,
}

/// An attempt to get the missing chunks.
pub struct Plan<'a> {
    manifest: &'a Manifest,
    missing: BTreeSet<u32>,
    /// Peers that are worth asking.
    peers: BTreeSet<NodeId>,
    asked: BTreeMap<NodeId, Asked>,
    slowness: &'a mut Slowness,
}

impl<'a> Plan<'a> {
    /// For these chunks of a snapshot that these peers have.
    pub fn new(
        manifest: &'a Manifest,
        missing: BTreeSet<u32>,
        peers: BTreeSet<NodeId>,
        slowness: &'a mut Slowness,
    ) -> Self {
        Self { manifest, missing, peers, asked: BTreeMap::new(), slowness }
    }

    /// Whether all chunks are here.
    pub fn is_done(&self) -> bool {
        self.missing.is_empty()
    }

    /// Whether nobody is left to wait for.
    pub fn is_hopeless(&self) -> bool {
        self.peers.is_empty()
    }

    /// Gives up on those who are late. Whom to ask for which chunk now.
    pub fn requests(&mut self, now: Instant) -> Vec<(NodeId, u32)> {
        let late: Vec<NodeId> =
            self.asked.iter().filter(|(_, asked)| now >= asked.until).map(|(peer, _)| *peer).collect();
        for peer in late {
            let slowness = self.slowness.entry(peer).or_default();
            *slowness = slowness.saturating_add(1).min(DOUBLINGS);
            self.give_up(peer);
        }
        let mut requests = Vec::new();
        for peer in
            self.peers.iter().filter(|peer| !self.asked.contains_key(peer)).copied().collect::<Vec<_>>()
        {
            let Some(index) = self.next(now) else { break };
            let until = now.checked_add(self.time_for(peer, index)).unwrap_or(now);
            self.asked.insert(peer, Asked { index, since: now, until });
            requests.push((peer, index));
        }
        requests
    }

    /// The first chunk that nobody is asked for, or the one that has been under way for the longest, if that is long.
    fn next(&self, now: Instant) -> Option<u32> {
        let under_way = |index: &u32| self.asked.values().any(|asked| asked.index == *index);
        self.missing.iter().find(|index| !under_way(index)).copied().or_else(|| {
            // Who was asked last counts: not all of them at once for the same.
            let mut since: BTreeMap<u32, Instant> = BTreeMap::new();
            for asked in self.asked.values().filter(|asked| self.missing.contains(&asked.index)) {
                let last = since.entry(asked.index).or_insert(asked.since);
                *last = asked.since.max(*last);
            }
            let slow =
                since.into_iter().filter(|(_, since)| now.saturating_duration_since(*since) >= LATENCY);
            slow.min_by_key(|(_, since)| *since).map(|(index, _)| index)
        })
    }

    fn time_for(&self, peer: NodeId, index: u32) -> Duration {
        let bytes = self.manifest.chunk_length(index).unwrap_or_default() as u64;
        let time = LATENCY.saturating_add(Duration::from_millis(bytes.saturating_mul(1000) / RATE));
        time.saturating_mul(1 << self.slowness.get(&peer).copied().unwrap_or(0))
    }

    /// Whether a peer was asked for this chunk last.
    pub fn expects(&self, from: NodeId, index: u32) -> bool {
        self.asked.get(&from).is_some_and(|asked| asked.index == index)
    }

    /// Whether the chunk is missing still, whoever was asked for it.
    pub fn wants(&self, index: u32) -> bool {
        self.missing.contains(&index)
    }

    /// A right chunk has come.
    pub fn arrived(&mut self, from: NodeId, index: u32) {
        self.missing.remove(&index);
        if self.expects(from, index) {
            self.asked.remove(&from);
            self.slowness.entry(from).and_modify(|slowness| *slowness = slowness.saturating_sub(1));
        }
    }

    /// This peer is not asked any more.
    pub fn give_up(&mut self, peer: NodeId) {
        self.asked.remove(&peer);
        self.peers.remove(&peer);
    }
}

#[cfg(test)]
mod tests {
    use federation_consensus::header::Header;

    use super::*;
    use crate::history::snapshot::manifest::CHUNK;

    fn manifest(chunks: usize, rest: u64) -> Manifest {
        let header = Header { epoch: 9, previous: [1; 32], items: [2; 32], state: [3; 32] };
        let size = (chunks as u64 - 1) * CHUNK as u64 + rest;
        Manifest::new(&header, size, vec![[0; 32]; chunks])
    }

    /// Peers that take so many seconds for a chunk, `None` being for ever. Returns the seconds that it took, or how
    /// many chunks were still missing when nobody was left.
    fn fetch(
        manifest: &Manifest,
        missing: &mut BTreeSet<u32>,
        peers: &[(NodeId, Option<u64>)],
        slowness: &mut Slowness,
    ) -> Result<u64, usize> {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let names = peers.iter().map(|(peer, _)| *peer).collect();
        let mut plan = Plan::new(manifest, missing.clone(), names, slowness);
        let mut coming: Vec<(u64, NodeId, u32)> = Vec::new();
        for now in 0..100_000 {
            coming.retain(|(then, peer, index)| {
                if *then <= now {
                    plan.arrived(*peer, *index);
                    missing.remove(index);
                }
                *then > now
            });
            if plan.is_done() {
                return Ok(now);
            }
            for (peer, index) in plan.requests(at(now)) {
                let takes = peers.iter().find(|(other, _)| *other == peer).unwrap().1;
                coming.extend(takes.map(|takes| (now + takes, peer, index)));
            }
            if plan.is_hopeless() {
                return Err(missing.len());
            }
        }
        panic!("it is busy for ever, {} chunks are missing", missing.len());
    }

    #[test]
    fn who_trickles_holds_up_nobody_else() {
        let manifest = manifest(100, 5);
        let all = || (0..100).collect::<BTreeSet<u32>>();
        // One of them is as slow as can be, or dead: the others do its work.
        for slow in [Some(20), Some(1000), None] {
            let took =
                fetch(&manifest, &mut all(), &[(1, slow), (2, Some(1))], &mut Slowness::new()).unwrap();
            assert!(took < 120, "{slow:?}: {took} seconds");
        }
        // The last chunk has five bytes and not the time of a whole one.
        let mut slowness = Slowness::new();
        assert_eq!(fetch(&manifest, &mut BTreeSet::from([99]), &[(1, None)], &mut slowness), Err(1));
        let begin = Instant::now();
        let mut plan = Plan::new(&manifest, BTreeSet::from([99]), BTreeSet::from([1, 2]), &mut slowness);
        assert_eq!(plan.requests(begin), [(1, 99)]);
        assert_eq!(plan.requests(begin + LATENCY), [(2, 99)]);
        // Peer 1 was late before: now it has twice as long.
        assert_eq!(plan.requests(begin + LATENCY * 2 - Duration::from_millis(1)), []);
        assert!(plan.expects(1, 99) && plan.expects(2, 99));
        assert_eq!(plan.requests(begin + LATENCY * 2 + Duration::from_secs(1)), []);
        assert!(plan.is_hopeless());
    }

    #[test]
    fn a_slow_link_is_enough_in_the_end() {
        let manifest = manifest(10, CHUNK as u64);
        let mut missing: BTreeSet<u32> = (0..10).collect();
        let mut slowness = Slowness::new();
        // Ten kilobytes a second, and nobody else: what is learned and what has come stays from one attempt to the next.
        let mut attempts = 0;
        while let Err(left) = fetch(&manifest, &mut missing, &[(1, Some(100))], &mut slowness) {
            assert_eq!(left, missing.len());
            attempts += 1;
            assert!(attempts < 40, "{left} chunks are missing");
        }
        // Two kilobytes a second are too few.
        let mut missing: BTreeSet<u32> = (0..10).collect();
        for _ in 0..20 {
            assert_eq!(fetch(&manifest, &mut missing, &[(1, Some(500))], &mut slowness), Err(10));
        }
    }
}

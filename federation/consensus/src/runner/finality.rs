//! Signatures of headers: the own ones, the others', and what they prove.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::statement::Signed;
use crate::header::{Header, HeaderKeys, Signature, Signatures};
use crate::{NodeId, max_faulty};

/// How many committed epochs collect signatures.
const KEEP: u64 = 64;
/// How far ahead of the own commits others' signatures are kept.
const AHEAD: u64 = 256;
/// A batch of signatures of one epoch is final, or complete, from this many on.
#[derive(Debug, Clone, Copy)]
struct Thresholds {
    /// f + 1: one honest guardian at least.
    last: usize,
    /// n - f: what a state snapshot needs.
    complete: usize,
    /// What a peer's proof needs that an epoch was committed: n - f, but for tests.
    proof: usize,
}

#[derive(Debug, Clone, Copy)]
struct Claim {
    hash: [u8; 32],
    signature: Signature,
    verified: bool,
}

/// What is told about an epoch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// f + 1, or n - f, signatures of the own header are there.
    Signatures { epoch: u64, signatures: Signatures },
    /// f + 1 others have signed another header.
    Diverged { epoch: u64, own: [u8; 32], others: [u8; 32] },
}

pub(super) struct Finality {
    me: NodeId,
    thresholds: Thresholds,
    keys: Arc<dyn HeaderKeys>,
    /// The own headers that may still get signatures, with their hashes.
    own: BTreeMap<u64, (Header, [u8; 32])>,
    claims: BTreeMap<u64, BTreeMap<NodeId, Claim>>,
    /// How many signatures of an own header were told.
    told: BTreeMap<u64, usize>,
    last_final: Option<u64>,
    last_complete: Option<u64>,
    diverged: Option<u64>,
}

impl Finality {
    pub fn new(me: NodeId, n: u16, keys: Arc<dyn HeaderKeys>, diverged: Option<u64>) -> Self {
        let faulty = max_faulty(n) as usize;
        let complete = n as usize - faulty;
        let thresholds = Thresholds { last: faulty + 1, complete, proof: complete };
        Self {
            me,
            thresholds,
            keys,
            own: BTreeMap::new(),
            claims: BTreeMap::new(),
            told: BTreeMap::new(),
            last_final: None,
            last_complete: None,
            diverged,
        }
    }

    /// Only for tests: f + 1 signatures are proof enough.
    pub const fn trust_few(&mut self) {
        self.thresholds.proof = self.thresholds.last;
    }

    pub const fn last_final(&self) -> Option<u64> {
        self.last_final
    }

    pub const fn diverged(&self) -> Option<u64> {
        self.diverged
    }

    #[cfg(feature = "testing")]
    pub fn size(&self) -> usize {
        self.claims.values().map(BTreeMap::len).sum()
    }

    /// What was stored of an epoch before this start. Its own signature may not have been, and may be all that
    /// lacked.
    pub fn load(&mut self, header: &Header, signatures: &Signatures) -> Vec<News> {
        let hash = header.hash();
        self.own.insert(header.epoch, (*header, hash));
        let claims = self.claims.entry(header.epoch).or_default();
        for (node, signature) in signatures {
            claims.insert(*node, Claim { hash, signature: *signature, verified: true });
        }
        if signatures.len() >= self.thresholds.last {
            self.last_final = self.last_final.max(Some(header.epoch));
            self.told.insert(header.epoch, signatures.len());
        }
        if signatures.len() >= self.thresholds.complete {
            self.last_complete = self.last_complete.max(Some(header.epoch));
        }
        self.sign(header.epoch, hash);
        self.forget(header.epoch);
        self.evaluate(header.epoch)
    }

    /// This guardian has committed an epoch.
    pub fn committed(&mut self, header: &Header) -> Vec<News> {
        let hash = header.hash();
        self.own.insert(header.epoch, (*header, hash));
        self.sign(header.epoch, hash);
        self.forget(header.epoch);
        self.evaluate(header.epoch)
    }

    fn sign(&mut self, epoch: u64, hash: [u8; 32]) {
        if self.diverged.is_none() {
            let claims = self.claims.entry(epoch).or_default();
            if claims.get(&self.me).is_none_or(|claim| claim.hash != hash) {
                let claim = Claim { hash, signature: self.keys.sign(&hash), verified: true };
                claims.insert(self.me, claim);
            }
        }
    }

    fn forget(&mut self, committed: u64) {
        let below = committed.saturating_sub(KEEP);
        self.own = self.own.split_off(&below);
        self.claims = self.claims.split_off(&below);
        self.told = self.told.split_off(&below);
    }

    /// The own signatures that a newly connected peer may lack, oldest first: of epochs that aren't complete yet, and the
    /// last one always, since it says how far this guardian has come.
    pub fn own_signatures(&self) -> Vec<Signed> {
        let last = self.own.last_key_value().map(|(epoch, _)| *epoch);
        self.own
            .keys()
            .filter(|epoch| {
                Some(**epoch) == last
                    || self.told.get(epoch).is_none_or(|told| *told < self.thresholds.complete)
            })
            .filter_map(|epoch| self.own_signature(*epoch))
            .collect()
    }

    /// The own signature of an epoch.
    pub fn own_signature(&self, epoch: u64) -> Option<Signed> {
        let claim = self.claims.get(&epoch)?.get(&self.me)?;
        Some(Signed { epoch, hash: claim.hash, signature: claim.signature })
    }

    /// The last epoch whose own header n - f have signed.
    pub const fn last_complete(&self) -> Option<u64> {
        self.last_complete
    }

    /// The header of that epoch, with its signatures.
    pub fn last_proof(&self) -> Option<(Header, Signatures)> {
        let epoch = self.last_complete?;
        let (header, hash) = self.own.get(&epoch)?;
        let right =
            self.claims.get(&epoch)?.iter().filter(|(_, claim)| claim.verified && claim.hash == *hash);
        Some((*header, right.map(|(node, claim)| (*node, claim.signature)).collect()))
    }

    /// A peer says that it has signed a header. Verified only when it counts.
    pub fn said(&mut self, from: NodeId, signed: &Signed) -> Vec<News> {
        if !self.wanted(signed.epoch) {
            return Vec::new();
        }
        let claims = self.claims.entry(signed.epoch).or_default();
        if claims.get(&from).is_some_and(|claim| claim.verified) {
            return Vec::new();
        }
        let claim = Claim { hash: signed.hash, signature: signed.signature, verified: false };
        claims.insert(from, claim);
        self.evaluate(signed.epoch)
    }

    /// Signatures that someone else hands on; only right ones are taken.
    pub fn handed_on(&mut self, epoch: u64, hash: [u8; 32], signatures: &Signatures) -> Vec<News> {
        if !self.wanted(epoch) {
            return Vec::new();
        }
        for (node, signature) in signatures {
            let claims = self.claims.entry(epoch).or_default();
            if claims.get(node).is_some_and(|claim| claim.verified)
                || !self.keys.verify(*node, &hash, signature)
            {
                continue;
            }
            claims.insert(*node, Claim { hash, signature: *signature, verified: true });
        }
        self.evaluate(epoch)
    }

    /// An epoch whose signatures were verified before it is handed to the main loop. Whether n - f have signed it.
    pub fn proven(&mut self, header: &Header, signatures: &Signatures) -> bool {
        let hash = header.hash();
        let claims = self.claims.entry(header.epoch).or_default();
        for (node, signature) in signatures {
            claims.insert(*node, Claim { hash, signature: *signature, verified: true });
        }
        signatures.len() >= self.thresholds.complete
    }

    /// Whether f + 1 guardians say that they have signed one header of an epoch from `next` on. Not more than f can lie.
    pub fn is_final_beyond(&self, next: u64) -> bool {
        self.claims.range(next..).any(|(_, claims)| {
            let same = |hash| claims.values().filter(|claim| claim.hash == hash).count();
            claims.values().any(|claim| same(claim.hash) >= self.thresholds.last)
        })
    }

    fn wanted(&self, epoch: u64) -> bool {
        let committed = self.own.last_key_value().map_or(0, |(epoch, _)| epoch + 1);
        epoch.saturating_add(KEEP) >= committed && epoch < committed.saturating_add(AHEAD)
    }

    /// Whether n - f have signed a header.
    pub fn is_complete(&self, hash: &[u8; 32], signatures: &Signatures) -> bool {
        let right = |(node, signature): &(&NodeId, &Signature)| self.keys.verify(**node, hash, signature);
        signatures.iter().filter(right).count() >= self.thresholds.proof
    }

    /// Right signatures of `hash`, if there are as many as make it final: those handed over, and those heard of; no more than
    /// make it complete.
    pub fn final_signatures(
        &self,
        epoch: u64,
        hash: &[u8; 32],
        handed_over: &Signatures,
    ) -> Option<Signatures> {
        let mut right = Signatures::new();
        let known = self.claims.get(&epoch).into_iter().flatten();
        let known = known.filter(|(_, claim)| claim.hash == *hash);
        let known = known.map(|(node, claim)| (*node, claim.signature, claim.verified));
        let given = handed_over.iter().map(|(node, signature)| (*node, *signature, false));
        for (node, signature, verified) in known.chain(given) {
            if right.len() >= self.thresholds.complete {
                break;
            }
            if !right.contains_key(&node) && (verified || self.keys.verify(node, hash, &signature)) {
                right.insert(node, signature);
            }
        }
        (right.len() >= self.thresholds.last).then_some(right)
    }

    /// Epochs that have waited for signatures: the first, and how many from there on.
    pub fn lacking(&self) -> Option<(u64, u64)> {
        let lacks = |epoch: &&u64| self.told.get(epoch).is_none_or(|told| *told < self.thresholds.complete);
        let first = self.own.keys().find(lacks)?;
        let last = self.own.keys().next_back()?;
        Some((*first, last - first + 1))
    }

    /// Verifies what can matter now.
    fn evaluate(&mut self, epoch: u64) -> Vec<News> {
        let Some((_, own)) = self.own.get(&epoch).copied() else { return Vec::new() };
        let Some(claims) = self.claims.get_mut(&epoch) else { return Vec::new() };
        let mut groups: BTreeMap<[u8; 32], usize> = BTreeMap::new();
        for claim in claims.values() {
            *groups.entry(claim.hash).or_default() += 1;
        }
        let mut news = Vec::new();
        for (hash, count) in groups {
            let told = if hash == own { self.told.get(&epoch).copied().unwrap_or(0) } else { 0 };
            // Nothing that is there can change what was told: verify later, or never.
            let next =
                if told >= self.thresholds.last { self.thresholds.complete } else { self.thresholds.last };
            if count < next || told >= self.thresholds.complete {
                continue;
            }
            for (node, claim) in claims.iter_mut().filter(|(_, claim)| claim.hash == hash && !claim.verified)
            {
                claim.verified = self.keys.verify(*node, &hash, &claim.signature);
            }
            claims.retain(|_, claim| claim.hash != hash || claim.verified);
            let right: Signatures = claims
                .iter()
                .filter(|(_, claim)| claim.hash == hash)
                .map(|(node, claim)| (*node, claim.signature))
                .collect();
            if right.len() < next {
                continue;
            }
            if hash == own {
                self.told.insert(epoch, right.len());
                self.last_final = self.last_final.max(Some(epoch));
                if right.len() >= self.thresholds.complete {
                    self.last_complete = self.last_complete.max(Some(epoch));
                }
                news.push(News::Signatures { epoch, signatures: right });
            } else if self.diverged.is_none() {
                self.diverged = Some(epoch);
                news.push(News::Diverged { epoch, own, others: hash });
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first byte says whose it is.
    struct Named(NodeId);

    fn by(node: NodeId) -> Signature {
        [u8::try_from(node).unwrap(); 64]
    }

    impl HeaderKeys for Named {
        fn sign(&self, _: &[u8; 32]) -> Signature {
            by(self.0)
        }

        fn verify(&self, node: NodeId, _: &[u8; 32], signature: &Signature) -> bool {
            *signature == by(node)
        }
    }

    fn header(epoch: u64) -> Header {
        Header { epoch, previous: [0; 32], items: [0; 32], state: [0; 32] }
    }

    fn signed(nodes: &[NodeId]) -> Signatures {
        nodes.iter().map(|node| (*node, by(*node))).collect()
    }

    /// Killed after the commit of an epoch, before its signatures were stored.
    #[test]
    fn what_was_final_is_final_after_a_restart() {
        for (n, stored, last_final, last_complete) in [
            (1, &[][..], Some(5), Some(5)),
            (2, &[], Some(5), None),
            (2, &[1], Some(5), Some(5)),
            (3, &[], Some(5), None),
            (3, &[1], Some(5), None),
            (4, &[], None, None),
            (4, &[2], Some(5), None),
            (4, &[1, 2], Some(5), Some(5)),
            (4, &[0, 1], Some(5), None),
            (7, &[1, 2], Some(5), None),
        ] {
            let mut finality = Finality::new(0, n, Arc::new(Named(0)), None);
            let news = finality.load(&header(5), &signed(stored));
            assert_eq!((finality.last_final(), finality.last_complete()), (last_final, last_complete), "{n}");
            // Told only what is not stored yet.
            let all: Vec<NodeId> = std::iter::once(0).chain(stored.iter().copied()).collect();
            let new = last_final.is_some() && !stored.contains(&0) && (stored.is_empty() || n != 3);
            let expected = new.then(|| News::Signatures { epoch: 5, signatures: signed(&all) });
            assert_eq!(news, expected.into_iter().collect::<Vec<_>>(), "{n} {stored:?}");
            assert_eq!(finality.load(&header(6), &signed(&[])).len(), usize::from(n < 4));
        }
        let mut diverged = Finality::new(0, 1, Arc::new(Named(0)), Some(3));
        assert_eq!((diverged.load(&header(5), &signed(&[])), diverged.last_final()), (vec![], None));
    }

    #[test]
    fn one_liar_makes_no_epoch_final() {
        let mut finality = Finality::new(0, 4, Arc::new(Named(0)), None);
        let say = |finality: &mut Finality, from, hash| {
            finality.said(from, &Signed { epoch: 9, hash: [hash; 32], signature: by(from) })
        };
        say(&mut finality, 3, 1);
        say(&mut finality, 3, 1);
        say(&mut finality, 2, 2);
        assert!(!finality.is_final_beyond(0));
        say(&mut finality, 1, 2);
        assert!(finality.is_final_beyond(9) && !finality.is_final_beyond(10));
    }
}

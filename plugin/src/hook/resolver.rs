//! The HTLCs that wait: sets of parts, their time limits, and the answers when something is decided.
//!
//! Sans-IO: requests, time and decisions in, answers out. Nothing here waits, writes a file or asks anyone, so a hook
//! request is answered or put down within microseconds whatever else the plugin does.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::answer::{Answer, Failure};
use super::live::{LiveInvoice, LiveState};
use super::request::{HtlcKey, HtlcRequest, Part};
use super::resolution::{admit, claim_deadline};

/// How long the parts of an incomplete set wait for the others (BOLT 4: at least 60 s).
pub const SET_TIMEOUT: Duration = Duration::from_secs(60);

/// A request's id, as lightningd wrote it.
pub type RequestId = Vec<u8>;
/// Answers to be sent, all in one write.
pub type Answers = Vec<(RequestId, Answer)>;
/// SHA-256 of a preimage.
pub type PaymentHash = [u8; 32];

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Answered at once.
    Now(Answer),
    /// Put down; the answer comes later.
    Held,
    /// Put down, and its set is complete now: to be written down, then reported with [`Resolver::put`].
    Complete(PaymentHash),
}

/// A set that waits for its preimage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldSet {
    /// What it pays.
    pub payment_hash: PaymentHash,
    /// What its HTLCs bring, in msat.
    pub amount_msat: u64,
    /// The last height at which claiming is safe.
    pub claim_deadline: u32,
}

/// The live invoices and what waits for them.
#[derive(Debug, Default)]
pub struct Resolver {
    entries: HashMap<PaymentHash, Entry>,
    height: u32,
    stopping: bool,
}

#[derive(Debug)]
struct Entry {
    invoice: LiveInvoice,
    waiting: BTreeMap<HtlcKey, Waiting>,
    /// The total that the parts of an open set agree on, and when the first came.
    begun: Option<(u64, Instant)>,
    /// Complete, and on its way to the disk.
    complete: bool,
}

#[derive(Debug)]
struct Waiting {
    part: Part,
    /// More than one if lightningd asks again: each request gets its answer.
    ids: Vec<RequestId>,
}

impl Resolver {
    /// Adds an invoice, or sets one to its new state. HTLCs that wait keep waiting.
    pub fn put(&mut self, invoice: LiveInvoice) {
        match self.entries.get_mut(&invoice.payment_hash) {
            Some(entry) => {
                entry.complete = false;
                entry.invoice = invoice;
            }
            None => {
                let entry = Entry { invoice, waiting: BTreeMap::new(), begun: None, complete: false };
                self.entries.insert(entry.invoice.payment_hash, entry);
            }
        }
    }

    /// An invoice as it stands.
    pub fn get(&self, hash: &PaymentHash) -> Option<&LiveInvoice> {
        self.entries.get(hash).map(|entry| &entry.invoice)
    }

    /// Whether the hash is one of ours.
    pub fn knows(&self, hash: &PaymentHash) -> bool {
        self.entries.contains_key(hash)
    }

    /// Takes a request whose hash is one of ours.
    pub fn htlc(&mut self, hash: PaymentHash, request: HtlcRequest, id: RequestId, now: Instant) -> Outcome {
        self.height = self.height.max(request.height);
        let (height, stopping) = (self.height, self.stopping);
        let HtlcRequest { part, last_hop, .. } = request;
        let (Some(entry), Some(hop)) = (self.entries.get_mut(&hash), last_hop) else {
            return Outcome::Now(Answer::Continue);
        };
        let unknown = Failure::UnknownPayment { amount_msat: part.amount_msat, height };
        let refused = Outcome::Now(Answer::Fail(unknown));
        match &entry.invoice.state {
            LiveState::Settled { preimage, parts, .. } if parts.iter().any(|known| known.is(&part)) => {
                return Outcome::Now(Answer::Resolve(*preimage));
            }
            LiveState::Settled { .. } => return refused,
            // Asked again after a restart: it may be funded, so neither time nor terms count any more.
            LiveState::Held { parts } if parts.iter().any(|known| known.is(&part)) => {
                entry.wait(part, id);
                return Outcome::Held;
            }
            LiveState::Held { .. } => return refused,
            LiveState::Open => {}
        }
        // The same HTLC again: nothing has changed about it.
        if let Some(waiting) = entry.waiting.get_mut(&part.key) {
            waiting.ids.push(id);
            return Outcome::Held;
        }
        if entry.complete {
            return refused;
        }
        if stopping {
            return Outcome::Now(Answer::Fail(Failure::Stopping));
        }
        let set_total = entry.begun.map(|(total, _)| total);
        if admit(&part, &hop, &entry.invoice.terms(), set_total, height).is_err() {
            return refused;
        }
        entry.begun.get_or_insert((hop.total_msat, now));
        entry.wait(part, id);
        if entry.amount() < hop.total_msat {
            return Outcome::Held;
        }
        entry.complete = true;
        Outcome::Complete(hash)
    }

    /// The parts of a set, in order.
    pub fn parts(&self, hash: &PaymentHash) -> Vec<Part> {
        let waiting = self.entries.get(hash).map(|entry| entry.waiting.values());
        waiting.into_iter().flatten().map(|waiting| waiting.part.clone()).collect()
    }

    /// Whether a set is complete but not yet written down.
    pub fn is_complete(&self, hash: &PaymentHash) -> bool {
        self.entries.get(hash).is_some_and(|entry| entry.complete)
    }

    /// The sets that are held and written down.
    pub fn held(&self) -> Vec<HeldSet> {
        let held = self.entries.iter().filter_map(|(hash, entry)| {
            let LiveState::Held { .. } = entry.invoice.state else { return None };
            let amount_msat = entry.amount();
            let claim_deadline = entry.waiting.values().map(|waiting| claim_deadline(&waiting.part)).min()?;
            let enough = amount_msat >= entry.invoice.amount_msat;
            enough.then_some(HeldSet { payment_hash: *hash, amount_msat, claim_deadline })
        });
        held.collect()
    }

    /// How many HTLCs wait for an answer.
    pub fn waiting(&self) -> usize {
        self.entries.values().map(|entry| entry.waiting.len()).sum()
    }

    /// The answers to all that waits for a settled hash.
    pub fn claim(&mut self, hash: &PaymentHash) -> Answers {
        let Some(entry) = self.entries.get_mut(hash) else { return Vec::new() };
        let LiveState::Settled { preimage, .. } = entry.invoice.state else { return Vec::new() };
        entry.answer_all(|_| Answer::Resolve(preimage))
    }

    /// Forgets a hash and fails what waits for it.
    pub fn remove(&mut self, hash: &PaymentHash) -> Answers {
        let height = self.height;
        let Some(mut entry) = self.entries.remove(hash) else { return Vec::new() };
        entry.answer_all(|part| unknown(part, height))
    }

    /// Gives up what has waited too long. The second list names held sets that were failed because
    /// their deadline has passed: they are to be forgotten.
    pub fn tick(&mut self, now: Instant) -> (Answers, Vec<PaymentHash>) {
        let mut answers = Vec::new();
        let mut expired = Vec::new();
        let height = self.height;
        for (hash, entry) in &mut self.entries {
            if entry.waiting.values().any(|waiting| height > claim_deadline(&waiting.part)) {
                if !matches!(entry.invoice.state, LiveState::Open) {
                    expired.push(*hash);
                }
                answers.extend(entry.answer_all(|part| unknown(part, height)));
            }
            let open = entry.invoice.state == LiveState::Open && !entry.complete;
            let late = entry.begun.is_some_and(|(_, since)| now.duration_since(since) >= SET_TIMEOUT);
            if open && late {
                answers.extend(entry.answer_all(|_| Answer::Fail(Failure::MppTimeout)));
            }
        }
        (answers, expired)
    }

    /// Notes the chain's height.
    pub fn set_height(&mut self, height: u32) {
        self.height = self.height.max(height);
    }

    /// Takes nothing new any more, and fails what is not complete.
    pub fn stop(&mut self) -> Answers {
        self.stopping = true;
        let open = self
            .entries
            .values_mut()
            .filter(|entry| entry.invoice.state == LiveState::Open && !entry.complete);
        open.flat_map(|entry| entry.answer_all(|_| Answer::Fail(Failure::Stopping))).collect()
    }

    /// Fails what waits for one hash.
    pub fn fail_set(&mut self, hash: &PaymentHash) -> Answers {
        let entry = self.entries.get_mut(hash);
        entry.map(|entry| entry.answer_all(|_| Answer::Fail(Failure::Stopping))).unwrap_or_default()
    }

    /// Fails everything that still waits, and forgets nothing: lightningd may ask again at its next start.
    pub fn fail_all(&mut self) -> Answers {
        let all = self.entries.values_mut();
        all.flat_map(|entry| entry.answer_all(|_| Answer::Fail(Failure::Stopping))).collect()
    }

    /// Forgets a request that has been answered otherwise: two answers to one request end a plugin.
    pub fn disown(&mut self, id: &[u8]) {
        for entry in self.entries.values_mut() {
            for waiting in entry.waiting.values_mut() {
                waiting.ids.retain(|other| other != id);
            }
            entry.waiting.retain(|_, waiting| !waiting.ids.is_empty());
        }
    }
}

impl Entry {
    fn wait(&mut self, part: Part, id: RequestId) {
        let waiting = self.waiting.entry(part.key.clone()).or_insert(Waiting { part, ids: Vec::new() });
        waiting.ids.push(id);
    }

    fn amount(&self) -> u64 {
        self.waiting.values().fold(0, |sum, waiting| sum.saturating_add(waiting.part.amount_msat))
    }

    fn answer_all(&mut self, answer: impl Fn(&Part) -> Answer) -> Answers {
        self.begun = None;
        self.complete = false;
        let waiting = std::mem::take(&mut self.waiting);
        let all = waiting.into_values().map(|waiting| (answer(&waiting.part), waiting.ids));
        all.flat_map(|(answer, ids)| ids.into_iter().map(move |id| (id, answer))).collect()
    }
}

fn unknown(part: &Part, height: u32) -> Answer {
    Answer::Fail(Failure::UnknownPayment { amount_msat: part.amount_msat, height })
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;

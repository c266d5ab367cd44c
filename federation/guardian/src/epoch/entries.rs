//! The pool in memory: what may come in, and the draw. No I/O.
//!
//! # What may come in
//! At most [`MAX_ENTRIES`] transactions of [`MAX_BYTES`]. One entry an input: whoever owns one note can sign
//! any number of transactions that spend it, and all but one of them would only fill the pool. An input is known
//! by its module, key and body; since some bodies can be written in several ways, entries whose inputs have the
//! same key are bounded, too ([`MAX_SAME_KEY`], [`MAX_SAME_KEY_BYTES`]).
//!
//! # The draw
//! Half of a contribution goes to those that wait longest, the rest to a random choice among all others, each with the
//! same chance whatever its size. So a newcomer has a chance at once, however much somebody else has handed in before;
//! and nobody waits for ever, since the oldest entry is in every draw, a large one too. The bound: by age, a draw takes
//! half of the room, or it stops at an entry that is the first of the next draw and fills up the room together with
//! what was taken; so `k` draws that are decided take at least (k − 1) · room / 2 bytes of the oldest, or `most / 2`
//! entries each. With [`MAX_BYTES`] or [`MAX_ENTRIES`] in front of it, an entry is in one of this guardian's next
//! 1 + 64 MiB / 256 KiB + 10,000 / 2,048 < 263 contributions that get into a batch; with less, in fewer. Ages count from
//! this process's start.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use federation_core::encoding::tagged_hash;
use federation_core::{Input, ModuleId, TxId};
use rand::Rng;

/// The most transactions that wait.
pub const MAX_ENTRIES: usize = 10_000;
/// The most bytes that wait.
pub const MAX_BYTES: usize = 64 << 20;
/// The most transactions with an input of the same key.
pub const MAX_SAME_KEY: usize = 256;
/// The most bytes of them, beside the first.
pub const MAX_SAME_KEY_BYTES: usize = 2 << 20;
/// After so many that don't fit, the rest of the room stays empty.
const MISSES: usize = 64;
/// What goes with each transaction in a contribution's encoding: its length.
const OVERHEAD: usize = 4;

/// Why a transaction can't wait here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The pool is full.
    Full,
    /// Another transaction that spends one of its inputs is waiting already.
    InputInUse,
    /// Too many with the same key are.
    KeyInUse,
}

/// What the pool knows of a transaction that is handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// New: it has its place, and is to be made durable.
    New,
    /// Here, and about to be durable.
    Soon,
    /// Here and durable.
    Durable,
}

type Key = (ModuleId, [u8; 32]);

/// A transaction before it is in.
pub struct Candidate {
    /// The hash of the whole transaction.
    pub hash: [u8; 32],
    /// Its id.
    pub txid: TxId,
    /// Its encoding.
    pub bytes: Arc<[u8]>,
    /// Its inputs' keys and hashes.
    inputs: Vec<(Key, [u8; 32])>,
}

impl Candidate {
    /// A transaction with these inputs.
    pub fn new(hash: [u8; 32], txid: TxId, bytes: Arc<[u8]>, inputs: &[Input]) -> Self {
        let inputs = inputs.iter().map(|input| {
            let key = input.key.serialize();
            let module = input.module.0.to_be_bytes();
            ((input.module, key), tagged_hash("cln-federation/pool-input", &[&module, &key, &input.body]))
        });
        Self { hash, txid, bytes, inputs: inputs.collect() }
    }

    fn keys(&self) -> HashSet<Key> {
        self.inputs.iter().map(|(key, _)| *key).collect()
    }
}

struct Entry {
    candidate: Candidate,
    since: Instant,
    durable: bool,
    /// Where it is in `slots`.
    place: usize,
}

struct Slot {
    age: u64,
    bytes: Arc<[u8]>,
    durable: bool,
}

#[derive(Default)]
struct SameKey {
    entries: usize,
    bytes: usize,
}

/// The waiting transactions.
#[derive(Default)]
pub struct Entries {
    by_age: BTreeMap<u64, Entry>,
    by_hash: HashMap<[u8; 32], u64>,
    by_txid: HashMap<TxId, u64>,
    by_input: HashMap<[u8; 32], u64>,
    by_key: HashMap<Key, SameKey>,
    /// The same in no order: what is drawn from.
    slots: Vec<Slot>,
    bytes: usize,
    durable: usize,
    next: u64,
}

impl Entries {
    /// Makes room for a transaction that isn't durable yet.
    pub fn reserve(&mut self, candidate: Candidate) -> Result<Reserved, NoRoom> {
        // With another witness it is the same transaction: both were found right.
        if let Some(entry) = self.by_txid.get(&candidate.txid).and_then(|age| self.by_age.get(age)) {
            return Ok(if entry.durable { Reserved::Durable } else { Reserved::Soon });
        }
        let size = candidate.bytes.len();
        if candidate.inputs.iter().any(|(_, input)| self.by_input.contains_key(input)) {
            return Err(NoRoom::InputInUse);
        }
        for key in candidate.keys() {
            let Some(same) = self.by_key.get(&key) else { continue };
            if same.entries >= MAX_SAME_KEY || same.bytes.saturating_add(size) > MAX_SAME_KEY_BYTES {
                return Err(NoRoom::KeyInUse);
            }
        }
        if self.by_age.len() >= MAX_ENTRIES || self.bytes.saturating_add(size) > MAX_BYTES {
            return Err(NoRoom::Full);
        }
        self.insert(candidate, false);
        Ok(Reserved::New)
    }

    /// What an earlier process has kept: in, whatever the limits say.
    pub fn restore(&mut self, candidate: Candidate) {
        if !self.by_txid.contains_key(&candidate.txid) {
            self.insert(candidate, true);
        }
    }

    fn insert(&mut self, candidate: Candidate, durable: bool) {
        let age = self.next;
        self.durable = self.durable.saturating_add(usize::from(durable));
        self.next = age.saturating_add(1);
        self.bytes = self.bytes.saturating_add(candidate.bytes.len());
        self.by_hash.insert(candidate.hash, age);
        self.by_txid.insert(candidate.txid, age);
        for (_, input) in &candidate.inputs {
            self.by_input.insert(*input, age);
        }
        for key in candidate.keys() {
            let same = self.by_key.entry(key).or_default();
            same.entries = same.entries.saturating_add(1);
            same.bytes = same.bytes.saturating_add(candidate.bytes.len());
        }
        let place = self.slots.len();
        self.slots.push(Slot { age, bytes: Arc::clone(&candidate.bytes), durable });
        self.by_age.insert(age, Entry { candidate, since: Instant::now(), durable, place });
    }

    /// Marks what is durable now. Returns what has gone in the meantime.
    pub fn durable(&mut self, hashes: impl IntoIterator<Item = [u8; 32]>) -> Vec<[u8; 32]> {
        let mut gone = Vec::new();
        for hash in hashes {
            match self.by_hash.get(&hash).and_then(|age| self.by_age.get_mut(age)) {
                Some(entry) => {
                    self.durable = self.durable.saturating_add(usize::from(!entry.durable));
                    entry.durable = true;
                    if let Some(slot) = self.slots.get_mut(entry.place) {
                        slot.durable = true;
                    }
                }
                None => gone.push(hash),
            }
        }
        gone
    }

    /// Takes a decided transaction out.
    pub fn remove(&mut self, hash: &[u8; 32]) {
        let Some(age) = self.by_hash.remove(hash) else { return };
        let Some(entry) = self.by_age.remove(&age) else { return };
        self.durable = self.durable.saturating_sub(usize::from(entry.durable));
        let candidate = entry.candidate;
        self.bytes = self.bytes.saturating_sub(candidate.bytes.len());
        if self.by_txid.get(&candidate.txid) == Some(&age) {
            self.by_txid.remove(&candidate.txid);
        }
        for (_, input) in &candidate.inputs {
            if self.by_input.get(input) == Some(&age) {
                self.by_input.remove(input);
            }
        }
        for key in candidate.keys() {
            let Some(same) = self.by_key.get_mut(&key) else { continue };
            same.entries = same.entries.saturating_sub(1);
            same.bytes = same.bytes.saturating_sub(candidate.bytes.len());
            if same.entries == 0 {
                self.by_key.remove(&key);
            }
        }
        if entry.place < self.slots.len() {
            self.slots.swap_remove(entry.place);
            // Whoever is there now is told so.
            let moved = self.slots.get(entry.place).and_then(|slot| self.by_age.get_mut(&slot.age));
            if let Some(moved) = moved {
                moved.place = entry.place;
            }
        }
    }

    /// Transactions for a contribution with `room` bytes for at most `most` of them: see [above](self).
    pub fn draw(&self, rng: &mut impl Rng, mut room: usize, most: usize) -> Vec<Arc<[u8]>> {
        let mut drawn = Vec::new();
        let half = room / 2;
        // All durable ones up to this age are in.
        let mut oldest = None;
        for (age, entry) in self.by_age.iter().filter(|(_, entry)| entry.durable) {
            let bytes = &entry.candidate.bytes;
            let left = room.checked_sub(bytes.len().saturating_add(OVERHEAD));
            // The first always, whatever its size.
            let stop = !drawn.is_empty() && (room <= half || drawn.len() >= most / 2);
            let Some(left) = left.filter(|_| !stop) else { break };
            room = left;
            oldest = Some(*age);
            drawn.push(Arc::clone(bytes));
        }
        let mut misses = 0usize;
        for slot in self.random(rng).filter(|slot| slot.durable && Some(slot.age) > oldest) {
            if drawn.len() >= most || misses >= MISSES {
                break;
            }
            match room.checked_sub(slot.bytes.len().saturating_add(OVERHEAD)) {
                Some(left) => {
                    room = left;
                    drawn.push(Arc::clone(&slot.bytes));
                }
                None => misses = misses.saturating_add(1),
            }
        }
        drawn
    }

    /// All once, beginning anywhere and in steps of a random width that has no divisor in common with their number: each
    /// has the same chance of each place, and nothing has to be moved for it.
    fn random(&self, rng: &mut impl Rng) -> impl Iterator<Item = &Slot> {
        let count = self.slots.len();
        let mut place = rng.gen_range(0..count.max(1));
        let mut step = rng.gen_range(0..count.max(1));
        while greatest_common_divisor(step, count) > 1 {
            step = step.checked_rem(count).map_or(1, |step| step.saturating_add(1));
        }
        (0..count).filter_map(move |_| {
            place = place.saturating_add(step).checked_rem(count)?;
            self.slots.get(place)
        })
    }

    /// Whether a transaction is waiting, and durable.
    pub fn contains(&self, txid: &TxId) -> bool {
        self.by_txid.get(txid).and_then(|age| self.by_age.get(age)).is_some_and(|entry| entry.durable)
    }

    /// Whether a transaction has a place, durable or not.
    pub fn has(&self, hash: &[u8; 32]) -> bool {
        self.by_hash.contains_key(hash)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.by_age.len()
    }

    /// How many can be drawn: are durable.
    pub fn ready(&self) -> usize {
        self.durable
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.by_age.is_empty()
    }

    /// Their bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How long the oldest has been waiting.
    pub fn oldest(&self) -> Duration {
        self.by_age.first_key_value().map(|(_, entry)| entry.since.elapsed()).unwrap_or_default()
    }
}

fn greatest_common_divisor(mut a: usize, mut b: usize) -> usize {
    while let Some(rest) = a.checked_rem(b) {
        (a, b) = (b, rest);
    }
    a
}

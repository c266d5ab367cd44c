//! What users hand in, verified together: a note in a batch costs a sixth of what it costs alone.
//!
//! Whoever comes while nothing is being verified starts at once, alone; whoever comes meanwhile waits for the end of that, and is
//! verified with all others who came. So nobody waits for company, and the busier a guardian is, the larger and cheaper its
//! batches are. One batch at a time: a flood has one thread, and of the [pool](federation_tbs::pool) of cores no more than one
//! caller's part, so that consensus has the rest.
//!
//! # Those who share a batch
//! - A batch is bounded ([`BATCH_PARTS`], [`BATCH_BYTES`]), and so is how long those behind it wait. A larger transaction has one of
//!   its own.
//! - Small transactions have a lane of their own, and of the work half is theirs, as long as there are any: who sends many large
//!   ones, full of forged notes, makes small ones wait twice as long at most, and for one batch more. What waits is bounded
//!   ([`LANE_PARTS`], [`LANE_BYTES`]): to be told at once that a lane is full is better than to wait for many seconds.
//! - A bad note is found by halving: one among n costs some 2·log₂ n checks of a few pairings beside the batch's own, n of them 2·n − 1.
//!   So a batch never costs more than twice what its notes cost one by one, whatever is in it; and all get verdicts of their own.
//! - What ends in a panic (nothing should) is verified again, each alone: the guilty one fails, the others don't.
//! - Who hangs up before the batch begins isn't in it; after that it makes no difference to anybody else.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use federation_core::Transaction;
use federation_core::db::DbError;
use tokio::sync::oneshot;

/// The most inputs and outputs of a batch.
pub const BATCH_PARTS: usize = 128;
/// The most bytes of a batch.
pub const BATCH_BYTES: usize = 1 << 20;
/// The most inputs and outputs of a small transaction.
pub const SMALL_PARTS: usize = 16;
/// The most inputs and outputs that wait in a lane: each costs less than a millisecond of a core.
pub const LANE_PARTS: usize = 8192;
/// The most bytes that wait in a lane.
pub const LANE_BYTES: usize = 8 << 20;

/// Too many wait to be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// What is answered.
type Answer<V> = Result<V, DbError>;
/// Where the verdict comes, and the duty, if nobody has it.
type Pushed<V> = (oneshot::Receiver<Answer<V>>, Option<Turn<V>>);
/// Transactions with their hashes.
type Transactions = Vec<([u8; 32], Transaction)>;

/// One transaction that waits.
struct Submission<V> {
    hash: [u8; 32],
    transaction: Transaction,
    parts: usize,
    size: usize,
    done: oneshot::Sender<Answer<V>>,
}

/// The same transaction of several users, or of one who asks again, is verified once.
pub(super) struct Batch<V> {
    /// What is to be verified.
    pub transactions: Transactions,
    /// How many inputs and outputs these have.
    parts: usize,
    waiters: Vec<Vec<oneshot::Sender<Answer<V>>>>,
}

/// Where submissions gather. `V` is the verdict.
pub(super) struct Submissions<V>(Mutex<Queue<V>>);

struct Queue<V> {
    small: Lane<V>,
    large: Lane<V>,
    /// How many parts of small ones are to be verified before the next large ones are.
    owed: usize,
    /// Whether somebody takes batches until there are none.
    busy: bool,
}

struct Lane<V> {
    waiting: VecDeque<Submission<V>>,
    parts: usize,
    bytes: usize,
}

/// The duty to take batches until there are none. Who can't leaves those who wait without a verdict, and the duty to the next.
pub(super) struct Turn<V> {
    submissions: Arc<Submissions<V>>,
    over: bool,
}

impl<V> Default for Queue<V> {
    fn default() -> Self {
        let lane = || Lane { waiting: VecDeque::new(), parts: 0, bytes: 0 };
        Self { small: lane(), large: lane(), owed: 0, busy: false }
    }
}

impl<V> Default for Submissions<V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<V> Submissions<V> {
    fn queue(&self) -> MutexGuard<'_, Queue<V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts one of about this size in line. Says where its verdict comes; and if nobody takes batches, the caller has to.
    pub fn push(
        self: &Arc<Self>,
        hash: [u8; 32],
        transaction: Transaction,
        size: usize,
    ) -> Result<Pushed<V>, TooMany> {
        let (done, verdict) = oneshot::channel();
        let parts = transaction.inputs.len().saturating_add(transaction.outputs.len());
        let mut queue = self.queue();
        let lane = if parts <= SMALL_PARTS { &mut queue.small } else { &mut queue.large };
        lane.push(Submission { hash, transaction, parts, size, done })?;
        let first = !std::mem::replace(&mut queue.busy, true);
        drop(queue);
        Ok((verdict, first.then(|| Turn { submissions: Arc::clone(self), over: false })))
    }
}

impl<V> Queue<V> {
    fn next(&mut self) -> Option<Batch<V>> {
        if self.owed > 0
            && let Some(batch) = self.small.next()
        {
            self.owed = self.owed.saturating_sub(batch.parts);
            return Some(batch);
        }
        let large = self.large.next();
        self.owed = large.as_ref().map_or(0, |batch| batch.parts);
        large.or_else(|| self.small.next())
    }
}

impl<V> Lane<V> {
    fn push(&mut self, submission: Submission<V>) -> Result<(), TooMany> {
        if !self.has_room(&submission) {
            self.waiting.retain(|waiting| !waiting.done.is_closed());
            self.parts = self.waiting.iter().fold(0, |sum, waiting| sum.saturating_add(waiting.parts));
            self.bytes = self.waiting.iter().fold(0, |sum, waiting| sum.saturating_add(waiting.size));
            if !self.has_room(&submission) {
                return Err(TooMany);
            }
        }
        self.parts = self.parts.saturating_add(submission.parts);
        self.bytes = self.bytes.saturating_add(submission.size);
        self.waiting.push_back(submission);
        Ok(())
    }

    fn has_room(&self, submission: &Submission<V>) -> bool {
        let parts = self.parts.saturating_add(submission.parts);
        let bytes = self.bytes.saturating_add(submission.size);
        self.waiting.is_empty() || (parts <= LANE_PARTS && bytes <= LANE_BYTES)
    }

    /// What is first in line and still wanted, and fits together into a batch.
    fn next(&mut self) -> Option<Batch<V>> {
        let mut batch = Batch { transactions: Vec::new(), parts: 0, waiters: Vec::new() };
        let mut places: HashMap<[u8; 32], usize> = HashMap::new();
        let mut bytes = 0_usize;
        while let Some(first) = self.waiting.front() {
            if !first.done.is_closed() && !places.contains_key(&first.hash) {
                let parts = batch.parts.saturating_add(first.parts);
                bytes = bytes.saturating_add(first.size);
                if !batch.transactions.is_empty() && (parts > BATCH_PARTS || bytes > BATCH_BYTES) {
                    break;
                }
                batch.parts = parts;
            }
            let Some(Submission { hash, transaction, parts, size, done }) = self.waiting.pop_front() else {
                break;
            };
            (self.parts, self.bytes) = (self.parts.saturating_sub(parts), self.bytes.saturating_sub(size));
            if done.is_closed() {
                continue;
            }
            let place = *places.entry(hash).or_insert(batch.waiters.len());
            match batch.waiters.get_mut(place) {
                Some(waiters) => waiters.push(done),
                None => {
                    batch.transactions.push((hash, transaction));
                    batch.waiters.push(vec![done]);
                }
            }
        }
        (!batch.transactions.is_empty()).then_some(batch)
    }
}

impl<V> Turn<V> {
    /// The next batch. `None`: there is none, and the next to [come](Submissions::push) has the duty.
    pub fn next(&mut self) -> Option<Batch<V>> {
        let mut queue = self.submissions.queue();
        let batch = queue.next();
        if batch.is_none() {
            queue.busy = false;
            self.over = true;
        }
        batch
    }
}

impl<V> Drop for Turn<V> {
    fn drop(&mut self) {
        if !self.over {
            let mut queue = self.submissions.queue();
            *queue = Queue::default();
        }
    }
}

impl<V: Clone> Batch<V> {
    /// Verifies all of it, and answers. `verify` has one verdict a transaction, in order.
    pub fn verify(self, verify: impl Fn(Transactions) -> Vec<V>) {
        let caught = |transactions: Transactions| {
            // (What `verify` shares with others is locked, and whole at any time.)
            let verify = std::panic::AssertUnwindSafe(|| verify(transactions));
            std::panic::catch_unwind(verify).unwrap_or_default()
        };
        let Self { transactions, waiters, .. } = self;
        let mut verdicts: Vec<Option<V>> = caught(transactions.clone()).into_iter().map(Some).collect();
        if verdicts.len() != transactions.len() {
            tracing::error!("a verification was cut off; each of its transactions is verified alone");
            let alone = transactions.into_iter().map(|transaction| caught(vec![transaction]).pop());
            verdicts = alone.collect();
        }
        for (waiters, verdict) in waiters.into_iter().zip(verdicts) {
            for waiter in waiters {
                let cut_off = || DbError::Engine("the verification was cut off".to_owned());
                // Who has hung up doesn't want to know.
                let _ = waiter.send(verdict.clone().ok_or_else(cut_off));
            }
        }
    }
}

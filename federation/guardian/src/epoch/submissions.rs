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
//! - Small transactions have a lane of their own, and the lanes take turns: who sends many large ones, full of forged notes,
//!   makes small ones wait for one batch of them at a time. A lane is full when verifying it would take some seconds
//!   ([`LANE_PARTS`], [`LANE_BYTES`]): to be told so at once is better than to wait that long.
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
    waiters: Vec<Vec<oneshot::Sender<Answer<V>>>>,
}

/// Where submissions gather. `V` is the verdict.
pub(super) struct Submissions<V>(Mutex<Queue<V>>);

struct Queue<V> {
    /// That of small ones first.
    lanes: [Lane<V>; 2],
    /// Whose turn it is.
    turn: usize,
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
        Self { lanes: [lane(), lane()], turn: 0, busy: false }
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
        let [small, large] = &mut queue.lanes;
        let lane = if parts <= SMALL_PARTS { small } else { large };
        lane.push(Submission { hash, transaction, parts, size, done })?;
        let first = !std::mem::replace(&mut queue.busy, true);
        drop(queue);
        Ok((verdict, first.then(|| Turn { submissions: Arc::clone(self), over: false })))
    }
}

impl<V> Lane<V> {
    fn push(&mut self, submission: Submission<V>) -> Result<(), TooMany> {
        let parts = self.parts.saturating_add(submission.parts);
        let bytes = self.bytes.saturating_add(submission.size);
        if !self.waiting.is_empty() && (parts > LANE_PARTS || bytes > LANE_BYTES) {
            return Err(TooMany);
        }
        (self.parts, self.bytes) = (parts, bytes);
        self.waiting.push_back(submission);
        Ok(())
    }

    /// What is first in line and still wanted, and fits together into a batch.
    fn next(&mut self) -> Option<Batch<V>> {
        let mut batch = Batch { transactions: Vec::new(), waiters: Vec::new() };
        let mut places: HashMap<[u8; 32], usize> = HashMap::new();
        let (mut parts, mut bytes) = (0_usize, 0_usize);
        while let Some(first) = self.waiting.front() {
            if !first.done.is_closed() && !places.contains_key(&first.hash) {
                (parts, bytes) = (parts.saturating_add(first.parts), bytes.saturating_add(first.size));
                if !batch.transactions.is_empty() && (parts > BATCH_PARTS || bytes > BATCH_BYTES) {
                    break;
                }
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
    /// The next batch, of the lanes in turn. `None`: there is none, and the next to [come](Submissions::push) has the duty.
    pub fn next(&mut self) -> Option<Batch<V>> {
        let mut queue = self.submissions.queue();
        for lane in [queue.turn, queue.turn ^ 1] {
            if let Some(batch) = queue.lanes.get_mut(lane).and_then(Lane::next) {
                queue.turn = lane ^ 1;
                return Some(batch);
            }
        }
        queue.busy = false;
        self.over = true;
        None
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
        let Self { transactions, waiters } = self;
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

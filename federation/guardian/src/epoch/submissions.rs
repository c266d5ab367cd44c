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
//! - A bad note is found by halving: one among n costs some 2·log₂ n checks of a few pairings beside the batch's own, n of them 2·n − 1.
//!   So a batch never costs more than twice what its notes cost one by one, whatever is in it; and all get verdicts of their own.
//! - What ends in a panic (nothing should) is verified again, each alone: the guilty one fails, the others don't.
//! - Who hangs up before the batch begins isn't in it; after that it makes no difference to anybody else.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use federation_core::Transaction;
use federation_core::db::DbError;
use tokio::sync::oneshot;

use super::entries::{MAX_BYTES, MAX_ENTRIES};

/// The most inputs and outputs of a batch.
pub const BATCH_PARTS: usize = 128;
/// The most bytes of a batch.
pub const BATCH_BYTES: usize = 1 << 20;

/// Too many wait to be verified: as many as the pool could hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// What is answered.
type Answer<V> = Result<V, DbError>;
/// Transactions with their hashes.
type Transactions = Vec<([u8; 32], Transaction)>;

/// One transaction that waits.
struct Submission<V> {
    hash: [u8; 32],
    transaction: Transaction,
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
    waiting: VecDeque<Submission<V>>,
    bytes: usize,
    /// Whether somebody takes batches until there are none.
    busy: bool,
}

impl<V> Default for Submissions<V> {
    fn default() -> Self {
        Self(Mutex::new(Queue { waiting: VecDeque::new(), bytes: 0, busy: false }))
    }
}

impl<V> Submissions<V> {
    fn queue(&self) -> MutexGuard<'_, Queue<V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts one of about this size in line. Says where its verdict comes, and whether the caller has to see to it that somebody
    /// [takes](Self::next) the batches.
    pub fn push(
        &self,
        hash: [u8; 32],
        transaction: Transaction,
        size: usize,
    ) -> Result<(oneshot::Receiver<Answer<V>>, bool), TooMany> {
        let (done, verdict) = oneshot::channel();
        let mut queue = self.queue();
        if queue.waiting.len() >= MAX_ENTRIES || queue.bytes.saturating_add(size) > MAX_BYTES {
            return Err(TooMany);
        }
        queue.bytes = queue.bytes.saturating_add(size);
        queue.waiting.push_back(Submission { hash, transaction, size, done });
        Ok((verdict, !std::mem::replace(&mut queue.busy, true)))
    }

    /// The next batch. `None`: there is none, and the next to [come](Self::push) has to see to it again.
    pub fn next(&self) -> Option<Batch<V>> {
        let mut queue = self.queue();
        let mut batch = Batch { transactions: Vec::new(), waiters: Vec::new() };
        let mut places: HashMap<[u8; 32], usize> = HashMap::new();
        let (mut parts, mut bytes) = (0_usize, 0_usize);
        while let Some(first) = queue.waiting.front() {
            if !first.done.is_closed() && !places.contains_key(&first.hash) {
                let of = first.transaction.inputs.len().saturating_add(first.transaction.outputs.len());
                (parts, bytes) = (parts.saturating_add(of), bytes.saturating_add(first.size));
                if !batch.transactions.is_empty() && (parts > BATCH_PARTS || bytes > BATCH_BYTES) {
                    break;
                }
            }
            let Some(Submission { hash, transaction, size, done }) = queue.waiting.pop_front() else { break };
            queue.bytes = queue.bytes.saturating_sub(size);
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
        queue.busy = !batch.transactions.is_empty();
        queue.busy.then_some(batch)
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

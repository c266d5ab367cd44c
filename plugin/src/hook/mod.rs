//! The `htlc_accepted` hook: hold invoices whose HTLCs wait for the gateway's decision.
//!
//! - [`request`] reads a request, [`answer`] writes one; both are total.
//! - [`resolution`] are the rules for a part; [`resolver`] is the memory of what waits.
//! - [`live`] is the one file: it says after any restart which hashes are ours, and what was decided.
//! - [`Hook`], here, joins them. A hook request only ever takes the resolver's lock, which is held for
//!   microseconds; files are written by the gateway's calls, under a lock of their own.
//!
//! No network and no database: this is the part that becomes a process of its own, the keeper.

pub mod answer;
pub mod live;
pub mod request;
pub mod resolution;
pub mod resolver;
mod store;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{mpsc, watch};

use self::answer::Answer;
use self::live::{LiveFile, LiveInvoice};
use self::request::HtlcRequest;
use self::resolver::{Answers, HeldSet, Outcome, PaymentHash, RequestId, Resolver};
use crate::wire::check::answer as write_answer;
use crate::wire::output::Output;
use crate::wire::pump::HookHandler;

pub use self::store::{HookError, unix_now};

/// How often time limits are looked at.
const TICK: Duration = Duration::from_secs(1);

/// The hook and the invoices it knows.
pub struct Hook {
    resolver: Mutex<Resolver>,
    output: Output,
    /// `None` until [`Hook::load`]. Whoever changes an invoice holds it from reading the state to writing the new one,
    /// so that the file's lines have the order of the changes.
    file: Arc<tokio::sync::Mutex<Option<LiveFile>>>,
    complete: mpsc::UnboundedSender<PaymentHash>,
    completed: Mutex<Option<mpsc::UnboundedReceiver<PaymentHash>>>,
    changes: watch::Sender<u64>,
    started: Instant,
}

impl Hook {
    /// A hook that knows no invoice yet; it answers everything with `continue`.
    pub fn new(output: Output) -> Arc<Self> {
        let (complete, completed) = mpsc::unbounded_channel();
        Arc::new(Self {
            resolver: Mutex::default(),
            output,
            file: Arc::default(),
            complete,
            completed: Mutex::new(Some(completed)),
            changes: watch::Sender::new(1),
            started: Instant::now(),
        })
    }

    /// Takes the file's invoices. To be called before `init` is answered: held HTLCs are asked about right after.
    pub async fn load(self: &Arc<Self>, file: LiveFile, invoices: Vec<LiveInvoice>) {
        {
            let mut resolver = self.resolver();
            invoices.into_iter().for_each(|invoice| resolver.put(invoice));
        }
        *self.file.lock().await = Some(file);
        let completed = self.completed.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(completed) = completed {
            tokio::spawn(self.clone().write_completed(completed));
            tokio::spawn(self.clone().keep_time());
        }
    }

    /// Never poisoned for good: a panic while it is held leaves at worst one request without a slot.
    fn resolver(&self) -> MutexGuard<'_, Resolver> {
        self.resolver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decide(&self, id: &RequestId, params: &Value) -> Option<Answer> {
        let Some(hash) = request::payment_hash(params) else { return Some(Answer::Continue) };
        let mut resolver = self.resolver();
        if !resolver.knows(&hash) {
            return Some(Answer::Continue);
        }
        let Some(request) = HtlcRequest::read(params) else { return Some(Answer::Continue) };
        match resolver.htlc(hash, request, id.clone(), Instant::now()) {
            Outcome::Now(answer) => Some(answer),
            Outcome::Held => None,
            Outcome::Complete(hash) => {
                // The receiver lives as long as the hook.
                let _ = self.complete.send(hash);
                None
            }
        }
    }

    fn send(&self, answers: Answers) {
        let messages = answers.iter().flat_map(|(id, answer)| write_answer(id, "result", &answer.to_json()));
        let messages: Vec<u8> = messages.collect();
        if !messages.is_empty() {
            self.output.send(messages);
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|counter| *counter += 1);
    }

    async fn keep_time(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            let (answers, expired) = self.resolver().tick(Instant::now());
            self.send(answers);
            for hash in expired {
                tracing::error!(
                    payment_hash = hex::encode(hash),
                    "a held payment was failed: its HTLCs were about to expire"
                );
                if let Err(error) = self.forget(hash).await {
                    tracing::error!("{error}");
                }
            }
        }
    }

    /// Notes a new block.
    pub fn block_added(&self, height: u32) {
        self.resolver().set_height(height);
    }

    /// The complete sets.
    pub fn held(&self) -> Vec<HeldSet> {
        self.resolver().held()
    }

    /// How many HTLCs wait for an answer.
    pub fn waiting(&self) -> usize {
        self.resolver().waiting()
    }

    /// Resolves with the new counter when it is no longer `seen`.
    pub async fn held_changed(&self, seen: u64) -> u64 {
        let mut changes = self.changes.subscribe();
        match changes.wait_for(|counter| *counter != seen).await {
            Ok(counter) => *counter,
            // Can't be: the sender is this hook's own.
            Err(_) => seen,
        }
    }

    /// Stops taking HTLCs, lets held ones be settled for a while, then fails the rest. Forgets nothing:
    /// if lightningd itself is stopping it ignores the answers, and asks again at its next start.
    pub async fn stop(&self, patience: Duration) {
        let answers = self.resolver().stop();
        self.send(answers);
        let mut changes = self.changes.subscribe();
        let settled = async { while self.waiting() > 0 && changes.changed().await.is_ok() {} };
        if tokio::time::timeout(patience, settled).await.is_err() {
            let answers = self.resolver().fail_all();
            self.send(answers);
        }
        self.output.drained().await;
    }
}

impl HookHandler for Hook {
    fn htlc_accepted(&self, id: RequestId, params: Option<Value>) {
        let decided = catch_unwind(AssertUnwindSafe(|| match &params {
            Some(params) => self.decide(&id, params),
            None => Some(Answer::Continue),
        }));
        let answer = decided.unwrap_or_else(|_| {
            // The panic hook has logged it. An HTLC without an answer would cost the channel.
            self.resolver().disown(&id);
            Some(Answer::Continue)
        });
        if let Some(answer) = answer {
            self.send(vec![(id, answer)]);
        }
    }
}

#[cfg(test)]
#[path = "hook_tests.rs"]
mod tests;

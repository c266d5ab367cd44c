//! One thread that unblinds and checks what all clients get: what comes together is checked in one batch, so that clients,
//! which share the machine with the guardians, take little of it.

use std::sync::{Arc, mpsc};

use anyhow::{Context as _, Result, anyhow};
use federation_mint::client::{Note, NoteRequest};
use tokio::sync::oneshot;

use super::Holder;
use super::early::Signed;

/// The most answers of one batch: who is in it waits for all.
const BATCH: usize = 64;

struct Answer {
    requests: Vec<NoteRequest>,
    signed: Signed,
    back: oneshot::Sender<Result<Vec<Note>>>,
}

/// The way to that thread, which ends with it.
#[derive(Clone)]
pub struct Teller(mpsc::Sender<Answer>);

impl Teller {
    /// Starts it.
    pub fn start(holder: Arc<Holder>) -> Self {
        let (answers, queue) = mpsc::channel::<Answer>();
        std::thread::spawn(move || {
            while let Ok(first) = queue.recv() {
                let batch: Vec<Answer> =
                    std::iter::once(first).chain(queue.try_iter().take(BATCH - 1)).collect();
                finish(&holder, batch);
            }
        });
        Self(answers)
    }

    /// Notes out of what signs these requests.
    pub async fn finish(&self, requests: Vec<NoteRequest>, signed: Signed) -> Result<Vec<Note>> {
        let (back, notes) = oneshot::channel();
        self.0.send(Answer { requests, signed, back }).map_err(|_| anyhow!("the teller is gone"))?;
        notes.await.context("the teller is gone")?
    }
}

/// Those that came by shares in one batch, those that came by outcomes in another.
fn finish(holder: &Holder, batch: Vec<Answer>) {
    let (mut early, mut late) = (Batch::default(), Batch::default());
    for Answer { requests, signed, back } in batch {
        match signed {
            Signed::Shares(shares) => early.add(requests, shares, back),
            Signed::Outcomes(outcomes) => late.add(requests, outcomes, back),
        }
    }
    early.finish(|requests, shares| holder.finish_early(requests, shares));
    late.finish(|requests, outcomes| holder.finish(requests, outcomes));
}

/// Answers of one kind.
struct Batch<S> {
    requests: Vec<NoteRequest>,
    signed: Vec<S>,
    backs: Vec<(usize, oneshot::Sender<Result<Vec<Note>>>)>,
}

impl<S> Default for Batch<S> {
    fn default() -> Self {
        Self { requests: Vec::new(), signed: Vec::new(), backs: Vec::new() }
    }
}

impl<S: Clone + Default> Batch<S> {
    fn add(&mut self, requests: Vec<NoteRequest>, signed: Vec<S>, back: oneshot::Sender<Result<Vec<Note>>>) {
        self.backs.push((requests.len(), back));
        // (One a request, whatever a guardian has sent: what is missing fails the check.)
        self.signed.extend(signed.into_iter().chain(std::iter::repeat(S::default())).take(requests.len()));
        self.requests.extend(requests);
    }

    fn finish(self, work: impl FnOnce(&[NoteRequest], &[S]) -> Result<Vec<Note>>) {
        if self.requests.is_empty() {
            return;
        }
        // Whoever hangs up has stopped.
        match work(&self.requests, &self.signed) {
            Ok(notes) => {
                let mut notes = notes.into_iter();
                for (count, back) in self.backs {
                    let _ = back.send(Ok(notes.by_ref().take(count).collect()));
                }
            }
            Err(error) => {
                for (_, back) in self.backs {
                    let _ = back.send(Err(anyhow!("a guardian's signature is wrong: {error:#}")));
                }
            }
        }
    }
}

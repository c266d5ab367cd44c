//! One thread that unblinds and checks what all clients get: what comes together is checked in one batch, so that clients,
//! which share the machine with the guardians, take little of it.

use std::sync::{Arc, mpsc};

use anyhow::{Context as _, Result, anyhow};
use federation_mint::client::{Note, NoteRequest};
use tokio::sync::oneshot;

use super::Holder;

/// The most answers of one batch: who is in it waits for all.
const BATCH: usize = 64;

struct Answer {
    requests: Vec<NoteRequest>,
    outcomes: Vec<Vec<u8>>,
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

    /// Notes out of the outcomes of these requests.
    pub async fn finish(&self, requests: Vec<NoteRequest>, outcomes: Vec<Vec<u8>>) -> Result<Vec<Note>> {
        let (back, notes) = oneshot::channel();
        self.0.send(Answer { requests, outcomes, back }).map_err(|_| anyhow!("the teller is gone"))?;
        notes.await.context("the teller is gone")?
    }
}

fn finish(holder: &Holder, batch: Vec<Answer>) {
    let (mut requests, mut outcomes, mut backs) = (Vec::new(), Vec::new(), Vec::new());
    for answer in batch {
        backs.push((answer.requests.len(), answer.back));
        // (One outcome a request, whatever a guardian has sent: what is missing fails the check.)
        outcomes.extend(
            answer.outcomes.into_iter().chain(std::iter::repeat(Vec::new())).take(answer.requests.len()),
        );
        requests.extend(answer.requests);
    }
    // Whoever hangs up has stopped.
    match holder.finish(&requests, &outcomes) {
        Ok(notes) => {
            let mut notes = notes.into_iter();
            for (count, back) in backs {
                let _ = back.send(Ok(notes.by_ref().take(count).collect()));
            }
        }
        Err(error) => {
            for (_, back) in backs {
                let _ = back.send(Err(anyhow!("a guardian's signature is wrong: {error:#}")));
            }
        }
    }
}

//! Clients that reissue their notes without a pause. Each hands its transactions in at one guardian, and asks T of them for their
//! shares, over connections that are kept.
//!
//! They run in this process, so their CPU time isn't a guardian's, but they share the machine. What can be done before is: nonces
//! are derived, hashed and blinded before the clock starts, as many as the run will take. What is left of the curve is to combine
//! the shares, one multiplication a note, and a check in a batch, on one thread for all ([`Teller`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use federation_mint::client::{Note, NoteRequest};
use tokio::task::JoinSet;

use super::early::{self, Signed};
use super::{Holder, Shape, Teller, World};

/// Numbers of notes that a client may use; those below the first client's are the purse's.
const NUMBERS: u64 = 1 << 32;

/// All of them.
pub struct Clients {
    clients: Vec<Client>,
    shape: Arc<Shape>,
}

/// What happened in some time.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// From handing a transaction in to holding its notes, checked. In ascending order.
    pub times: Vec<Duration>,
    /// How many of their requests were not prepared.
    pub unprepared: usize,
    /// How many got their notes by outcomes, not by shares.
    pub late: usize,
    /// From the first transaction's start to the last one's end.
    pub took: Duration,
}

struct Client {
    holder: Arc<Holder>,
    shape: Arc<Shape>,
    teller: Teller,
    /// All guardians', its own first.
    urls: Vec<String>,
    notes: Vec<Note>,
    turn: usize,
    /// The number of the next note.
    next: u64,
    prepared: VecDeque<Vec<NoteRequest>>,
    done: Done,
}

impl Clients {
    /// So many, with notes of the purse, spread over the guardians.
    pub async fn start(world: &World, count: usize, shape: Shape) -> Result<Self> {
        let teller = Teller::start(Arc::clone(&world.holder));
        let shape = Arc::new(shape);
        let worths = shape.held(0).repeat(count);
        let mut notes = world.notes(0, &worths).await?.into_iter();
        let all: Vec<String> =
            world.federation.guardians.iter().map(|guardian| guardian.url.clone()).collect();
        let from = |first: usize| all.iter().cycle().skip(first % all.len()).take(all.len()).cloned();
        let clients = (1..=count as u64).zip(0..).map(|(number, first)| Client {
            holder: Arc::clone(&world.holder),
            shape: Arc::clone(&shape),
            teller: teller.clone(),
            urls: from(first).collect(),
            notes: notes.by_ref().take(shape.held(0).len()).collect(),
            turn: 0,
            next: number * NUMBERS,
            prepared: VecDeque::new(),
            done: Done::default(),
        });
        Ok(Self { clients: clients.collect(), shape })
    }

    /// What their transactions are like.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What they hold, in msat.
    pub fn held(&self) -> u64 {
        self.clients.iter().flat_map(|client| &client.notes).map(|note| note.amount().msat()).sum()
    }

    /// Gets the first `count` of them ready for `turns` transactions each.
    pub async fn prepare(&mut self, count: usize, turns: usize) -> Result<()> {
        let mut work = JoinSet::new();
        let others = self.clients.split_off(count.min(self.clients.len()));
        for mut client in std::mem::take(&mut self.clients) {
            work.spawn_blocking(move || {
                client.prepare(turns);
                client
            });
        }
        self.collect(work).await?;
        self.clients.extend(others);
        Ok(())
    }

    /// The first `count` of them reissue for so long, and to the end of what they have begun then.
    pub async fn reissue(&mut self, count: usize, time: Duration) -> Result<Done> {
        let others = self.clients.split_off(count.min(self.clients.len()));
        let started = Instant::now();
        let mut work = JoinSet::new();
        for mut client in std::mem::take(&mut self.clients) {
            work.spawn(async move {
                client.reissue(started + time).await?;
                anyhow::Ok(client)
            });
        }
        let mut finished = Vec::new();
        while let Some(client) = work.join_next().await {
            finished.push(client??);
        }
        let mut done = Done { took: started.elapsed(), ..Done::default() };
        for client in &mut finished {
            let own = std::mem::take(&mut client.done);
            done.times.extend(own.times);
            done.unprepared += own.unprepared;
            done.late += own.late;
        }
        done.times.sort_unstable();
        self.clients = finished.into_iter().chain(others).collect();
        Ok(done)
    }

    async fn collect(&mut self, mut work: JoinSet<Client>) -> Result<()> {
        while let Some(client) = work.join_next().await {
            self.clients.push(client?);
        }
        Ok(())
    }
}

impl Client {
    fn prepare(&mut self, turns: usize) {
        let missing = turns.saturating_sub(self.prepared.len());
        for _ in 0..missing {
            let requests = self.requests(self.turn + self.prepared.len() + 1);
            self.prepared.push_back(requests);
        }
    }

    /// For what is held before this turn.
    fn requests(&mut self, turn: usize) -> Vec<NoteRequest> {
        let requests = self.holder.requests(self.next, self.shape.held(turn));
        self.next += requests.len() as u64;
        requests
    }

    async fn reissue(&mut self, until: Instant) -> Result<()> {
        while Instant::now() < until {
            let requests = match self.prepared.pop_front() {
                Some(requests) => requests,
                None => {
                    self.done.unprepared += 1;
                    self.requests(self.turn + 1)
                }
            };
            let transaction = self.holder.transaction(&self.notes, &requests);
            let started = Instant::now();
            let url = self.urls.first().context("no guardian")?;
            let context = || format!("reissuing at {url}");
            self.holder.submit(url, &transaction).await.with_context(context)?;
            let txid = self.holder.txid(&transaction);
            let signed =
                early::signed(&self.holder, &self.urls, txid, requests.len()).await.with_context(context)?;
            self.done.late += usize::from(matches!(signed, Signed::Outcomes(_)));
            self.notes = self.teller.finish(requests, signed).await?;
            self.done.times.push(started.elapsed());
            self.turn += 1;
        }
        Ok(())
    }
}

//! How long a wallet takes to come back from its words, in a federation with little and with much history: the same wallet, the
//! same guardians, before and after many notes were issued and spent by others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use federation_client::{Folder, Words};
use federation_core::module::Value;
use federation_core::rest::AuditResponse;
use federation_mint::Denomination;
use federation_mint::client::{Deriver, Note, NoteRequest};
use tokio::task::JoinSet;

use super::table::Row;
use super::{Holder, Setup, World};

/// Notes of the wallet.
const LIVE: usize = 1000;
/// Notes that were issued when it is restored first, and last.
const ISSUED: (u64, u64) = (2_000, 100_000);
/// Others that reissue, and their notes: nearly as many as a transaction holds.
const LANES: usize = 4;
const LANE: usize = 250;
/// Outputs of one transaction of the purse.
const OUTPUTS: usize = 200;
/// Each time is the middle one of so many.
const TRIES: usize = 3;

/// Somebody who reissues without a pause.
struct Lane {
    holder: Arc<Holder>,
    url: String,
    notes: Vec<Note>,
    worths: Vec<Denomination>,
    next: u64,
}

impl Lane {
    async fn reissue(mut self) -> Result<Self> {
        let url = self.url.clone();
        let work = move || {
            let requests = self.holder.requests(self.next, &self.worths);
            self.next += requests.len() as u64;
            let transaction = self.holder.transaction(&self.notes, &requests);
            (self, requests, transaction)
        };
        let (mut lane, requests, transaction) = tokio::task::spawn_blocking(work).await?;
        lane.holder.submit(&url, &transaction).await?;
        let outcomes = lane.holder.ready(&url, lane.holder.txid(&transaction)).await?;
        let work = move || {
            lane.notes = lane.holder.finish(&requests, &outcomes)?;
            anyhow::Ok(lane)
        };
        tokio::task::spawn_blocking(work).await?
    }
}

/// The rows. `tell` hears how far it is.
pub async fn measure(tell: impl Fn(&str)) -> Result<Vec<Row>> {
    let world = World::start("restoring", Setup { guardians: 4, postgres: false, sat: 50_000 }).await?;
    let words = Words::generate()?;
    let worth = Denomination::new(10)?;
    endow(&world, &words, worth).await?;

    let holder = Arc::clone(&world.holder);
    let worths = vec![Denomination::new(0)?; LANE];
    let mut lanes = Vec::new();
    for (number, guardian) in (0..LANES as u64).zip(&world.federation.guardians) {
        let first = number << 32;
        let notes = world.notes(first, &worths).await?;
        let (holder, worths, url) = (Arc::clone(&holder), worths.clone(), guardian.url.clone());
        lanes.push(Lane { holder, url, notes, worths, next: first + LANE as u64 });
    }
    let before = issued(&world).await?;
    ensure!(before.0 >= ISSUED.0, "{} notes were issued", before.0);
    let short = restore(&world, &words, worth, "short").await?;
    tell(&format!("{} notes issued, {} spent: restored in {:.2} s", before.0, before.1, short.as_secs_f64()));

    let started = Instant::now();
    let mut after = before;
    while after.0 < ISSUED.1 {
        // (The audit is asked for now and then only.)
        for _ in 0..((ISSUED.1 - after.0) / (LANES * LANE) as u64).clamp(1, 20) {
            let mut round = JoinSet::new();
            lanes.drain(..).for_each(|lane| drop(round.spawn(lane.reissue())));
            while let Some(lane) = round.join_next().await {
                lanes.push(lane??);
            }
        }
        after = issued(&world).await?;
    }
    let seconds = started.elapsed().as_secs_f64();
    tell(&format!("{} notes issued, {} spent, in {seconds:.0} s", after.0, after.1));
    let long = restore(&world, &words, worth, "long").await?;
    tell(&format!("restored in {:.2} s", long.as_secs_f64()));
    let held = lanes.iter().flat_map(|lane| &lane.notes).map(|note| note.amount().msat()).sum::<u64>();
    world.conserved(held + LIVE as u64 * worth.amount().msat()).await?;

    Ok(vec![
        Row::at_most(
            format!("restore of {LIVE} live notes, {} issued, against {} issued", after.0, before.0),
            long.as_secs_f64() / short.as_secs_f64(),
            1.3,
            " ×",
        ),
        Row::info("these times", format!("{:.2} s, {:.2} s", long.as_secs_f64(), short.as_secs_f64())),
    ])
}

/// Issues the wallet's notes: as if it had asked for them itself.
async fn endow(world: &World, words: &Words, worth: Denomination) -> Result<()> {
    let seed = words.seed()?;
    let deriver = Deriver::new(&seed, world.client.federation_id());
    let (module, _) = world.client.mint();
    for first in (0..LIVE).step_by(OUTPUTS) {
        let numbers = first as u64..(first + OUTPUTS).min(LIVE) as u64;
        let requests = numbers.map(|number| NoteRequest::new(&deriver, number, worth));
        let outputs = requests.map(|request| (request.output(module), Value::free(worth.amount())));
        let operation = rand::random::<[u8; 32]>();
        world.client.transact(operation, Vec::new(), outputs.collect()).await?;
        world.client.settled(operation).await?;
    }
    Ok(())
}

/// How many notes were issued and spent, as the first guardian says when all have settled.
async fn issued(world: &World) -> Result<(u64, u64)> {
    #[derive(serde::Deserialize)]
    struct Line {
        issued: u64,
        spent: u64,
    }
    #[derive(serde::Deserialize)]
    struct Books {
        denominations: Vec<Line>,
    }
    let _: AuditResponse = world.federation.audit().await?;
    let books: Books = world.guardian(0)?.get("/v1/modules/mint/audit").await?;
    let sum = |count: fn(&Line) -> u64| books.denominations.iter().map(count).sum();
    Ok((sum(|line| line.issued), sum(|line| line.spent)))
}

/// The middle one of several times; each restore must find all notes.
async fn restore(world: &World, words: &Words, worth: Denomination, name: &str) -> Result<Duration> {
    let invite = world.federation.invite.parse().ok().context("the invite code can't be read")?;
    let mut times = Vec::new();
    for attempt in 0..TRIES {
        let folder = Folder::new(world.sandbox.path().join(format!("{name}-{attempt}")));
        let started = Instant::now();
        let (client, restored) = folder.restore(&invite, words, |_| {}).await?;
        times.push(started.elapsed());
        drop(client);
        ensure!(restored.notes == LIVE, "{} notes came back", restored.notes);
        ensure!(
            restored.balance.msat() == LIVE as u64 * worth.amount().msat(),
            "{}",
            restored.balance.msat()
        );
    }
    times.sort_unstable();
    times.get(TRIES / 2).copied().context("no times")
}

//! What whole guardians cost: processes, real notes, a real chain. The rows of `cargo bench -p federation-consensus` that
//! a consensus alone can't show.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use federation_core::Transaction;
use federation_mint::Denomination;
use futures::StreamExt as _;
use futures::future::try_join_all;

use crate::federation::Guardian;
use crate::load::usage;
use crate::load::world::{SOON, Setup, World};
use crate::wait_for;

/// What each note is worth: 2^10 msat.
const WORTH: u8 = 10;
/// Requests to a guardian at the same time.
const CLIENTS: usize = 64;

async fn world() -> Result<World> {
    World::start("costs", Setup { guardians: 4, postgres: false, sat: 200_000 }).await
}

/// `count` notes, and the transactions that spend them: 1 in, 1 out.
async fn spends(world: &World, count: usize) -> Result<Vec<Transaction>> {
    eprintln!("making {count} notes");
    let worths = vec![Denomination::new(WORTH)?; count];
    let notes = world.notes(0, &worths).await?;
    let requests = world.holder.requests(1 << 32, &worths);
    let parts = notes.chunks(1).zip(requests.chunks(1));
    Ok(parts.map(|(note, request)| world.holder.transaction(note, request)).collect())
}

async fn accepted(world: &World, guardian: &Guardian, spend: &Transaction) -> Result<()> {
    world.holder.accepted(&guardian.url, world.holder.txid(spend)).await.map(drop)
}

/// Three guardians make `epochs` epochs of `each` spends while the fourth is away; then it comes back. What comes out, by name.
pub async fn history(epochs: usize, each: usize) -> Result<BTreeMap<&'static str, f64>> {
    let mut world = world().await?;
    let count = epochs * each;
    let spends = spends(&world, count).await?;
    let before = world.disk(0).await?;

    world.guardian(3)?.process.stop().await?;
    eprintln!("spending them");
    let first = world.guardian(0)?.status().await?.epoch;
    let started = Instant::now();
    for (round, spends) in spends.chunks(each).enumerate() {
        let guardian = world.guardian(round % 3)?;
        try_join_all(spends.iter().map(|spend| world.holder.submit(&guardian.url, spend))).await?;
        try_join_all(spends.iter().map(|spend| accepted(&world, guardian, spend))).await?;
    }
    let made = started.elapsed();
    let last = world.federation.settled().await?;

    eprintln!("the fourth comes back");
    let back = Instant::now();
    world.federation.guardians.get_mut(3).context("a fourth")?.process.restart()?;
    let fourth = world.guardian(3)?;
    let up =
        wait_for("it answers", SOON, || async { Ok(fourth.status().await.ok().map(|_| back.elapsed())) })
            .await?;
    wait_for("it has caught up", SOON * 5, || async {
        Ok((fourth.status().await?.epoch >= last).then_some(()))
    })
    .await?;
    let caught_up = back.elapsed();

    let after = world.disk(0).await?;
    let grown = |kind: &str| {
        let size = |sizes: &BTreeMap<&str, u64>| sizes.get(kind).copied().unwrap_or(0) as f64;
        (size(&after) - size(&before)) / count as f64
    };
    Ok(BTreeMap::from([
        ("epochs", (last - first) as f64),
        ("transactions", count as f64),
        ("made_seconds", made.as_secs_f64()),
        ("up_seconds", up.as_secs_f64()),
        ("caught_up_seconds", caught_up.as_secs_f64()),
        ("store_bytes", grown("store")),
        ("journal_bytes", grown("journal")),
        ("snapshot_bytes", grown("snapshots")),
    ]))
}

/// `bursts` times `waiting` spends are handed to all four guardians at once: how many are decided a second. Then one client at
/// a time: how long until its spend is accepted.
pub async fn load(bursts: usize, waiting: usize, singles: usize) -> Result<BTreeMap<&'static str, f64>> {
    let world = world().await?;
    let spends = spends(&world, bursts * waiting + singles).await?;
    let (many, single) = spends.split_at_checked(bursts * waiting).context("the spends")?;
    eprintln!("spending them");
    let mut rates = Vec::new();
    for burst in many.chunks(waiting) {
        let started = Instant::now();
        let mut guardians = world.federation.guardians.iter().cycle();
        let submissions = burst.iter().map(|spend| {
            let (world, guardian) = (&world, guardians.next());
            async move { world.holder.submit(&guardian.context("a guardian")?.url, spend).await }
        });
        let mut submissions = futures::stream::iter(submissions).buffer_unordered(CLIENTS);
        while let Some(submitted) = submissions.next().await {
            submitted?;
        }
        wait_for("all are decided", SOON, || async {
            for guardian in &world.federation.guardians {
                if guardian.status().await?.pool > 0 {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .await?;
        rates.push(burst.len() as f64 / started.elapsed().as_secs_f64());
        world.federation.settled().await?;
    }
    for spend in many.iter().step_by(97) {
        accepted(&world, world.guardian(0)?, spend).await?;
    }
    let mut times = Vec::new();
    for spend in single {
        let (started, guardian) = (Instant::now(), world.guardian(0)?);
        world.holder.submit(&guardian.url, spend).await?;
        accepted(&world, guardian, spend).await?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
        // The notes of this one are signed in the next epoch: a spend that comes meanwhile waits for its end.
        for guardian in &world.federation.guardians {
            world.holder.ready(&guardian.url, world.holder.txid(spend)).await?;
        }
        world.federation.settled().await?;
    }
    let median = |mut all: Vec<f64>| {
        all.sort_unstable_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    Ok(BTreeMap::from([("per_second", median(rates)), ("p50_ms", median(times))]))
}

/// The CPU time of each of four idle guardians, as the share of a core, over `span`; and how many epochs there were.
pub async fn idle(span: Duration) -> Result<BTreeMap<&'static str, f64>> {
    let world = world().await?;
    world.client.settle_all(SOON).await?;
    // A deposit's last signatures.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let first = world.federation.settled().await?;
    let used = || usage::cpu(&world.federation).total().as_secs_f64();
    let (before, started) = (used(), Instant::now());
    tokio::time::sleep(span).await;
    let share = (used() - before) / started.elapsed().as_secs_f64();
    let epochs = world.federation.settled().await? - first;
    Ok(BTreeMap::from([("percent", 100.0 * share / 4.0), ("epochs", epochs as f64)]))
}

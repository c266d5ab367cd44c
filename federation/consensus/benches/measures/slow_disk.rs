//! What a slow disk costs: each flush of journal and store takes 10 ms longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::fleet::{Fleet, TRANSACTION};
use crate::flushes::ROUNDS;
use crate::table::Row;

const N: u16 = 4;
const WAITING: usize = 2_000;
const DELAY: Duration = Duration::from_millis(10);
const SPAN: Duration = Duration::from_secs(5);
const TURNS: usize = 3;
const PAYMENTS: usize = 60;

/// Transactions a second while `WAITING` wait all the time.
async fn throughput(delay: Duration) -> Result<f64> {
    let fleet = Fleet::start(N, delay).await?;
    let decided = Arc::new(AtomicU64::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for at in 0..WAITING {
        if let Some(guardian) = fleet.guardians.get(at % N as usize) {
            let (guardian, decided) = (Arc::clone(guardian), Arc::clone(&decided));
            clients.spawn(async move {
                while guardian.submit().await.is_ok() {
                    decided.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    }
    tokio::time::sleep(SPAN / 5).await;
    let (started, before) = (Instant::now(), decided.load(Ordering::Relaxed));
    tokio::time::sleep(SPAN).await;
    let (count, elapsed) = (decided.load(Ordering::Relaxed) - before, started.elapsed());
    clients.shutdown().await;
    fleet.stop().await;
    Ok(count as f64 / elapsed.as_secs_f64())
}

/// The median time until one client's transaction is committed, nothing else going on.
async fn latency(delay: Duration) -> Result<Duration> {
    let fleet = Fleet::start(N, delay).await?;
    let mut times = Vec::new();
    if let Some(guardian) = fleet.guardians.first() {
        for _ in 0..PAYMENTS {
            let started = Instant::now();
            guardian.submit().await?;
            times.push(started.elapsed());
            // The others finish the epoch, too.
            fleet.settled().await?;
        }
    }
    fleet.stop().await;
    times.sort_unstable();
    Ok(times.get(times.len() / 2).copied().unwrap_or_default())
}

/// The rows.
pub async fn measure() -> Result<Vec<Row>> {
    let (mut fast, mut slow) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        fast.push(throughput(Duration::ZERO).await?);
        slow.push(throughput(DELAY).await?);
    }
    let median = |mut all: Vec<f64>| {
        all.sort_unstable_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    let (fast, slow) = (median(fast), median(slow));
    let (quick, late) = (latency(Duration::ZERO).await?, latency(DELAY).await?);
    let rise = late.saturating_sub(quick).as_secs_f64() * 1e3;
    let bar = (ROUNDS + 2) as f64 * DELAY.as_secs_f64() * 1e3;
    Ok(vec![
        Row::info(
            format!("consensus alone, opaque transactions of {TRANSACTION} B, fsync + 10 ms"),
            format!("{fast:.0}/s, then {slow:.0}/s (nothing else takes time there)"),
        ),
        Row::at_most(
            format!("fsync + 10 ms, one client: p50 rises by ({ROUNDS} rounds + 2)"),
            rise,
            bar,
            " ms",
        ),
        Row::info("consensus only", format!("{quick:.1?}, then {late:.1?}")),
    ])
}

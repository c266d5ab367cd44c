//! How often a guardian waits for its disk in an epoch.

use std::time::Duration;

use anyhow::Result;

use crate::fleet::Fleet;
use crate::table::Row;

/// Message rounds from proposal to output when all are up (`HoneyBadger in practice`: 5 for n = 4, 7 and 10).
pub const ROUNDS: u64 = 5;

/// The last epoch's late frames are flushed with one of the next ticks.
const LATE: Duration = Duration::from_millis(600);

struct Measured {
    flushes: f64,
    disk: Duration,
    epoch: Duration,
}

/// `epochs` epochs that `proposers` open together, each with a transaction.
async fn epochs(n: u16, proposers: usize, delay: Duration, epochs: u64) -> Result<Measured> {
    let fleet = Fleet::start(n, delay).await?;
    let round = async || {
        let clients = fleet.guardians.iter().take(proposers).map(|guardian| {
            let guardian = std::sync::Arc::clone(guardian);
            tokio::spawn(async move { guardian.submit().await })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await??;
        }
        anyhow::Ok(())
    };
    for _ in 0..10 {
        round().await?;
    }
    fleet.settled().await?;
    tokio::time::sleep(LATE).await;
    let before = (fleet.settled().await?, fleet.flushes());
    let started = std::time::Instant::now();
    while fleet.guardians.iter().map(|guardian| guardian.epochs()).max() < Some(before.0 + epochs) {
        round().await?;
    }
    let elapsed = started.elapsed();
    let counted = fleet.settled().await? - before.0;
    tokio::time::sleep(LATE).await;
    let flushes = (fleet.flushes() - before.1) as f64 / (counted * u64::from(n)) as f64;
    let written = &fleet.guardians.first().map(|guardian| guardian.written.clone()).unwrap_or_default();
    let disk = written.waited() / u32::try_from(written.flushes().max(1))?;
    fleet.stop().await;
    // Each epoch is one commit of the store.
    Ok(Measured { flushes: flushes + 1.0, disk, epoch: elapsed / u32::try_from(counted)? })
}

/// The rows.
pub async fn measure() -> Result<Vec<Row>> {
    let bar = (ROUNDS + 1) as f64;
    let show = |m: &Measured| format!("{:.1}, disk {:.1?}, epoch {:.1?}", m.flushes, m.disk, m.epoch);
    let first = epochs(4, 4, Duration::ZERO, 100).await?;
    let mut rows = vec![
        Row::at_most(format!("fsyncs a guardian and epoch ({ROUNDS} rounds + 1)"), first.flushes, bar, ""),
        Row::info("journal and one commit, all propose, this disk", show(&first)),
    ];
    for (n, proposers, delay) in [(4, 4, 4), (4, 4, 10), (4, 1, 0), (4, 1, 10), (7, 7, 0), (7, 7, 10)] {
        let measured = epochs(n, proposers, Duration::from_millis(delay), 50).await?;
        let name = format!("n = {n}, {proposers} propose, fsync + {delay} ms");
        rows.push(Row::info(name, show(&measured)));
    }
    Ok(rows)
}

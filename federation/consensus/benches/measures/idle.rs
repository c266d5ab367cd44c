//! A federation that has nothing to do.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::cpu::Cpu;
use crate::fleet::Fleet;
use crate::table::Row;

const N: u16 = 4;
const IDLE: Duration = Duration::from_secs(20);

/// The rows.
pub async fn measure() -> Result<Vec<Row>> {
    let fleet = Fleet::start(N, Duration::ZERO).await?;
    for _ in 0..10 {
        for guardian in &fleet.guardians {
            guardian.submit().await?;
        }
    }
    let epochs = fleet.settled().await?;
    // Late signatures and acknowledgements are still under way.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (before, started, flushes) = (Cpu::own(), Instant::now(), fleet.flushes());
    tokio::time::sleep(IDLE).await;
    let (used, elapsed) = (Cpu::own().since(before), started.elapsed());
    ensure!(fleet.settled().await? == epochs, "epochs without anything to propose");
    let flushes = fleet.flushes() - flushes;
    fleet.stop().await;
    let all = 100.0 * used.total().as_secs_f64() / elapsed.as_secs_f64();
    Ok(vec![
        Row::at_most("CPU of an idle guardian's consensus", all / f64::from(N), 0.5, " % of a core"),
        Row::info("four guardians together, no epochs", format!("{all:.2} % of a core, {flushes} flushes")),
    ])
}

//! What the load generator shows, in one run, beside what is asked for.

use anyhow::Result;

use super::parts::Parts;
use super::run::{Load, Options};
use super::table::Row;

/// Clients of the runs that ask for throughput.
const CLIENTS: usize = 64;

fn options(guardians: usize, seconds: f64) -> Options {
    Options { guardians, clients: CLIENTS, seconds, notes_in: 1, notes_out: 1, postgres: false }
}

/// The rows; each run takes so many seconds. `tell` hears what comes out of each.
pub async fn measure(seconds: f64, tell: impl Fn(&str)) -> Result<Vec<Row>> {
    let mut four = Load::start(options(4, seconds)).await?;
    let many = four.run(CLIENTS).await?;
    tell(&many.to_string());
    let one = four.run(1).await?;
    tell(&one.to_string());
    let parts = Parts::measure(four.world().sandbox.path(), 4).await?;
    drop(four);
    let mut seven = Load::start(options(7, seconds)).await?;
    let larger = seven.run(CLIENTS).await?;
    tell(&larger.to_string());

    let (p50, sum) = (one.latency_ms.p50.0, parts.sum_ms());
    let (rate, rate_of_seven) = (many.transactions_per_second, larger.transactions_per_second);
    Ok(vec![
        Row::at_least(
            format!("efficiency, 1 note in, 1 out, {CLIENTS} clients, 4 guardians"),
            many.efficiency,
            0.5,
            "",
        ),
        Row::info(
            "curve a transaction in the batch, CPU a transaction a guardian",
            format!("{:.0} µs of {:.0} µs", many.curve_us, many.guardian_cpu_us),
        ),
        Row::at_most(
            "CPU a transaction a guardian, against one bls12_381 signature check",
            many.cpu_against_bls12_381,
            1.0,
            " ×",
        ),
        Row::info(
            "that check: its pairings alone, prepared keys, all cores busy",
            format!("{:.0} µs", many.curve.bls12_381),
        ),
        Row::at_most(
            "p50 submit → spendable, one client, against the sum of its parts",
            p50 / sum,
            2.0,
            " ×",
        ),
        Row::info("p50, sum", format!("{p50:.1} ms, {sum:.1} ms")),
        Row::info("rounds × (½ round trip + journal), engine, curve, commits × store", parts),
        Row::at_least("throughput with 7 guardians against 4", rate_of_seven / rate, 0.35, " ×"),
        Row::info("transactions a second", format!("{rate_of_seven:.0}, {rate:.0}")),
    ])
}

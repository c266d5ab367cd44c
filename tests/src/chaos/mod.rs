//! Four real guardians under a constant load of spends, while processes, links and disks fail at random.
//!
//! ```text
//! schedule   what fails and when, from a seed        load     wallets that hand notes to each other
//!     │                                                 │
//!     └──────────────▶ world: processes, links ◀────────┤
//!                        │                              ▼
//!                        └────────▶ check ◀──────── witness: each word of each guardian
//! ```
//!
//! While at most f guardians are missing, the others must get on; after each incident all must come to the same epoch; at
//! the end all that was ever promised must be there, on all guardians alike, and no money be missing.

pub mod check;
pub mod load;
pub mod schedule;
pub mod summary;
pub mod witness;
pub mod world;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

pub use self::schedule::{Fault, Incident, Schedule};
pub use self::summary::Summary;
pub use self::world::World;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// For how long faults come.
    pub time: Duration,
    /// What they and the load are drawn from.
    pub seed: u64,
    /// PostgreSQL as the guardians' store, rather than SQLite.
    pub postgres: bool,
    /// How many wallets send to each other.
    pub wallets: usize,
}

/// How many guardians there are.
pub const GUARDIANS: usize = 4;
/// Whether disks are lost and rolled back too.
pub const LOST_DISKS: bool = true;
/// After so many incidents something more is deposited.
const DEPOSIT_EVERY: usize = 3;

/// Runs it; `say` hears what happens, line by line. An error, if anything is not as it must be, tells where the logs are.
pub async fn run(options: Options, mut say: impl FnMut(&str)) -> Result<Summary> {
    let start = Instant::now();
    let mut say = |text: &str| say(&format!("{:>6.1} s  {text}", start.elapsed().as_secs_f32()));
    let world = World::start("chaos", GUARDIANS, options.wallets, options.postgres).await;
    let mut world = world.context("starting four guardians and the wallets")?;
    let store = if options.postgres { "PostgreSQL" } else { "SQLite" };
    say(&format!("{GUARDIANS} guardians on {store} and {} wallets are up", options.wallets));
    let outcome = storm(&mut world, options, &mut say).await;
    let summary = world.summary.clone();
    match outcome {
        Ok(()) if summary.findings.is_empty() => return Ok(summary),
        Ok(()) => {}
        Err(error) => say(&format!("FAILED: {error:#}")),
    }
    world.sandbox.keep_for_a_look();
    bail!("{}\n{summary}\nlogs and data are in {}", world.log_tails(), world.sandbox.path().display());
}

async fn storm(world: &mut World, options: Options, say: &mut impl FnMut(&str)) -> Result<()> {
    let end = Instant::now() + options.time;
    world.load.begin(options.seed);
    world.progress("before the first fault").await?;
    for (number, incident) in Schedule::new(options.seed, GUARDIANS, LOST_DISKS).enumerate() {
        tokio::time::sleep(incident.after).await;
        if Instant::now() >= end {
            break;
        }
        if number % DEPOSIT_EVERY == 0 {
            world.load.deposit(&world.bitcoind, number % options.wallets, 10_000).await?;
        }
        say(&format!("{incident}"));
        let epoch = undergo(world, &incident).await;
        let epoch = epoch.with_context(|| format!("incident {number}, {incident}"))?;
        let accepted = world.load.ledger().accepted();
        say(&format!("    over: epoch {epoch}, {accepted} transactions"));
    }
    say("no more faults: the wallets finish what they are at, and all is compared");
    check::finish(world).await
}

/// One fault from its beginning to its end; the epoch that all have come to after it.
async fn undergo(world: &mut World, incident: &Incident) -> Result<u64> {
    let fault = &incident.fault;
    world.begin(fault).await?;
    world.bitcoind.mine(1).await?;
    world.hold(incident).await?;
    if fault.whom().len() <= world.max_faulty() {
        world.progress("while it lasts").await?;
    }
    world.heal(fault).await?;
    let epoch = world.healed().await?;
    world.progress("after it").await?;
    Ok(epoch)
}

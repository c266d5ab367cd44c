//! One federation under load, once or several times.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::cpu::Cpu;
use super::report::{Latency, Milliseconds};
use super::{Clients, Curve, Report, Setup, Shape, World, disk, usage};

/// Without preparations, to learn how many it takes.
const WARM_UP: Duration = Duration::from_secs(2);
/// The most clients: each has a connection, and money of the purse.
pub const MAX_CLIENTS: usize = 10_000;
/// What a transaction that makes a client's notes leaves over in the purse, in part.
const SPARE_SAT: u64 = 10_000;

/// What to run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Options {
    /// Guardians.
    pub guardians: usize,
    /// Clients at the same time.
    pub clients: usize,
    /// For how long, in seconds.
    pub seconds: f64,
    /// Notes that a transaction spends.
    pub notes_in: usize,
    /// Notes that it makes.
    pub notes_out: usize,
    /// On PostgreSQL rather than SQLite.
    pub postgres: bool,
}

impl Options {
    /// # Errors
    /// What can't be run, and what could be.
    pub fn check(&self) -> Result<()> {
        let (guardians, clients, seconds) = (self.guardians, self.clients, self.seconds);
        ensure!((1..=20).contains(&guardians), "{guardians} guardians: a federation has 1 to 20");
        ensure!((1..=MAX_CLIENTS).contains(&clients), "{clients} clients: there can be 1 to {MAX_CLIENTS}");
        ensure!((0.1..=86_400.0).contains(&seconds), "{seconds} seconds: a run takes 0.1 to 86400");
        Shape::new(self.notes_in, self.notes_out).map(drop)
    }
}

/// A federation with clients.
pub struct Load {
    world: World,
    clients: Clients,
    options: Options,
}

impl Load {
    /// Sets it up.
    pub async fn start(options: Options) -> Result<Self> {
        options.check()?;
        let shape = Shape::new(options.notes_in, options.notes_out)?;
        let sat = Shape::sat() * options.clients as u64 * 2 + SPARE_SAT;
        let setup = Setup { guardians: options.guardians, postgres: options.postgres, sat };
        let world = World::start("load", setup).await?;
        let clients = Clients::start(&world, options.clients, shape).await?;
        Ok(Self { world, clients, options })
    }

    /// The federation.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Loads it with so many of its clients.
    pub async fn run(&mut self, clients: usize) -> Result<Report> {
        let options = Options { clients, ..self.options };
        ensure!((1..=self.options.clients).contains(&clients), "there are {} clients", self.options.clients);
        let before = self.world.disk(0).await?;
        let warm =
            self.clients.reissue(clients, WARM_UP.min(Duration::from_secs_f64(options.seconds))).await?;
        // Some more than the warm-up lets expect.
        let rate = warm.times.len() as f64 / warm.took.as_secs_f64() / clients as f64;
        self.clients.prepare(clients, (rate * options.seconds * 1.5).ceil() as usize + 2).await?;
        let first = self.world.federation.settled().await?;
        let (guardians, own) = (usage::cpu(&self.world.federation), Cpu::own());

        let done = self.clients.reissue(clients, Duration::from_secs_f64(options.seconds)).await?;

        let own = Cpu::own().since(own).total();
        // What all of them have to do for it, also those who were not waited for.
        let epochs = self.world.federation.settled().await? - first;
        let used = usage::cpu(&self.world.federation).since(guardians);
        let memory = usage::memory(&self.world.federation)?;
        let after = self.world.disk(0).await?;
        let circulating =
            self.world.conserved(self.clients.held()).await.context("the money is not all there")?;

        let shape = self.clients.shape().clone();
        let (waiting, n) = (clients, options.guardians);
        let curve = tokio::task::spawn_blocking(move || {
            let curve = Curve::measure(&shape, waiting, n)?;
            anyhow::Ok((curve, curve.transaction(&shape, n)))
        });
        let (curve, needed) = curve.await??;
        let transactions = done.times.len();
        ensure!(transactions > 0, "no transaction was done");
        let share = 1e6 / (transactions * options.guardians) as f64;
        let cpu = used.total().as_secs_f64() * share;
        let all = (transactions + warm.times.len()) as f64;
        let grown = |kind| {
            let size =
                |sizes: &std::collections::BTreeMap<_, u64>| sizes.get(kind).copied().unwrap_or(0) as f64;
            (size(&after) - size(&before)) / all
        };
        Ok(Report {
            options,
            transactions,
            transactions_per_second: transactions as f64 / done.took.as_secs_f64(),
            epochs,
            latency_ms: Latency::of(&done.times),
            guardian_cpu_us: cpu,
            guardian_user_us: used.user.as_secs_f64() * share,
            guardian_system_us: used.system.as_secs_f64() * share,
            client_cpu_us: own.as_secs_f64() * 1e6 / transactions as f64,
            unprepared: done.unprepared,
            late: done.late,
            memory_bytes: memory.iter().sum::<u64>() / memory.len().max(1) as u64,
            memory_bytes_most: memory.iter().copied().max().unwrap_or_default(),
            database_bytes: grown(disk::STORE),
            curve,
            curve_us: needed,
            efficiency: needed / cpu,
            cpu_against_bls12_381: cpu / curve.bls12_381,
            circulating_msat: circulating,
            took: Milliseconds::from(done.took),
        })
    }
}

//! Four guardians, the links between them, bitcoind and wallets; and what is done to them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use federation_core::TxId;
use federation_core::rest::{TransactionResponse, TransactionStatus};
use futures::future::join_all;

use super::LOST_DISKS;
use super::load::Load;
use super::schedule::{Fault, Incident};
use super::summary::Summary;
use crate::federation::Guardian;
use crate::network::Way;
use crate::{Bitcoind, Federation, Network, Postgres, Sandbox, Signal, wait_for};

/// How long a guardian may take to start, to catch up, or to get on with n − f of them, on a busy machine.
pub const SOON: Duration = Duration::from_secs(120);
/// How long a guardian may take to find out that its disk is full: until it has written that much.
const FILLED: Duration = Duration::from_secs(180);

/// All of it. Its parts end with it.
pub struct World {
    // In the order in which they should go.
    /// The wallets.
    pub load: Load,
    /// The guardians.
    pub federation: Federation,
    /// Their links.
    pub network: Network,
    postgres: Option<Postgres>,
    /// The chain.
    pub bitcoind: Bitcoind,
    /// The folder of it all.
    pub sandbox: Sandbox,
    /// What was done.
    pub summary: Summary,
}

impl World {
    /// Sets up `guardians` guardians and wallets with notes.
    pub async fn start(name: &str, guardians: usize, wallets: usize, on_postgres: bool) -> Result<Self> {
        let sandbox = Sandbox::new(name)?;
        let bitcoind = Bitcoind::start(&sandbox).await?;
        let (mut postgres, mut stores) = (None, vec![None; guardians]);
        if on_postgres {
            let server = Postgres::start(&sandbox).await?;
            for (i, store) in stores.iter_mut().enumerate() {
                *store = Some(server.create_database(&format!("guardian{i}")).await?);
            }
            postgres = Some(server);
        }
        let (federation, network) = Federation::start_proxied(&sandbox, &bitcoind, &stores).await?;
        let load = Load::start(&sandbox, &bitcoind, &federation, wallets).await?;
        let summary = Summary::default();
        let world = Self { load, federation, network, postgres, bitcoind, sandbox, summary };
        if LOST_DISKS {
            world.back_up().await?;
        }
        Ok(world)
    }

    /// The store is PostgreSQL.
    pub fn on_postgres(&self) -> bool {
        self.postgres.is_some()
    }

    fn guardian(&self, i: usize) -> Result<&Guardian> {
        self.federation.guardians.get(i).with_context(|| format!("there is no guardian {i}"))
    }

    /// How many guardians may be faulty.
    pub fn max_faulty(&self) -> usize {
        federation_core::config::max_faulty(self.federation.guardians.len())
    }

    /// Kills these with SIGKILL, as close to each other as can be.
    pub async fn kill(&mut self, whom: &[usize]) -> Result<()> {
        let guardians: Vec<_> = whom.iter().map(|i| self.guardian(*i)).collect::<Result<_>>()?;
        std::thread::scope(|scope| {
            for guardian in guardians {
                scope.spawn(|| guardian.process.kill());
            }
        });
        self.summary.kills += whom.len() as u64;
        Ok(())
    }

    /// Starts these again.
    pub fn restart(&mut self, whom: &[usize]) -> Result<()> {
        for i in whom {
            let guardian = self.federation.guardians.get_mut(*i).context("no such guardian")?;
            guardian.process.restart()?;
            self.summary.restarts += 1;
        }
        Ok(())
    }

    /// Brings a fault about, as far as it takes no time.
    pub async fn begin(&mut self, fault: &Fault) -> Result<()> {
        match fault {
            Fault::Kill { whom, .. } => self.kill(whom).await?,
            Fault::Freeze(one) => {
                self.guardian(*one)?.process.signal(Signal::Stop)?;
                self.summary.stops += 1;
            }
            Fault::Cut(whom) => self.network.set_around(whom, Way::Cut),
            Fault::OneWay(from, to) => self.network.set(*from, *to, Way::Cut),
            Fault::Silence(whom) => self.network.set_around(whom, Way::Silent),
            Fault::Slow(late) => self.network.set_all(Way::Slow(*late)),
            Fault::SlowOne(one, late) => self.network.set_around(&[*one], Way::Slow(*late)),
            Fault::FullDisk(one, left) => {
                let process = &self.guardian(*one)?.process;
                // The log is a file of its too, and must be able to say why it stops.
                let log = process.log().metadata()?.len();
                process.limit_files(log.saturating_add(*left))?;
                self.summary.full_disks += 1;
            }
            Fault::Flap(_) => {}
            Fault::Wipe(one) => self.kill(&[*one]).await?,
            Fault::RollBack(one) => {
                self.kill(&[*one]).await?;
                if !self.on_postgres() {
                    let folder = &self.guardian(*one)?.data_dir;
                    let old = folder.with_extension("old");
                    let _ = std::fs::remove_dir_all(&old);
                    copy(folder, &old).await?;
                    self.restart(&[*one])?;
                }
            }
        }
        if let Fault::Cut(_) | Fault::OneWay(..) | Fault::Silence(_) = fault {
            self.summary.cuts += 1;
        }
        if let Fault::Slow(_) | Fault::SlowOne(..) | Fault::Flap(_) = fault {
            self.summary.slow += 1;
        }
        Ok(())
    }

    /// Lets it last.
    pub async fn hold(&mut self, incident: &Incident) -> Result<()> {
        match &incident.strike {
            Some((after, whom)) => {
                self.pass(&incident.fault, *after).await?;
                self.kill(whom).await?;
                self.restart(whom)?;
                self.pass(&incident.fault, incident.hold.saturating_sub(*after)).await?;
            }
            None => self.pass(&incident.fault, incident.hold).await?,
        }
        let Fault::FullDisk(one, _) = incident.fault else { return Ok(()) };
        let process = &self.guardian(one)?.process;
        let status = process.wait_exit(FILLED).await?;
        if status.code() == Some(1) && process.log_tail().contains("guardiand: ") {
            return Ok(());
        }
        Err(process.failure(&format!("has a full disk and did not stop with a reason, but with {status}")))
    }

    async fn pass(&self, fault: &Fault, time: Duration) -> Result<()> {
        let end = tokio::time::Instant::now() + time;
        if let Fault::Flap(every) = fault {
            while tokio::time::Instant::now() < end {
                self.network.drop_all();
                tokio::time::sleep(*every).await;
            }
        }
        tokio::time::sleep_until(end).await;
        Ok(())
    }

    /// Ends it: what was killed runs again, what was cut is whole.
    pub async fn heal(&mut self, fault: &Fault) -> Result<()> {
        match fault {
            Fault::Kill { whom, again } => {
                self.restart(whom)?;
                if let Some(again) = again {
                    tokio::time::sleep(*again).await;
                    self.kill(whom).await?;
                    self.restart(whom)?;
                }
            }
            Fault::Freeze(one) => self.guardian(*one)?.process.signal(Signal::Cont)?,
            Fault::FullDisk(one, _) => self.restart(&[*one])?,
            Fault::RollBack(one) if !self.on_postgres() => {
                self.kill(&[*one]).await?;
                let folder = &self.guardian(*one)?.data_dir;
                std::fs::remove_dir_all(folder)?;
                copy(&folder.with_extension("old"), folder).await?;
                self.load.ledger().wiped(*one);
                self.summary.rollbacks += 1;
                self.restart(&[*one])?;
            }
            Fault::Wipe(one) | Fault::RollBack(one) => {
                self.wipe(*one).await?;
                self.restart(&[*one])?;
            }
            Fault::Flap(_) => {}
            Fault::Cut(_) | Fault::OneWay(..) | Fault::Silence(_) | Fault::Slow(_) | Fault::SlowOne(..) => {
                self.network.set_all(Way::Open);
            }
        }
        Ok(())
    }

    /// With n − f guardians something is decided, whatever the others do.
    pub async fn progress(&mut self, what: &str) -> Result<()> {
        let ledger = Arc::clone(self.load.ledger());
        let before = ledger.accepted();
        let load = &mut self.load;
        let deadline = tokio::time::Instant::now() + SOON;
        while ledger.accepted() == before {
            load.check()?;
            if tokio::time::Instant::now() > deadline {
                bail!("{what}: nothing was accepted for {} s", SOON.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// All guardians run and have come to where the first of them is now.
    pub async fn healed(&self) -> Result<u64> {
        let ready = self.federation.guardians.iter().map(Guardian::ready);
        let epochs: Vec<_> = join_all(ready).await.into_iter().collect::<Result<_>>()?;
        let first = epochs.iter().map(|status| status.epoch).max().context("no guardians")?;
        for guardian in &self.federation.guardians {
            let reached = guardian.process.wait_ready(SOON, || async {
                let epoch = guardian.status().await?.epoch;
                ensure!(epoch >= first, "it is at epoch {epoch} of {first}");
                Ok(Some(()))
            });
            reached.await.context("a guardian does not catch up")?;
        }
        Ok(first)
    }

    /// All guardians say that these transactions are decided.
    pub async fn decided(&self, transactions: &[TxId]) -> Result<()> {
        for txid in transactions {
            for (i, guardian) in self.federation.guardians.iter().enumerate() {
                let what = format!("transaction {txid} is decided on {}", guardian.process.name());
                let response = wait_for(&what, SOON, || async {
                    let path = format!("/v1/transactions/{txid}?wait=10");
                    let response: TransactionResponse = guardian.get(&path).await?;
                    Ok(Some(response).filter(|response| response.status != TransactionStatus::Proposed))
                });
                self.load.ledger().note(i, &response.await?);
            }
        }
        Ok(())
    }

    /// Without load: all guardians are at the same epoch, and nothing waits in their pools.
    pub async fn quiet(&self) -> Result<u64> {
        wait_for("all guardians at the same epoch with empty pools", SOON, || async {
            let mut epochs = Vec::new();
            for guardian in &self.federation.guardians {
                let status = guardian.status().await?;
                epochs.push((status.epoch, status.pool));
            }
            let same = epochs.windows(2).all(|pair| pair.first() == pair.last());
            let first = epochs.first().copied().context("no guardians")?;
            ensure!(same && first.1 == 0, "epochs and pools: {epochs:?}");
            Ok(Some(first.0))
        })
        .await
    }

    /// The last lines of all guardians' logs.
    pub fn log_tails(&self) -> String {
        let tail = |guardian: &Guardian| {
            format!("--- {}\n{}\n", guardian.process.log().display(), guardian.process.log_tail())
        };
        self.federation.guardians.iter().map(tail).collect()
    }

    /// Keeps the secrets of all guardians where no fault comes to.
    async fn back_up(&self) -> Result<()> {
        for (i, guardian) in self.federation.guardians.iter().enumerate() {
            guardian.command(&["backup", &format!("--to={}", self.backup(i).display())]).await?;
        }
        Ok(())
    }

    fn backup(&self, one: usize) -> PathBuf {
        self.sandbox.path().join(format!("backup-{one}"))
    }

    /// A new disk, and on it what the backup has. The guardian must be dead.
    async fn wipe(&mut self, one: usize) -> Result<()> {
        let guardian = self.guardian(one)?;
        std::fs::remove_dir_all(&guardian.data_dir)?;
        if let Some(postgres) = &self.postgres {
            postgres.empty_database(&format!("guardian{one}")).await?;
        }
        guardian.command(&["restore", &format!("--from={}", self.backup(one).display())]).await?;
        self.load.ledger().wiped(one);
        self.summary.wipes += 1;
        Ok(())
    }
}

/// A folder with all that is in it.
pub async fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = tokio::process::Command::new("cp").arg("-a").args([from, to]).status().await?;
    ensure!(copied.success(), "can't copy {} to {}", from.display(), to.display());
    Ok(())
}

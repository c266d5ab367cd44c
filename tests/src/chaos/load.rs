//! A constant load of spends: wallets that hand notes to each other without a pause.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use federation_client::{Client, ClientError, Folder};
use federation_core::Amount;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;

use super::witness::{Ledger, Witness};
use crate::{Bitcoind, Federation, Sandbox, wait_for};

/// What each wallet begins with, in satoshi.
const DEPOSIT: u64 = 200_000;
/// The pause after a failure: guardians are down.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a deposit may take when all guardians are up.
const CLAIM: Duration = Duration::from_secs(120);

/// The wallets. Dropping it ends their work where it stands.
pub struct Load {
    shared: Arc<Shared>,
    workers: JoinSet<Result<()>>,
    folders: Vec<Folder>,
    urls: Vec<String>,
}

struct Shared {
    wallets: Vec<Client>,
    ledger: Arc<Ledger>,
    stop: AtomicBool,
    /// Strings that were received, and strings that two wallets raced for.
    received: AtomicU64,
    races: AtomicU64,
    /// Sends whose string was received: the wallet's number and the operation.
    handed: Mutex<BTreeSet<(usize, [u8; 32])>>,
    /// What was paid in, in satoshi.
    deposited: AtomicU64,
}

impl Load {
    /// Wallets that have joined and hold notes. The federation must be well.
    pub async fn start(
        sandbox: &Sandbox,
        bitcoind: &Bitcoind,
        federation: &Federation,
        wallets: usize,
    ) -> Result<Self> {
        let ledger = Arc::new(Ledger::default());
        let urls: Vec<String> = federation.guardians.iter().map(|guardian| guardian.url.clone()).collect();
        let invite = federation.invite.parse().ok().context("the invite code can't be read")?;
        let mut clients = Vec::new();
        let mut folders = Vec::new();
        for i in 0..wallets {
            let folder = Folder::new(sandbox.path().join(format!("wallet-{i}")));
            let words = folder.words_or_create()?;
            let witness = Arc::new(Witness::new(urls.clone(), Arc::clone(&ledger))?);
            clients.push(Client::join_over(folder.database().await?, &words, &invite, witness).await?);
            folders.push(folder);
        }
        let shared = Shared {
            wallets: clients,
            ledger,
            stop: AtomicBool::new(false),
            received: AtomicU64::new(0),
            races: AtomicU64::new(0),
            handed: Mutex::default(),
            deposited: AtomicU64::new(0),
        };
        let load = Self { shared: Arc::new(shared), workers: JoinSet::new(), folders, urls };
        let mut waiting = Vec::new();
        for wallet in &load.shared.wallets {
            let address = wallet.deposit_address().await?;
            let to = address.address.parse::<bitcoin::Address<_>>()?;
            bitcoind.send(&to.require_network(bitcoin::Network::Regtest)?, DEPOSIT).await?;
            load.shared.deposited.fetch_add(DEPOSIT, Ordering::Relaxed);
            waiting.push((wallet, address));
        }
        bitcoind.mine(2).await?;
        for (wallet, address) in waiting {
            let waited = tokio::time::timeout(CLAIM, wallet.wait_deposit(&address, |_| {})).await;
            waited.context("a deposit was not credited in time")??;
        }
        Ok(load)
    }

    /// Each wallet begins to send; the seed says what and to whom.
    pub fn begin(&mut self, seed: u64) {
        self.shared.stop.store(false, Ordering::Relaxed);
        for from in 0..self.shared.wallets.len() {
            let shared = Arc::clone(&self.shared);
            let random = StdRng::seed_from_u64(seed.wrapping_mul(1000).wrapping_add(from as u64));
            self.workers.spawn(async move { shared.work(from, random).await });
        }
    }

    /// What guardians have said.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.shared.ledger
    }

    /// How many strings were received.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }

    /// For how many strings two wallets raced; exactly one got each.
    pub fn races(&self) -> u64 {
        self.shared.races.load(Ordering::Relaxed)
    }

    /// What was paid in, in satoshi.
    pub fn deposited(&self) -> u64 {
        self.shared.deposited.load(Ordering::Relaxed)
    }

    /// An error if a wallet has met something that must not be. The others work on without an end.
    pub fn check(&mut self) -> Result<()> {
        match self.workers.try_join_next() {
            Some(ended) => ended?.context("a wallet's work"),
            None => Ok(()),
        }
    }

    /// One more deposit, as far as it gets: the guardians may be down. It is claimed at the latest in [`end`](Self::end).
    pub async fn deposit(&self, bitcoind: &Bitcoind, wallet: usize, sat: u64) -> Result<()> {
        let wallet = self.shared.wallets.get(wallet).context("no such wallet")?;
        let address = match wallet.deposit_address().await {
            Ok(address) => address.address.parse::<bitcoin::Address<_>>()?,
            // Too few guardians watch it: nobody pays to it.
            Err(error) if error.is_transient() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        bitcoind.send(&address.require_network(bitcoin::Network::Regtest)?, sat).await?;
        self.shared.deposited.fetch_add(sat, Ordering::Relaxed);
        bitcoind.mine(2).await?;
        Ok(())
    }

    /// Ends the work when all guardians are up: whatever is under way is finished, whatever was not handed over is taken
    /// back, all deposits are claimed. Returns what each wallet holds, in msat, as read from its disk again.
    pub async fn end(&mut self, bitcoind: &Bitcoind, within: Duration) -> Result<Vec<u64>> {
        self.pause(within).await?;
        bitcoind.mine(2).await?;
        let expected = Amount::from_msat(self.deposited() * 1000);
        for (i, wallet) in self.shared.wallets.iter().enumerate() {
            let back = tokio::time::timeout(within, self.take_back(i, wallet)).await;
            back.context("not in time")
                .and_then(|done| done)
                .with_context(|| format!("wallet {i} takes back"))?;
        }
        wait_for("all notes are in the wallets again", within, || async {
            let mut held = Amount::ZERO;
            for wallet in &self.shared.wallets {
                wallet.check_deposits().await?;
                wallet.settle_all(Duration::from_secs(5)).await?;
                held = held.checked_add(wallet.balance().await?).context("too much")?;
            }
            ensure!(held == expected, "{held:?} of {expected:?} are in the wallets");
            Ok(Some(()))
        })
        .await?;
        self.reopen().await?;
        let mut held = Vec::new();
        for wallet in &self.shared.wallets {
            held.push(wallet.balance().await?.msat());
        }
        Ok(held)
    }

    /// Ends the work as soon as each wallet has finished what it is at.
    pub async fn pause(&mut self, within: Duration) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let ended = tokio::time::timeout(within, async {
            while let Some(ended) = self.workers.join_next().await {
                ended?.context("a wallet's work")?;
            }
            anyhow::Ok(())
        });
        ended.await.context("the wallets' work did not end in time")?
    }

    /// Closes the wallets and opens them again.
    async fn reopen(&mut self) -> Result<()> {
        let shared = Arc::get_mut(&mut self.shared).context("the wallets are at work")?;
        shared.wallets.clear();
        for folder in &self.folders {
            // Its database is closed a moment after its last task has ended.
            let opened = wait_for("the wallet opens again", Duration::from_secs(30), || async {
                let witness = Witness::new(self.urls.clone(), Arc::clone(&shared.ledger))?;
                let database = folder.database().await?;
                Ok(Some(Client::open_over(database, &folder.words()?, Arc::new(witness)).await?))
            });
            shared.wallets.push(opened.await?);
        }
        Ok(())
    }

    /// Sends whose string nobody was seen to receive: the sender's call failed, or the work ended before.
    async fn take_back(&self, i: usize, wallet: &Client) -> Result<()> {
        for entry in wallet.history().await? {
            if entry.kind != "send" || matches!(entry.status, "failed" | "reclaimed" | "claimed") {
                continue;
            }
            let op = wallet.find_operation(&entry.id).await?;
            if self.shared.handed().contains(&(i, op)) {
                continue;
            }
            match again(|| wallet.reclaim(op)).await {
                Ok(_) | Err(ClientError::EcashClaimed) => {}
                Err(error) => bail!("send {} ({}): {error}", entry.id, entry.status),
            }
        }
        Ok(())
    }
}

/// Repeats what fails because guardians are down, until it does not.
async fn again<T, F>(mut call: impl FnMut() -> F) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    loop {
        match call().await {
            Err(error) if error.is_transient() => tokio::time::sleep(PAUSE).await,
            result => return result,
        }
    }
}

impl Shared {
    fn handed(&self) -> std::sync::MutexGuard<'_, BTreeSet<(usize, [u8; 32])>> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn work(&self, from: usize, mut random: StdRng) -> Result<()> {
        let wallet = self.wallets.get(from).context("no such wallet")?;
        while !self.stop.load(Ordering::Relaxed) {
            let amount = Amount::from_msat(random.gen_range(1..20_000_000));
            let to = random.gen_range(0..self.wallets.len());
            let race = random.gen_bool(0.05).then(|| random.gen_range(0..self.wallets.len()));
            let sent = match wallet.send(amount, "").await {
                Ok(sent) => sent,
                // It goes on by itself; what becomes of it is seen at the end.
                Err(error) if error.is_transient() => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                // The rest is on its way, or others have it.
                Err(ClientError::InsufficientFunds { .. }) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(error) => return Err(error).with_context(|| format!("wallet {from} sends {amount:?}")),
            };
            match race.filter(|rival| *rival != to) {
                Some(rival) => self.race(&sent.ecash, to, rival).await?,
                None => self.hand(&sent.ecash, to).await.with_context(|| format!("{amount:?} of {from}"))?,
            }
            self.handed().insert((from, sent.operation));
            self.received.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Good notes must be taken, however long it takes.
    async fn hand(&self, ecash: &str, to: usize) -> Result<()> {
        let wallet = self.wallets.get(to).context("no such wallet")?;
        match again(|| wallet.receive(ecash, "")).await {
            // An earlier call was cut short, and has done it all the same.
            Ok(_) | Err(ClientError::EcashReceived) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("wallet {to} lost notes")),
        }
    }

    /// Two wallets want the same notes: all of them go to one.
    async fn race(&self, ecash: &str, one: usize, other: usize) -> Result<()> {
        let take = |to: usize| async move {
            let wallet = self.wallets.get(to).context("no such wallet")?;
            loop {
                return match again(|| wallet.receive(ecash, "")).await {
                    Ok(_) | Err(ClientError::EcashReceived) => Ok(true),
                    Err(ClientError::EcashSpent) => Ok(false),
                    // Guardians that lag behind have not confirmed that they are spent: it may be tried again.
                    Err(ClientError::Rejected { code, .. }) if code == "double_spend" => {
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                    Err(error) => Err(error).with_context(|| format!("wallet {to} lost notes in a race")),
                };
            }
        };
        let (one_has, other_has) = tokio::try_join!(take(one), take(other))?;
        ensure!(one_has != other_has, "of two wallets that got the same notes, {one_has} and {other_has}");
        self.races.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

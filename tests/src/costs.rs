//! What whole guardians cost: processes, real notes, a real chain. The rows of `cargo bench -p federation-consensus` that
//! a consensus alone can't show.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use federation_client::{Client, Folder};
use federation_core::encoding::decode;
use federation_core::module::Value;
use federation_core::rest::{OutputStatus, TransactionResponse, TransactionStatus};
use federation_core::{ModuleId, Transaction};
use federation_mint::Denomination;
use federation_mint::client::{Deriver, Note, NoteRequest, finish_all, spend_input};
use futures::StreamExt as _;
use futures::future::try_join_all;

use crate::federation::Guardian;
use crate::{Bitcoind, Federation, Sandbox, wait_for};

/// What each note is worth: 2^10 msat.
const WORTH: u8 = 10;
/// Outputs of one transaction that makes notes; the change needs some, too.
const OUTPUTS: u64 = 200;
const SOON: Duration = Duration::from_secs(120);
/// Requests to a guardian at the same time.
const CLIENTS: usize = 64;

/// A federation and a purse.
struct World {
    sandbox: Sandbox,
    federation: Federation,
    client: Client,
    deriver: Deriver,
    http: reqwest::Client,
    _bitcoind: Bitcoind,
}

impl World {
    async fn start() -> Result<Self> {
        let sandbox = Sandbox::new("costs")?;
        let bitcoind = Bitcoind::start(&sandbox).await?;
        let federation = Federation::start(&sandbox, &bitcoind, 4).await?;
        let invite = federation.invite.parse().ok().context("the invite code can't be read")?;
        let folder = Folder::new(sandbox.path().join("wallet"));
        let words = folder.words_or_create()?;
        let client = Client::join(folder.database().await?, &words, &invite).await?;
        let address = client.deposit_address().await?;
        let to = address.address.parse::<bitcoin::Address<_>>()?;
        bitcoind.send(&to.require_network(bitcoin::Network::Regtest)?, 200_000).await?;
        bitcoind.mine(2).await?;
        tokio::time::timeout(SOON, client.wait_deposit(&address, |_| {})).await??;
        let deriver = Deriver::new(&[7; 64], client.federation_id());
        let http = reqwest::Client::new();
        Ok(Self { sandbox, federation, client, deriver, http, _bitcoind: bitcoind })
    }

    fn guardian(&self, at: usize) -> Result<&Guardian> {
        self.federation.guardians.get(at).context("no such guardian")
    }

    fn module(&self) -> ModuleId {
        self.client.mint().0
    }

    /// `count` notes, many a transaction.
    async fn notes(&self, first: u64, count: u64) -> Result<Vec<Note>> {
        let worth = Denomination::new(WORTH)?;
        let mut notes = Vec::new();
        let mut next = first;
        while next < first + count {
            let end = (first + count).min(next + OUTPUTS);
            let requests: Vec<_> =
                (next..end).map(|index| NoteRequest::new(&self.deriver, index, worth)).collect();
            let value = Value::free(worth.amount());
            let outputs = requests.iter().map(|request| (request.output(self.module()), value)).collect();
            let operation = rand::random::<[u8; 32]>();
            let txid = self.client.transact(operation, Vec::new(), outputs).await?;
            // The change of one pays for the next.
            self.client.settled(operation).await?;
            let path = format!("/v1/transactions/{txid}?wait=60&until=ready");
            let response: TransactionResponse = self.guardian(0)?.get(&path).await?;
            let mut signatures = Vec::new();
            for output in response.outputs.iter().take(requests.len()) {
                let OutputStatus::Ready { bytes, .. } = output else { anyhow::bail!("a note isn't ready") };
                signatures.push(decode(bytes, 1024)?);
            }
            let pairs: Vec<_> = requests.iter().zip(&signatures).collect();
            for note in finish_all(&pairs, self.client.mint().1) {
                notes.push(note?);
            }
            next = end;
        }
        ensure!(notes.len() as u64 == count, "{} notes", notes.len());
        Ok(notes)
    }

    /// One transaction a note: 1 in, 1 out.
    fn spends(&self, first: u64, notes: &[Note]) -> Vec<Transaction> {
        let spend = |(index, note): (u64, &Note)| {
            let (input, key) = spend_input(note, self.module());
            let output = NoteRequest::new(&self.deriver, index, note.denomination).output(self.module());
            Transaction::sign(self.client.federation_id(), vec![input], vec![output], &[key])
        };
        (first..).zip(notes).map(spend).collect()
    }

    async fn submit(&self, guardian: &Guardian, transaction: &Transaction) -> Result<()> {
        let request = self.http.post(format!("{}/v1/transactions", guardian.url)).json(transaction);
        let response = request.send().await?;
        ensure!(response.status().is_success(), "not taken: {}", response.text().await?);
        Ok(())
    }

    async fn accepted(&self, guardian: &Guardian, transaction: &Transaction) -> Result<()> {
        let txid = transaction.txid(self.client.federation_id());
        let url = format!("{}/v1/transactions/{txid}?wait=60", guardian.url);
        let response: TransactionResponse = self.http.get(url).send().await?.json().await?;
        ensure!(matches!(response.status, TransactionStatus::Accepted { .. }), "{:?}", response.status);
        Ok(())
    }
}

/// Three guardians make `epochs` epochs of `each` spends while the fourth is away; then it comes back. What comes out, by name.
pub async fn history(epochs: usize, each: usize) -> Result<BTreeMap<&'static str, f64>> {
    let mut world = World::start().await?;
    let count = (epochs * each) as u64;
    eprintln!("making {count} notes");
    let notes = world.notes(0, count).await?;
    let spends = world.spends(1 << 32, &notes);
    let before = disk(&mut world, 0).await?;

    world.guardian(3)?.process.stop().await?;
    eprintln!("spending them");
    let first = world.guardian(0)?.status().await?.epoch;
    let started = Instant::now();
    for (round, spends) in spends.chunks(each).enumerate() {
        let guardian = world.guardian(round % 3)?;
        try_join_all(spends.iter().map(|spend| world.submit(guardian, spend))).await?;
        try_join_all(spends.iter().map(|spend| world.accepted(guardian, spend))).await?;
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

    let after = disk(&mut world, 0).await?;
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

/// The sizes of a guardian's files by kind, after a clean stop, which writes the database's log back into it.
async fn disk(world: &mut World, at: usize) -> Result<BTreeMap<&'static str, u64>> {
    let guardian = world.federation.guardians.get_mut(at).context("no such guardian")?;
    guardian.process.stop().await?;
    let mut sizes = BTreeMap::new();
    sum(&guardian.data_dir, &mut sizes)?;
    guardian.process.restart()?;
    guardian.ready().await?;
    world.federation.settled().await?;
    Ok(sizes)
}

fn sum(folder: &Path, sizes: &mut BTreeMap<&'static str, u64>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.to_string_lossy();
        if path.is_dir() {
            sum(&path, sizes)?;
        } else {
            let kind = if name.contains("snapshot") {
                "snapshots"
            } else if name.contains("journal") {
                "journal"
            } else {
                "store"
            };
            *sizes.entry(kind).or_default() += path.metadata()?.len();
        }
    }
    Ok(())
}

/// `bursts` times `waiting` spends are handed to all four guardians at once: how many are decided a second. Then one client at
/// a time: how long until its spend is accepted.
pub async fn load(bursts: usize, waiting: usize, singles: usize) -> Result<BTreeMap<&'static str, f64>> {
    let world = World::start().await?;
    let count = bursts * waiting + singles;
    eprintln!("making {count} notes");
    let notes = world.notes(0, count as u64).await?;
    let spends = world.spends(1 << 32, &notes);
    let (many, single) = spends.split_at_checked(bursts * waiting).context("the spends")?;
    eprintln!("spending them");
    let mut rates = Vec::new();
    for burst in many.chunks(waiting) {
        let started = Instant::now();
        let mut guardians = world.federation.guardians.iter().cycle();
        let submissions = burst.iter().map(|spend| {
            let (world, guardian) = (&world, guardians.next());
            async move { world.submit(guardian.context("a guardian")?, spend).await }
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
        world.accepted(world.guardian(0)?, spend).await?;
    }
    let mut times = Vec::new();
    for spend in single {
        let (started, guardian) = (Instant::now(), world.guardian(0)?);
        world.submit(guardian, spend).await?;
        world.accepted(guardian, spend).await?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
        // The notes of this one are signed in the next epoch.
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
    let world = World::start().await?;
    world.client.settle_all(SOON).await?;
    // A deposit's last signatures.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let first = world.federation.settled().await?;
    let used = || -> Result<f64> {
        let mut sum = 0.0;
        for guardian in &world.federation.guardians {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", guardian.process.pid()))?;
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            for at in [11, 12] {
                sum += fields.get(at).context("no CPU time")?.parse::<f64>()? / 100.0;
            }
        }
        Ok(sum)
    };
    let (before, started) = (used()?, Instant::now());
    tokio::time::sleep(span).await;
    let share = (used()? - before) / started.elapsed().as_secs_f64();
    let epochs = world.federation.settled().await? - first;
    let _ = world.sandbox.path();
    Ok(BTreeMap::from([("percent", 100.0 * share / 4.0), ("epochs", epochs as f64)]))
}

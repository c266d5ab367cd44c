//! What the way of one transaction is made of, from submission to checked notes, each part measured alone.
//!
//! Its client waits for the epoch that agrees on the transaction; with its commit each guardian serves its share. That epoch takes
//! so many message rounds, and in each round a guardian commits to its journal what it has received, before it answers. The epoch
//! in which the guardians give each other their shares comes after it, and nobody waits for that.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use federation_consensus::Bytes;
use federation_consensus::journal::{FileJournal, Journal, MemoryJournal, Record};
use federation_tbs::threshold;

use super::cpu::Cpu;
use super::engines::Engines;
use super::{Curve, Shape};

/// From a proposal to the epoch's output when all guardians are up, from four on (`HoneyBadger in practice`).
const ROUNDS: f64 = 5.0;
/// In the pool, and at the end of the epoch.
const COMMITS: f64 = 2.0;
/// About what a proposal with a transaction has, and a frame.
const SIZE: usize = 500;
const TURNS: usize = 101;

/// The parts, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// Half a round trip over loopback.
    pub half_trip: f64,
    /// A commit of the journal, while those of all guardians commit to this disk.
    pub journal: f64,
    /// A guardian's engine, an epoch: CPU time.
    pub engine: f64,
    /// All of the curve that waits for each other.
    pub curve: f64,
    /// A commit of the store, while those of all guardians commit to this disk.
    pub store: f64,
}

impl Parts {
    /// All but the curve's are measured here, in this folder.
    pub async fn measure(folder: &Path, guardians: usize) -> Result<Self> {
        let shape = Shape::new(1, 1)?;
        let path = folder.to_owned();
        let work = move || {
            anyhow::Ok((
                trip()?,
                journals(&path, guardians)?,
                engine(guardians)?,
                Curve::measure(&shape, 1, guardians)?,
            ))
        };
        let (trip, journal, engine, curve) = tokio::task::spawn_blocking(work).await??;
        let store = stores(folder, guardians).await?;
        // Twice verified: by whom it is handed in to, and by the others, who hear of it from consensus. Then signed, by all at the same
        // time, and combined by the client.
        let curve = 2.0 * (curve.note + curve.blinded_nonce)
            + curve.sign
            + threshold(guardians) as f64 * curve.share
            + curve.combine
            + curve.client;
        Ok(Self { half_trip: trip / 2.0, journal, engine, curve, store })
    }

    /// Their sum, in milliseconds.
    pub fn sum_ms(&self) -> f64 {
        let Self { half_trip, journal, engine, curve, store } = self;
        (ROUNDS * (half_trip + journal) + engine + curve + COMMITS * store) / 1e3
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { half_trip, journal, engine, curve, store } = self;
        write!(
            f,
            "{ROUNDS} × ({half_trip:.0} + {journal:.0}), {engine:.0}, {curve:.0}, {COMMITS} × {store:.0} µs"
        )
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn timed(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let turn = || {
        let started = Instant::now();
        work()?;
        Ok(micros(started.elapsed()))
    };
    Ok(median(std::iter::repeat_with(turn).take(TURNS).collect::<Result<_>>()?))
}

/// A message there and one back.
fn trip() -> Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut here = TcpStream::connect(listener.local_addr()?)?;
    let (mut there, _) = listener.accept()?;
    here.set_nodelay(true)?;
    there.set_nodelay(true)?;
    // Ends with the connection.
    std::thread::spawn(move || {
        let mut message = [0; SIZE];
        while there.read_exact(&mut message).is_ok() && there.write_all(&message).is_ok() {}
    });
    let mut message = [0; SIZE];
    timed(|| {
        here.write_all(&message)?;
        Ok(here.read_exact(&mut message)?)
    })
}

fn journals(folder: &Path, guardians: usize) -> Result<f64> {
    let times: Vec<Result<f64>> = std::thread::scope(|scope| {
        let one = |number: usize| {
            scope.spawn(move || {
                let mut journal = FileJournal::open(folder.join(format!("part-journal-{number}")))?;
                let frame = Bytes::from(vec![7; SIZE]);
                timed(|| {
                    let records = std::array::from_fn::<_, 3, _>(|_| Record::Frame {
                        epoch: 0,
                        from: 0,
                        frame: frame.clone(),
                    });
                    Ok(journal.append(&records)?)
                })
            })
        };
        let threads: Vec<_> = (0..guardians).map(one).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    Ok(median(times.into_iter().collect::<Result<_>>()?))
}

fn engine(guardians: usize) -> Result<f64> {
    let journals = (0..guardians).map(|_| Box::new(MemoryJournal::default()) as Box<dyn Journal>).collect();
    let (mut engines, value) = (Engines::new(journals)?, Bytes::from(vec![7; SIZE]));
    let before = Cpu::own();
    for _ in 0..10 * TURNS {
        engines.epoch(&value)?;
    }
    Ok(micros(Cpu::own().since(before).total()) / (10 * TURNS * guardians) as f64)
}

async fn stores(folder: &Path, guardians: usize) -> Result<f64> {
    let mut work = tokio::task::JoinSet::new();
    for number in 0..guardians {
        let db =
            federation_store::open(&format!("sqlite:{}", folder.join(format!("part-{number}.db")).display()))
                .await?;
        work.spawn(async move {
            let mut times = Vec::new();
            for turn in 0..TURNS {
                // About what a transaction changes.
                let key = |part: u8| [&[part][..], &(turn as u64).to_be_bytes(), &[7; 32]].concat();
                let changes = (0..10).map(|part| (key(part), Some(vec![7; 60]))).collect();
                let started = Instant::now();
                db.commit(changes).await?;
                times.push(micros(started.elapsed()));
            }
            anyhow::Ok(median(times))
        });
    }
    let mut times = Vec::new();
    while let Some(time) = work.join_next().await {
        times.push(time.context("a store")??);
    }
    Ok(median(times))
}

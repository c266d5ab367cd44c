//! The same batch on all cores, against independent processes that do the same on a core each.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::fixture::{DENOMINATIONS, Keys, NOTES};
use crate::table::Row;
use crate::turns::{median, time};

/// The argument that makes this program one of the independent processes.
pub const WORKER: &str = "worker";
const TURNS: usize = 15;
/// Batches a turn.
const BATCHES: u32 = 4;

fn batches(keys: &Keys, notes: &[crate::fixture::Note]) -> Duration {
    time(|| (0..BATCHES).for_each(|_| assert!(keys.all_valid(notes))))
}

/// One of the processes: for each line that comes in, a turn, and its time in nanoseconds as the answer.
pub fn work() {
    let (Ok(keys), mut out) = (Keys::new(), std::io::stdout()) else { return };
    let Ok(notes) = keys.notes(NOTES) else { return };
    for _ in std::io::stdin().lines() {
        if writeln!(out, "{}", batches(&keys, &notes).as_nanos()).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

struct Worker {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Worker {
    fn start() -> std::io::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(WORKER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let missing = || std::io::Error::other("no pipe");
        let to = process.stdin.take().ok_or_else(missing)?;
        let from = BufReader::new(process.stdout.take().ok_or_else(missing)?);
        Ok(Self { process, to, from })
    }

    fn answer(&mut self) -> std::io::Result<Duration> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        line.trim().parse().map(Duration::from_nanos).map_err(std::io::Error::other)
    }
}

/// A turn of all processes at once: the mean of their times.
fn together(workers: &mut [Worker]) -> std::io::Result<Duration> {
    for worker in workers.iter_mut() {
        writeln!(worker.to)?;
    }
    let times: Vec<Duration> = workers.iter_mut().map(Worker::answer).collect::<Result<_, _>>()?;
    Ok(times.iter().sum::<Duration>() / workers.len().max(1) as u32)
}

/// The rows.
pub fn measure() -> Result<Vec<Row>, String> {
    let keys = Keys::new()?;
    let notes = keys.notes(NOTES)?;
    let cores = std::thread::available_parallelism().map_err(|error| error.to_string())?.get();
    let mut workers: Vec<Worker> =
        (0..cores).map(|_| Worker::start()).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    let (mut one, mut pool, mut processes) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..=TURNS {
        let alone = batches(&keys, &notes);
        let pooled = time(|| {
            for _ in 0..BATCHES {
                assert!(keys.all_valid_on_pool(&notes));
            }
        });
        let independent = together(&mut workers).map_err(|error| error.to_string())?;
        if turn > 0 {
            one.push(alone);
            pool.push(pooled);
            processes.push(independent);
        }
    }
    for Worker { mut process, to, .. } in workers {
        drop(to);
        process.wait().map_err(|error| error.to_string())?;
    }
    let [one, pool, independent] =
        [one, pool, processes].map(|times| median(times).as_secs_f64() / f64::from(BATCHES));
    let reached = cores as f64 / independent;
    Ok(vec![
        Row::at_least(
            format!("the same batch on {cores} cores, of what {cores} independent processes reach"),
            1.0 / pool / reached,
            0.9,
            " ×",
        ),
        Row::info(
            format!("{NOTES} notes of {DENOMINATIONS} denominations: one core, all cores"),
            format!("{:.1} ms, {:.1} ms ({:.2} × faster)", one * 1e3, pool * 1e3, one / pool),
        ),
        Row::info(
            format!("{cores} processes at once, a batch of each"),
            format!("{:.1} ms ({:.2} × one core)", independent * 1e3, reached * one),
        ),
    ])
}

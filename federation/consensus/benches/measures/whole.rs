//! Whole guardians: `guardiand` processes, SQLite, real notes, a real chain. The tests' harness runs them (`federation-tests`,
//! program `costs`), as a process of its own: this crate knows nothing of guardians, and its tests need not build them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};

use crate::flushes::ROUNDS;
use crate::table::Row;

/// What the fsyncs of `slow_fsync.c` take longer, in milliseconds.
const DELAY: f64 = 10.0;

/// The folder of the programs, built as this one was.
fn programs() -> Result<&'static Path> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(built) = BUILT.get() {
        return Ok(built);
    }
    eprintln!("building guardiand");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--profile", "bench", "-p", "federation-guardian", "--bin", "guardiand"])
        .args(["-p", "federation-tests", "--bin", "costs", "--no-default-features"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()?;
    ensure!(built.success(), "guardiand can't be built");
    // This program is in `deps`, those are one folder up.
    let own = std::env::current_exe()?;
    let folder = own.ancestors().nth(2).context("no folder of programs")?;
    Ok(BUILT.get_or_init(|| folder.to_owned()))
}

/// A disk that is slower than the one there is, for files whose path ends with `only`.
struct Slow<'a> {
    library: &'a Path,
    only: Option<&'a str>,
}

/// What `costs` measures, by name.
fn costs(what: &str, slow: Option<Slow<'_>>) -> Result<BTreeMap<String, f64>> {
    let folder = programs()?;
    let mut command = Command::new(folder.join("costs"));
    command
        .arg(what)
        .env("GUARDIAND", folder.join("guardiand"))
        .env("RUST_LOG", "warn")
        .stderr(Stdio::inherit());
    if let Some(Slow { library, only }) = slow {
        command.env("LD_PRELOAD", library);
        if let Some(only) = only {
            command.env("SLOW_FSYNC", only);
        }
    }
    let output = command.output()?;
    ensure!(output.status.success(), "costs {what} failed: see above");
    let text = String::from_utf8(output.stdout)?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect())
}

fn get(results: &BTreeMap<String, f64>, name: &str) -> Result<f64> {
    results.get(name).copied().with_context(|| format!("no {name} was measured"))
}

/// Catch-up, and what a transaction leaves on the disk.
pub fn history() -> Result<Vec<Row>> {
    let results = costs("history", None)?;
    let get = |name| get(&results, name);
    let (made, caught_up) = (get("made_seconds")?, get("caught_up_seconds")?);
    let bytes = get("store_bytes")?;
    Ok(vec![
        Row::at_most(
            "catch-up of 1,000 epochs of 10 transactions, against the making",
            caught_up / made,
            0.1,
            " ×",
        ),
        Row::info(
            format!("{} epochs, {} spends made in {made:.1} s", get("epochs")?, get("transactions")?),
            format!("caught up {caught_up:.1} s after its start (answers after {:.1} s)", get("up_seconds")?),
        ),
        Row::at_most("disk a transaction, 1 note in, 1 out", bytes / 1000.0, 1.5, " kB"),
        Row::info(
            "beside it, by how much they have grown a transaction",
            format!("snapshots {:.0} B; journal {:+.0} B", get("snapshot_bytes")?, get("journal_bytes")?),
        ),
    ])
}

/// Whole guardians with nothing to do.
pub fn idle() -> Result<Vec<Row>> {
    let results = costs("idle", None)?;
    ensure!(get(&results, "epochs")? == 0.0, "epochs without anything to do");
    Ok(vec![Row::at_most("CPU of an idle guardiand process", get(&results, "percent")?, 0.5, " % of a core")])
}

/// Whole guardians whose journal is on a slow disk; then their databases as well.
pub fn slow_disk() -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let library = folder.path().join("slow_fsync.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/measures/slow_fsync.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .status();
    ensure!(compiled.is_ok_and(|status| status.success()), "a C compiler is needed for the slow disk");
    let fast = costs("load", None)?;
    let journal = costs("load", Some(Slow { library: &library, only: Some(".journal") }))?;
    let all = costs("load", Some(Slow { library: &library, only: None }))?;
    let [many, fewer, fewest] =
        [get(&fast, "per_second")?, get(&journal, "per_second")?, get(&all, "per_second")?];
    let [quick, late, latest] = [get(&fast, "p50_ms")?, get(&journal, "p50_ms")?, get(&all, "p50_ms")?];
    let bar = (ROUNDS + 2) as f64 * DELAY;
    Ok(vec![
        Row::at_most(
            "journal's fsync + 10 ms, 2,000 waiting: throughput falls by",
            100.0 * (1.0 - fewer / many),
            25.0,
            " %",
        ),
        Row::info("whole guardians, spends of one note", format!("{many:.0}/s, then {fewer:.0}/s")),
        Row::at_most(
            format!("journal's fsync + 10 ms, one client: p50 rises by ({ROUNDS} rounds + 2)"),
            late - quick,
            bar,
            " ms",
        ),
        Row::info("whole guardians, one client", format!("p50 {quick:.0} ms, then {late:.0} ms")),
        Row::info(
            "the same with every fsync + 10 ms, databases' too",
            format!("{fewest:.0}/s, p50 {latest:.0} ms"),
        ),
    ])
}

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

/// What `costs` measures, by name.
fn costs(what: &str, slow_disk: Option<&Path>) -> Result<BTreeMap<String, f64>> {
    let folder = programs()?;
    let mut command = Command::new(folder.join("costs"));
    command
        .arg(what)
        .env("GUARDIAND", folder.join("guardiand"))
        .env("RUST_LOG", "warn")
        .stderr(Stdio::inherit());
    if let Some(library) = slow_disk {
        command.env("LD_PRELOAD", library);
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
            "beside it, in all a transaction",
            format!("journal {:.0} B, snapshots {:.0} B", get("journal_bytes")?, get("snapshot_bytes")?),
        ),
    ])
}

/// Whole guardians with nothing to do.
pub fn idle() -> Result<Vec<Row>> {
    let results = costs("idle", None)?;
    ensure!(get(&results, "epochs")? == 0.0, "epochs without anything to do");
    Ok(vec![Row::at_most("CPU of an idle guardiand process", get(&results, "percent")?, 0.5, " % of a core")])
}

/// Whole guardians on a slow disk: journal and database alike.
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
    let (fast, slow) = (costs("load", None)?, costs("load", Some(&library))?);
    let (many, fewer) = (get(&fast, "per_second")?, get(&slow, "per_second")?);
    let (quick, late) = (get(&fast, "p50_ms")?, get(&slow, "p50_ms")?);
    Ok(vec![
        Row::at_most(
            "fsync + 10 ms, 2,000 waiting: throughput falls by",
            100.0 * (1.0 - fewer / many),
            25.0,
            " %",
        ),
        Row::info("whole guardians, spends of one note", format!("{many:.0}/s, then {fewer:.0}/s")),
        Row::info("whole guardians, one client", format!("p50 {quick:.0} ms, then {late:.0} ms")),
        Row::info(
            format!("the same in flushes of {DELAY} ms (rounds + 2 = {})", ROUNDS + 2),
            format!("{:.1}", (late - quick) / DELAY),
        ),
    ])
}

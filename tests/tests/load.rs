//! The load generator, briefly: it makes progress, the money stays, and machines can read what it prints.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::process::{Command, Output};

use federation_tests::binaries;
use serde_json::Value;

fn load(arguments: &[&str]) -> Output {
    // The one that is built already.
    let guardiand = binaries::find("guardiand").unwrap();
    let mut command = Command::new(binaries::find("load").unwrap());
    command.args(arguments).env("GUARDIAND", guardiand).output().unwrap()
}

fn report(arguments: &[&str]) -> Value {
    let output = load(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    println!("{report:#}");
    let number = |name: &str| report[name].as_f64().unwrap();
    assert!(number("transactions") >= 3.0 && number("epochs") >= 2.0);
    assert!(number("transactions_per_second") > 0.0);
    // A transaction takes a guardian more than its curve, and leaves something behind.
    assert!(number("efficiency") > 0.0 && number("efficiency") < 1.0);
    assert!(number("guardian_cpu_us") > number("curve_us") && number("curve_us") > 0.0);
    assert!(number("database_bytes") > 0.0 && number("memory_bytes") > 1e6);
    let percentile = |name: &str| report["latency_ms"][name].as_f64().unwrap();
    assert!(percentile("p50") > 0.0 && percentile("p50") <= percentile("p90"));
    assert!(percentile("p90") <= percentile("p99") && percentile("p99") <= number("took_ms"));
    // What was deposited, and not a millisatoshi less or more.
    let deposited = 2.0 * 66.0 * number("clients") + 10_000.0;
    assert_eq!(number("circulating_msat"), deposited * 1000.0);
    report
}

#[test]
fn a_short_load_makes_progress_and_conserves() {
    report(&["--guardians=4", "--clients=3", "--seconds=4", "--json"]);
}

#[test]
fn several_notes_go_there_and_back_on_postgres() {
    let report = report(&[
        "--guardians=1",
        "--clients=2",
        "--seconds=3",
        "--notes-in=2",
        "--notes-out=5",
        "--store=postgres",
        "--json",
    ]);
    assert_eq!(report["postgres"], true);
}

#[test]
fn what_cannot_be_run_is_refused_with_the_reason() {
    for (arguments, reason) in [
        (["--guardians=0", "--clients=1"], "a federation has 1 to 20"),
        (["--clients=0", "--seconds=1"], "there can be 1 to 10000"),
        (["--seconds=0", "--clients=1"], "a run takes 0.1 to 86400"),
        (["--notes-in=257", "--notes-out=1"], "1 to 256 on each side"),
        (["--store=paper", "--clients=1"], "invalid value 'paper'"),
        (["--measures", "--clients=1"], "cannot be used with"),
    ] {
        let output = load(&arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(reason), "{arguments:?}: {told}");
    }
}

//! The load generator: see `--help`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use federation_tests::binaries;
use federation_tests::load::{Load, Options, measures, restoring, table};

/// Real guardian processes on loopback, and clients that reissue notes over REST: each spends its notes for new ones, waits for the
/// signatures, unblinds and checks them, and goes on. At the end all money must be there.
///
/// The clients run in this process, apart from the guardians': their CPU time is counted apart, and their blinded nonces are
/// made before the clock starts. Efficiency is the curve time that a transaction needs in a batch, measured here as well, over
/// the CPU time that a guardian took for it.
#[derive(Parser)]
struct Arguments {
    /// How many guardians there are.
    #[arg(long, default_value_t = 4)]
    guardians: usize,
    /// How many clients there are.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// For how long they go on; of --measures, each run.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Notes that a transaction spends.
    #[arg(long, default_value_t = 1)]
    notes_in: usize,
    /// Notes that it makes, worth the same. If the two differ, every second transaction goes the other way.
    #[arg(long, default_value_t = 1)]
    notes_out: usize,
    /// The guardians' store.
    #[arg(long, value_enum, default_value_t = Store::Sqlite)]
    store: Store,
    /// Prints one JSON object instead of lines.
    #[arg(long)]
    json: bool,
    /// Runs what the project's bars are about, and prints a table.
    #[arg(long, conflicts_with_all = ["guardians", "clients", "notes_in", "notes_out", "store", "json"])]
    measures: bool,
    /// Restores a wallet of 1,000 notes before and after 100,000 were issued, and prints a table. Takes some minutes.
    #[arg(long, conflicts_with_all = ["guardians", "clients", "seconds", "notes_in", "notes_out", "store", "json", "measures"])]
    restore: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Store {
    Sqlite,
    Postgres,
}

/// One thread for the clients' requests, one for their curve: the guardians need the machine.
#[tokio::main(worker_threads = 1)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        guardians: arguments.guardians,
        clients: arguments.clients,
        seconds: arguments.seconds,
        notes_in: arguments.notes_in,
        notes_out: arguments.notes_out,
        postgres: matches!(arguments.store, Store::Postgres),
    };
    if let Err(error) = options.check() {
        eprintln!("{error:#}");
        return ExitCode::from(2);
    }
    if let Err(error) = binaries::build("guardiand", "federation-guardian") {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    // All processes end with what is dropped here.
    let outcome = tokio::select! {
        outcome = run(options, &arguments) => outcome,
        _ = tokio::signal::ctrl_c() => {
            eprintln!("interrupted");
            return ExitCode::from(130);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options, arguments: &Arguments) -> Result<()> {
    if arguments.restore {
        table::print(&restoring::measure(|line| println!("{line}")).await?);
        return Ok(());
    }
    if arguments.measures {
        table::print(&measures::measure(options.seconds, |line| println!("{line}\n")).await?);
        return Ok(());
    }
    let report = Load::start(options).await?.run(options.clients).await?;
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}

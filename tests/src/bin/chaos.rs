//! `contrib/chaos`: four real guardians under load, while processes, links and disks fail at random.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use federation_tests::chaos::{self, Options, Schedule};

/// Four real guardians under a constant load of spends, while processes, links and disks fail at random. Exits with 0 only
/// if nothing that was promised is lost, all guardians have the same, and all money is there.
#[derive(Parser)]
struct Arguments {
    /// For how many minutes faults come.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// What the faults and the load are drawn from: the same seed, the same schedule of faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The guardians' store.
    #[arg(long, value_enum, default_value_t = Store::Sqlite)]
    store: Store,
    /// How many wallets send to each other.
    #[arg(long, default_value_t = 6)]
    wallets: usize,
    /// Only shows the first so many faults of the schedule.
    #[arg(long)]
    show: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Store {
    Sqlite,
    Postgres,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(count) = arguments.show {
        for incident in Schedule::new(arguments.seed, chaos::GUARDIANS, chaos::LOST_DISKS).take(count) {
            println!("{:.1?} later: {incident}", incident.after);
        }
        return ExitCode::SUCCESS;
    }
    let options = Options {
        time: Duration::from_secs_f64(arguments.minutes.clamp(0.0, 1e6) * 60.0),
        seed: arguments.seed,
        postgres: matches!(arguments.store, Store::Postgres),
        wallets: arguments.wallets.max(2),
    };
    let run = chaos::run(options, |line| println!("{line}"));
    // All processes end with what is dropped here.
    let outcome = tokio::select! {
        outcome = run => outcome,
        () = asked_to_end() => {
            eprintln!("interrupted");
            return ExitCode::from(130);
        }
    };
    match outcome {
        Ok(summary) => {
            println!("seed {}: {summary}", arguments.seed);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}\nseed {}: FAILED", arguments.seed);
            ExitCode::FAILURE
        }
    }
}

async fn asked_to_end() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => _ = signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
    }
}

//! `ecash`: a wallet for e-cash of a cln-federation, on the command line.
//!
//! Results go to stdout, as text or (`--json`) as one JSON object a line; progress and errors go to stderr. Exit code 0: done;
//! 1: an error; 2: wrong usage; 3: a payment whose result is not known yet.

mod args;
mod commands;
mod output;
mod progress;
mod qr;

use std::process::ExitCode;

use clap::Parser as _;

use args::Args;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error")),
        )
        .with_writer(std::io::stderr)
        .init();
    match commands::run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::error(&error, args.json),
    }
}

//! A gateway with an embedded Lightning node, for operators without Core Lightning: a thin main over the library.

use std::process::ExitCode;

use clap::Parser as _;
use gateway::daemon::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever RUST_BACKTRACE says.
            eprintln!("gatewayd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

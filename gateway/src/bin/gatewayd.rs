//! A gateway with an embedded Lightning node, for operators without Core Lightning: a thin main over the library.

use clap::Parser as _;
use gateway::daemon::Cli;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    Cli::parse().run().await
}

//! The program `gatewayd`: options, running, and the operator's commands to a running one.
//!
//! ```text
//! gatewayd run --network regtest --bitcoind-url … --bitcoind-cookie …    serves until it is stopped
//! gatewayd admin status | balance | connect INVITE | deposit ID | …       asks the running one
//! ```

mod admin;
mod options;
mod run;

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

pub use admin::AdminCommand;
pub use options::RunOptions;

/// A Lightning gateway of cln-federation on an embedded LDK node.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// The folder of all of the gateway's state: back it up as a whole.
    #[arg(long, env = "GATEWAYD_DATA_DIR", global = true, default_value = "gateway")]
    pub data_dir: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the gateway.
    Run(Box<RunOptions>),
    /// Asks a running gateway, and prints its answer as JSON.
    Admin {
        /// The URL of its admin API; by default the one of the gateway that runs in the data folder.
        #[arg(long, env = "GATEWAYD_ADMIN_URL")]
        url: Option<String>,
        /// What to ask.
        #[command(subcommand)]
        command: AdminCommand,
    },
}

impl Cli {
    /// Does it.
    ///
    /// # Errors
    /// Whatever stops it, with what to do about it.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Run(options) => {
                let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
                let colours = std::io::stderr().is_terminal();
                tracing_subscriber::fmt()
                    .with_env_filter(filter)
                    .with_writer(std::io::stderr)
                    .with_ansi(colours)
                    .init();
                // Before any client: several crates link rustls, and none of them chooses for all.
                let _ = rustls::crypto::ring::default_provider().install_default();
                run::run(self.data_dir, *options).await
            }
            Command::Admin { url, command } => {
                let _ = rustls::crypto::ring::default_provider().install_default();
                admin::ask(&self.data_dir, url, command).await
            }
        }
    }
}

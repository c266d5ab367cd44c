//! `contrib/demo`: the main job on regtest, with real parts.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use federation_tests::Sandbox;
use federation_tests::embedded_world::EmbeddedWorld;
use federation_tests::lightningd_world::LightningdWorld;
use federation_tests::setting::{Setting, main_job};
use indicatif::ProgressBar;

/// The main job on regtest, with real parts: a federation of four guardians, a gateway and a payee.
#[derive(Parser)]
struct Options {
    /// Four guardiand, gatewayd on LDK, an LDK payee.
    #[arg(long)]
    embedded: bool,
    /// Four lightningd with the plugin as guardian, one of them the gateway; a fifth is the payee.
    #[arg(long, conflicts_with = "embedded")]
    lightningd: bool,
    /// Leaves all of it running until Ctrl-C, and says how to use it.
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    let found = federation_tests::which("lightningd").is_some();
    let lightningd = options.lightningd || (!options.embedded && found);
    let start = Instant::now();
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner.set_message(if lightningd {
        "starting bitcoind and five lightningd"
    } else {
        "starting bitcoind, guardians, gateway and payee"
    });
    let world: Box<dyn Setting> = if lightningd {
        Box::new(LightningdWorld::start("demo").await.context("starting the world")?)
    } else {
        Box::new(EmbeddedWorld::start(Sandbox::new("demo")?, 4).await.context("starting the world")?)
    };
    let logs = world.sandbox().path().display().to_string();
    let mut last = start;
    let mut step = |text: &str| {
        spinner.suspend(|| println!("{:>6.1} s  {text}", last.elapsed().as_secs_f32()));
        last = Instant::now();
        spinner.set_message("…");
    };
    step("a federation of four guardians, a gateway with a channel, and a payee are up");
    let outcome = main_job(world.as_ref(), &mut step).await;
    spinner.finish_and_clear();
    if let Err(error) = outcome {
        world.sandbox().keep_for_a_look();
        return Err(error.context(format!("the step after the last line above failed; logs are in {logs}")));
    }
    println!("{:>6.1} s  done", start.elapsed().as_secs_f32());
    if options.keep {
        println!("\n{}\n\nCtrl-C ends it all.", world.usage());
        tokio::signal::ctrl_c().await?;
    }
    Ok(())
}

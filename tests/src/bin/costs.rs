//! Measures whole guardians for `cargo bench -p federation-consensus`, which runs this: prints a name and a number a line.

use std::time::Duration;

use anyhow::{Result, bail};
use federation_tests::costs;

#[tokio::main]
async fn main() -> Result<()> {
    let what = std::env::args().nth(1).unwrap_or_default();
    // A smaller number makes a shorter, rougher run.
    let size = |usual| std::env::args().nth(2).and_then(|size| size.parse().ok()).unwrap_or(usual);
    let results = match what.as_str() {
        "history" => costs::history(size(1_000), 10).await?,
        "load" => costs::load(3, size(2_000), 40).await?,
        "idle" => costs::idle(Duration::from_secs(20)).await?,
        _ => bail!("costs history [EPOCHS] | load [WAITING] | idle"),
    };
    for (name, value) in results {
        println!("{name} {value}");
    }
    Ok(())
}

//! `ecash history`

use std::fmt;

use federation_client::ops::now;
use federation_client::{Client, Entry, Result};
use serde::Serialize;

use crate::output::{print, sat};

/// Show what was done, the newest first.
#[derive(Debug, clap::Args)]
pub struct History {
    /// At most so many lines
    #[arg(long, default_value_t = 50)]
    limit: usize,
}

#[derive(Serialize)]
struct Output {
    operations: Vec<Entry>,
}

fn ago(time: u64) -> String {
    match now().as_secs().saturating_sub(time) {
        s @ 0..120 => format!("{s} s ago"),
        s @ 120..7200 => format!("{} min ago", s / 60),
        s @ 7200..172_800 => format!("{} h ago", s / 3600),
        s => format!("{} days ago", s / 86_400),
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.operations.is_empty() {
            return f.write_str("nothing yet");
        }
        for entry in &self.operations {
            let id = entry.id.get(..8).unwrap_or(&entry.id);
            let (amount, status) = (sat(entry.amount_msat), entry.status);
            write!(f, "{id}  {:>12}  {:<8} {amount:>16}  {status}", ago(entry.time), entry.kind)?;
            for extra in [&entry.detail, &entry.memo].into_iter().filter(|extra| !extra.is_empty()) {
                write!(f, "  {extra}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

pub async fn run(client: &Client, history: &History, json: bool) -> Result<()> {
    let mut operations = client.history().await?;
    operations.truncate(history.limit);
    print(&Output { operations }, json)
}

//! `cargo bench -p federation-consensus`: what the consensus costs, beside what it may cost.
//!
//! Every row is measured in this one run, on this machine; names after `--` pick some of them (`epochs`, `large`).

mod bare;
mod cpu;
mod engines;
mod epochs;
mod fleet;
mod flushes;
mod idle;
mod journals;
mod slow_disk;
mod table;
mod whole;

use anyhow::Result;
use table::Row;

type Measure = fn() -> Result<Vec<Row>>;

/// In the order of the table.
const MEASURES: [(&str, Measure); 8] = [
    ("epochs", || epochs::measure(1_000, 300, 2.0)),
    ("flushes", || run(flushes::measure())),
    ("large", || epochs::measure(100_000, 20, 0.4)),
    ("idle", || run(idle::measure())),
    ("idle-process", whole::idle),
    ("history", whole::history),
    ("slow-disk", || run(slow_disk::measure())),
    ("slow-disk-process", whole::slow_disk),
];

/// Threads as a guardian has them.
fn run(measure: impl Future<Output = Result<Vec<Row>>>) -> Result<Vec<Row>> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure)
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let mut rows = Vec::new();
    for (name, measure) in MEASURES {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        eprintln!("measuring: {name}");
        match measure() {
            Ok(measured) => rows.extend(measured),
            Err(error) => rows.push(Row::failed(name, format!("{error:#}"))),
        }
    }
    table::print(&rows);
}

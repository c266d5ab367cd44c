//! `cargo bench -p federation-consensus`: what the consensus costs, beside what it may cost.
//!
//! Every row is measured in this one run, on this machine; names after `--` pick some of them (`epochs`, `large`).

#![allow(clippy::expect_used, clippy::indexing_slicing)] // nothing from outside comes here

mod bare;
mod cpu;
mod engines;
mod epochs;
mod journals;
mod table;

use anyhow::Result;
use table::Row;

type Measure = fn() -> Result<Vec<Row>>;

/// In the order of the table.
const MEASURES: [(&str, Measure); 2] = [
    ("epochs", || epochs::measure(1_000, 200, 2.0)),
    ("large", || epochs::measure(100_000, 20, 0.4)),
];

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

//! `cargo bench -p federation-tbs`: what the curve costs, beside what it may cost.
//!
//! Every row is measured in this one run, on this machine, as the median of turns that alternate with what it is compared
//! with; names after `--` pick some of them (`operations`, `batch`, `cores`, `combine`). A machine with nothing else to do
//! is asked for: the other core counts too.

mod batch;
mod combine;
mod cores;
mod fixture;
mod operations;
mod table;
mod turns;

use table::Row;

type Measure = fn() -> Result<Vec<Row>, String>;

/// In the order of the table.
const MEASURES: [(&str, Measure); 4] = [
    ("operations", || Ok(operations::measure())),
    ("batch", batch::measure),
    ("cores", cores::measure),
    ("combine", combine::measure),
];

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if wanted.first().is_some_and(|wanted| wanted == cores::WORKER) {
        return cores::work();
    }
    let mut rows = Vec::new();
    for (name, measure) in MEASURES {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        eprintln!("measuring: {name}");
        match measure() {
            Ok(measured) => rows.extend(measured),
            Err(error) => rows.push(Row::failed(name, error)),
        }
    }
    table::print(&rows);
}

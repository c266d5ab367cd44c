//! The table that a run ends with.

use std::fmt;

/// One line of the table.
#[derive(Debug)]
pub struct Row {
    /// What was measured.
    pub measure: String,
    /// What came out.
    pub value: String,
    /// What is asked for.
    pub bar: String,
    /// Whether it was reached; `None` for information.
    pub pass: Option<bool>,
}

impl Row {
    /// A ratio that may be at most `bar`.
    pub fn at_most(measure: impl Into<String>, value: f64, bar: f64, unit: &str) -> Self {
        let pass = Some(value <= bar);
        Self {
            measure: measure.into(),
            value: format!("{value:.3}{unit}"),
            bar: format!("≤ {bar}{unit}"),
            pass,
        }
    }

    /// A ratio that must be at least `bar`.
    pub fn at_least(measure: impl Into<String>, value: f64, bar: f64, unit: &str) -> Self {
        let pass = Some(value >= bar);
        Self {
            measure: measure.into(),
            value: format!("{value:.2}{unit}"),
            bar: format!("≥ {bar}{unit}"),
            pass,
        }
    }

    /// A value without a bar.
    pub fn info(measure: impl Into<String>, value: impl fmt::Display) -> Self {
        Self {
            measure: format!("  {}", measure.into()),
            value: value.to_string(),
            bar: String::new(),
            pass: None,
        }
    }

    /// A row that could not be measured counts as missed.
    pub fn failed(measure: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { measure: measure.into(), value: why.to_string(), bar: String::new(), pass: Some(false) }
    }
}

/// The rows in columns.
pub fn print(rows: &[Row]) {
    let width =
        |column: fn(&Row) -> &str| rows.iter().map(|row| column(row).chars().count()).max().unwrap_or(0);
    let (a, b, c) = (width(|row| &row.measure), width(|row| &row.value), width(|row| &row.bar));
    println!("\n{:a$}  {:b$}  {:c$}  result", "measure", "value", "bar");
    println!("{}", "─".repeat(a + b + c + 12));
    for Row { measure, value, bar, pass } in rows {
        let result = match pass {
            Some(true) => "pass",
            Some(false) => "MISSED",
            None => "",
        };
        println!("{measure:a$}  {value:b$}  {bar:c$}  {result}");
    }
    let missed = rows.iter().filter(|row| row.pass == Some(false)).count();
    println!("\n{missed} missed of {}", rows.iter().filter(|row| row.pass.is_some()).count());
}

//! What came out of a run, for people and for machines.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::Curve;
use super::run::Options;

/// A time, as a number in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize)]
pub struct Milliseconds(pub f64);

impl From<Duration> for Milliseconds {
    fn from(time: Duration) -> Self {
        Self(time.as_secs_f64() * 1e3)
    }
}

/// Percentiles.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    /// Half took less.
    pub p50: Milliseconds,
    /// A tenth took more.
    pub p90: Milliseconds,
    /// A hundredth took more.
    pub p99: Milliseconds,
}

impl Latency {
    /// Of times in ascending order.
    pub fn of(sorted: &[Duration]) -> Self {
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
            sorted.get(rank).copied().unwrap_or_default().into()
        };
        Self { p50: at(50), p90: at(90), p99: at(99) }
    }
}

/// A run. Times of CPUs are microseconds a transaction; where it is a guardian's, on average over the guardians.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was run.
    #[serde(flatten)]
    pub options: Options,
    /// How long it took, to the end of the last transaction.
    #[serde(rename = "took_ms")]
    pub took: Milliseconds,
    /// Transactions from submission to checked notes.
    pub transactions: usize,
    /// The same a second.
    pub transactions_per_second: f64,
    /// Epochs that were made for them.
    pub epochs: u64,
    /// From submission to checked notes.
    pub latency_ms: Latency,
    /// User and system time of a guardian.
    pub guardian_cpu_us: f64,
    /// Its user time.
    pub guardian_user_us: f64,
    /// Its system time.
    pub guardian_system_us: f64,
    /// Of the clients, all in one process, without what was prepared.
    pub client_cpu_us: f64,
    /// Transactions whose nonces were not prepared before.
    pub unprepared: usize,
    /// Transactions whose notes came by outcomes, because shares were late.
    pub late: usize,
    /// Resident memory of a guardian at the end.
    pub memory_bytes: u64,
    /// The most that one has.
    pub memory_bytes_most: u64,
    /// By how much one guardian's database has grown a transaction.
    pub database_bytes: f64,
    /// The single operations.
    pub curve: Curve,
    /// The curve's part in a transaction, in the batch.
    pub curve_us: f64,
    /// That part of the CPU time that a guardian took.
    pub efficiency: f64,
    /// The CPU time that a guardian took, against one signature check.
    pub cpu_against_bls12_381: f64,
    /// Issued less spent, as all guardians say, and what purse and clients hold. (If these differ there is no report.)
    pub circulating_msat: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { guardians, clients, notes_in, notes_out, postgres, .. } = self.options;
        let store = if postgres { "PostgreSQL" } else { "SQLite" };
        let Latency { p50, p90, p99 } = self.latency_ms;
        let Curve { batch, note, blinded_nonce, sign, share, combine, check, bls12_381, .. } = self.curve;
        let way = if notes_in == notes_out { "" } else { ", and back in turn" };
        writeln!(
            f,
            "{guardians} guardians on {store}, {clients} clients, {notes_in} notes in, {notes_out} out{way}"
        )?;
        writeln!(
            f,
            "throughput        {:.1} transactions/s ({} in {:.1} s, {} epochs)",
            self.transactions_per_second,
            self.transactions,
            self.took.0 / 1e3,
            self.epochs
        )?;
        writeln!(f, "submit→spendable  p50 {:.0} ms, p90 {:.0} ms, p99 {:.0} ms", p50.0, p90.0, p99.0)?;
        writeln!(
            f,
            "CPU               {:.0} µs a transaction a guardian (user {:.0}, system {:.0}); {:.2} × a check of bls12_381 ({bls12_381:.0} µs)",
            self.guardian_cpu_us, self.guardian_user_us, self.guardian_system_us, self.cpu_against_bls12_381
        )?;
        writeln!(
            f,
            "clients           {:.0} µs CPU a transaction in a process of their own, {} transactions unprepared, {} by outcomes",
            self.client_cpu_us, self.unprepared, self.late
        )?;
        let mb = |bytes: u64| bytes as f64 / 1e6;
        writeln!(
            f,
            "memory            {:.0} MB resident a guardian, {:.0} MB the most",
            mb(self.memory_bytes),
            mb(self.memory_bytes_most)
        )?;
        writeln!(f, "database          {:.0} bytes a transaction", self.database_bytes)?;
        writeln!(
            f,
            "curve             {:.0} µs a transaction in batches of {batch}: note {note:.0}; blinded nonce {blinded_nonce:.0}, \
             sign {sign:.0}, foreign share {share:.0}, combine {combine:.0}, check {check:.0}",
            self.curve_us
        )?;
        writeln!(f, "efficiency        {:.2}", self.efficiency)?;
        let msat = self.circulating_msat;
        write!(
            f,
            "conserved         all guardians agree: issued − spent = what purse and clients hold = {msat} msat"
        )
    }
}

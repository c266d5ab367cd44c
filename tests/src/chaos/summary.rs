//! What a run has done and found.

use std::fmt;

/// Counts; of faults and of what they did no harm to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Guardians killed with SIGKILL.
    pub kills: u64,
    /// Guardians started again.
    pub restarts: u64,
    /// Guardians frozen with SIGSTOP.
    pub stops: u64,
    /// Times that links were cut or silent.
    pub cuts: u64,
    /// Times that links were slow or dropped again and again.
    pub slow: u64,
    /// Disks lost and restored.
    pub wipes: u64,
    /// Disks rolled back.
    pub rollbacks: u64,
    /// Full disks.
    pub full_disks: u64,
    /// Epochs of the federation.
    pub epochs: u64,
    /// Epochs whose headers were compared: the same on all guardians that still know them.
    pub headers: u64,
    /// Transactions accepted.
    pub transactions: u64,
    /// Transactions refused for good: the losers of races.
    pub rejected: u64,
    /// E-cash strings handed over, each received exactly once.
    pub handed: u64,
    /// Those that two wallets raced for.
    pub races: u64,
    /// Transactions that a guardian had promised and that are not there, or not on all.
    pub lost: u64,
    /// Transactions, epochs or audits that differ between guardians.
    pub forks: u64,
    /// What exactly, for a person.
    pub findings: Vec<String>,
}

impl Summary {
    /// Notes that something is lost.
    pub fn lost(&mut self, what: String) {
        self.lost += 1;
        self.findings.push(format!("LOST {what}"));
    }

    /// Notes that guardians differ.
    pub fn fork(&mut self, what: String) {
        self.forks += 1;
        self.findings.push(format!("FORK {what}"));
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        write!(
            f,
            "kills {}, restarts {}, stops {}, cuts {}, slow links {}, wipes {}, rollbacks {}, full disks {}, epochs {} \
             ({} headers alike), transactions {}, refused {}, handed over {}, races {}, lost {}, forks {}",
            self.kills,
            self.restarts,
            self.stops,
            self.cuts,
            self.slow,
            self.wipes,
            self.rollbacks,
            self.full_disks,
            self.epochs,
            self.headers,
            self.transactions,
            self.rejected,
            self.handed,
            self.races,
            self.lost,
            self.forks
        )
    }
}

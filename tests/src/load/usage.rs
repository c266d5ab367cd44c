//! What guardians' processes use, as the kernel counts it. Whoever loads them runs in another process, and isn't in it.

use anyhow::{Context as _, Result};

use super::cpu::Cpu;
use crate::Federation;

/// The CPU time of all guardians so far.
pub fn cpu(federation: &Federation) -> Cpu {
    let mut sum = Cpu::default();
    for guardian in &federation.guardians {
        sum += Cpu::of(&guardian.process.pid().to_string());
    }
    sum
}

/// The resident memory of each guardian, in bytes.
pub fn memory(federation: &Federation) -> Result<Vec<u64>> {
    let of = |guardian: &crate::federation::Guardian| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", guardian.process.pid()))?;
        let kb = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
        Ok(kb.context("no resident memory")?.parse::<u64>()? * 1024)
    };
    federation.guardians.iter().map(of).collect()
}

//! User CPU an epoch, against bare hbbft: both in one thread, taking turns, so that a busy machine treats both alike.

use std::time::Duration;

use anyhow::Result;
use federation_consensus::Bytes;
use federation_consensus::journal::{FileJournal, Journal};

use crate::bare::Bare;
use crate::cpu::Cpu;
use crate::engines::Engines;
use crate::journals::Watched;
use crate::table::Row;

const N: u16 = 4;
const TURNS: usize = 5;

/// In memory where there is such a thing: the kernel's clock is too coarse to tell our time from its own when a process sleeps
/// at each flush. The flushes are counted, and other rows measure them.
fn memory_disk() -> std::io::Result<tempfile::TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
}

/// Proposals of `size` bytes; `epochs` a turn.
pub fn measure(size: usize, epochs: usize, bar: f64) -> Result<Vec<Row>> {
    let name = if size.is_multiple_of(1000) { format!("{} kB", size / 1000) } else { format!("{size} B") };
    let value = Bytes::from((0..size).map(|i| (i * 31 % 251) as u8).collect::<Vec<u8>>());
    let folder = memory_disk()?;
    let mut journals: Vec<Box<dyn Journal>> = Vec::new();
    let mut flushes = Vec::new();
    for me in 0..N {
        let journal = FileJournal::open(folder.path().join(me.to_string()))?;
        let (journal, written) = Watched::new(journal, Duration::ZERO);
        journals.push(Box::new(journal));
        flushes.push(written);
    }
    let mut engines = Engines::new(journals)?;
    let (mut bare, mut coded) = (Bare::new(N, false)?, Bare::new(N, true)?);

    let (mut ours, mut theirs, mut theirs_coded) = (Cpu::default(), Cpu::default(), Cpu::default());
    for turn in 0..=TURNS {
        let start = Cpu::own();
        for _ in 0..epochs {
            engines.epoch(&value)?;
        }
        let after_ours = Cpu::own();
        for _ in 0..epochs {
            bare.epoch(&value)?;
        }
        let after_bare = Cpu::own();
        for _ in 0..epochs {
            coded.epoch(&value)?;
        }
        // The first turn warms up.
        if turn > 0 {
            ours += after_ours.since(start);
            theirs += after_bare.since(after_ours);
            theirs_coded += Cpu::own().since(after_bare);
        }
    }
    let counted = (TURNS * epochs) as f64;
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e3 / counted;
    let ratio = |to: Cpu| ours.user.as_secs_f64() / to.user.as_secs_f64();
    let per = |count: u64| count as f64 / (N as usize * (TURNS + 1) * epochs) as f64;
    Ok(vec![
        Row::at_most(
            format!("user CPU an epoch of 4 × {name}, against bare hbbft"),
            ratio(theirs),
            bar,
            " ×",
        ),
        Row::info("engine, journal, codec", format!("{:.2} ms", each(ours.user))),
        Row::info("  in the kernel beside it (journal, in memory)", format!("{:.2} ms", each(ours.system))),
        Row::info("  flushes a guardian", format!("{:.1}", per(flushes.iter().map(|w| w.flushes()).sum()))),
        Row::info("bare hbbft, messages not encoded", format!("{:.2} ms", each(theirs.user))),
        Row::info(
            "bare hbbft, messages in bincode both ways",
            format!("{:.2} ms (ratio {:.2})", each(theirs_coded.user), ratio(theirs_coded)),
        ),
        Row::info("message rounds, frames of an epoch", format!("{}, {}", engines.rounds, engines.frames)),
    ])
}

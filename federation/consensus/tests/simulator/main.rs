//! A seeded world in which federations are attacked in every way the protocol is to withstand, and checked at every step.
//!
//! From the inside out: [`life`] and [`disk`] are what a crash ends and what it leaves, [`network`] is what connects
//! guardians, [`node`] a guardian with the real core in it, [`adversary`] a lying one, [`schedule`] says how much of what goes wrong,
//! [`world`] lets it happen, [`checks`] says what must not, and [`mutations`] shows that the checks would notice. [`replay`] looks at
//! the engine alone, and [`scenarios`] at one guardian whose peers are written down word by word.
//!
//! `SEEDS=n` runs n seeds at n = 4 instead of the default, `FIRST=k` begins with seed k.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)] // a test may panic

mod adversary;
mod checks;
mod disk;
mod keys;
mod life;
mod mutations;
mod network;
mod node;
mod replay;
mod scenarios;
mod schedule;
mod tally;
mod world;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use checks::Fault;
use schedule::Schedule;
use tally::Tally;
use world::World;

/// Runs one seed. A panic is a fault like any other.
fn run(n: u16, seed: u64, adjust: impl FnOnce(&mut Schedule)) -> (Tally, Result<(), Fault>, String) {
    let mut world = World::new(n, seed, adjust);
    let result = catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|panic| {
        let why = panic.downcast_ref::<String>().cloned();
        let why = why.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Err(Fault::Panicked { why: why.unwrap_or_default() })
    });
    (world.tally, result, world.describe())
}

/// Past the test harness, which shows what a test prints only if it fails.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seeds(n: u16, name: &str, default: u64) {
    let first = variable("FIRST");
    let count = variable("SEEDS").filter(|_| n == 4 || first.is_some()).unwrap_or(default);
    let first = first.unwrap_or(0);
    let next = AtomicU64::new(first);
    let total = Mutex::new(Tally::default());
    let failed = Mutex::new(Vec::new());
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let (tally, result, world) = run(n, seed, |_| ());
                    *total.lock().unwrap() += tally;
                    if let Err(fault) = result {
                        say(&format!(
                            "n = {n} seed {seed}: {fault}\n  in {world}\n  again: FIRST={seed} SEEDS=1 cargo test -p \
                             federation-consensus --test simulator {name}"
                        ));
                        failed.lock().unwrap().push((seed, fault));
                    }
                    if seed % 10_000 == 9_999 {
                        say(&format!("n = {n}: {} after {:?}", total.lock().unwrap(), began.elapsed()));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    say(&format!("n = {n}: {}, {} faults", total.into_inner().unwrap(), failed.len()));
    assert!(failed.is_empty(), "{} of {count} seeds fail, the first: {:?}", failed.len(), failed[0]);
}

#[test]
fn one_guardian() {
    seeds(1, "one_guardian", 50);
}

#[test]
fn two_guardians() {
    seeds(2, "two_guardians", 50);
}

#[test]
fn three_guardians() {
    seeds(3, "three_guardians", 50);
}

#[test]
fn four_guardians() {
    seeds(4, "four_guardians", 1000);
}

#[test]
fn seven_guardians() {
    seeds(7, "seven_guardians", 50);
}

#[test]
fn ten_guardians() {
    seeds(10, "ten_guardians", 50);
}

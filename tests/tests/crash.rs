//! All guardians at once, by `kill -9`, in the middle of an epoch with transactions in flight: nothing is lost, nothing
//! forks. And a short run of what `contrib/chaos` runs for long.
//!
//! `CRASHES` says how often all are killed, `SEED` what the moments are drawn from.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::time::Duration;

use federation_tests::chaos::world::copy;
use federation_tests::chaos::{self, Options, World, check};
use federation_tests::wait_for;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

const ALL: [usize; 4] = [0, 1, 2, 3];
/// How long transactions may take to come in flight.
const SOON: Duration = Duration::from_secs(120);

fn variable(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

/// Kills all, and starts them again, so many times; then everything is compared.
async fn kill_all(crashes: u64, postgres: bool) {
    let seed = variable("SEED", rand::thread_rng().gen_range(0..1_000_000));
    println!("SEED={seed} CRASHES={crashes}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::start("crash", ALL.len(), 4, postgres).await.unwrap();
    world.load.begin(seed);
    let ledger = Arc::clone(world.load.ledger());
    let mut caught = 0;
    for crash in 0..crashes {
        world.progress("before the next crash").await.unwrap();
        // Somewhere in an epoch: they take some ten to some hundred milliseconds.
        tokio::time::sleep(Duration::from_millis(random.gen_range(0..300))).await;
        let in_flight = loop {
            let some = || async { Ok(Some(()).filter(|()| !ledger.in_flight().is_empty())) };
            wait_for("a transaction in flight", SOON, some).await.unwrap();
            // From here on nobody hands anything in a second time: the guardians alone must remember it.
            ledger.mute(true);
            let in_flight = ledger.in_flight();
            if !in_flight.is_empty() {
                break in_flight;
            }
            ledger.mute(false);
        };
        world.kill(&ALL).await.unwrap();
        // Neither the order nor the moments of the restarts are the same.
        let mut order = ALL;
        order.rotate_left(random.gen_range(0..ALL.len()));
        for one in order {
            world.restart(&[one]).unwrap();
            tokio::time::sleep(Duration::from_millis(random.gen_range(0..200))).await;
        }
        let epoch = world.healed().await.unwrap();
        world.decided(&in_flight).await.unwrap();
        ledger.mute(false);
        caught += in_flight.len();
        println!("crash {crash}: {} in flight, all decided; epoch {epoch}", in_flight.len());
    }
    check::finish(&mut world).await.unwrap();
    println!("{caught} transactions were in flight; {}", world.summary);
    assert_eq!(world.summary.findings, Vec::<String>::new());
    assert!(caught as u64 >= crashes, "{caught}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_guardians_are_killed_in_the_middle_of_an_epoch() {
    kill_all(variable("CRASHES", 5), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_guardians_on_postgres_are_killed_in_the_middle_of_an_epoch() {
    kill_all(variable("CRASHES", 5).div_ceil(5), true).await;
}

/// What all of this rests on: guardians that forget are found out.
#[tokio::test(flavor = "multi_thread")]
async fn guardians_that_forget_are_noticed() {
    let mut world = World::start("forget", ALL.len(), 3, false).await.unwrap();
    world.kill(&ALL).await.unwrap();
    let folders: Vec<_> = world.federation.guardians.iter().map(|one| one.data_dir.clone()).collect();
    for folder in &folders {
        copy(folder, &folder.with_extension("old")).await.unwrap();
    }
    world.restart(&ALL).unwrap();
    world.load.begin(1);
    for _ in 0..5 {
        world.progress("before").await.unwrap();
    }
    world.load.pause(SOON).await.unwrap();
    world.quiet().await.unwrap();
    check::compare(&mut world).await.unwrap();
    assert_eq!(world.summary.findings, Vec::<String>::new());

    world.kill(&ALL).await.unwrap();
    for folder in &folders {
        std::fs::remove_dir_all(folder).unwrap();
        copy(&folder.with_extension("old"), folder).await.unwrap();
    }
    world.restart(&ALL).unwrap();
    world.healed().await.unwrap();
    check::compare(&mut world).await.unwrap();
    assert!(world.summary.lost > 0, "{}", world.summary);
}

/// The seed's first faults are a lost disk, a kill of all, a disk rolled back, a full disk, and silent links.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_chaos() {
    let options = Options {
        time: Duration::from_secs(variable("CHAOS_SECONDS", 75)),
        seed: 268,
        postgres: false,
        wallets: 4,
    };
    let summary = chaos::run(options, |line| println!("{line}")).await.unwrap();
    println!("{summary}");
    assert!(summary.kills > 4 && summary.wipes > 0 && summary.transactions > 20, "{summary}");
}

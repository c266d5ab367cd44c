//! E-cash without Lightning: deposit, spend, double spend, withdraw; with all guardians and with one stopped.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use federation_tests::ecash::text;
use federation_tests::scenario::{conserved, deposit, send, withdraw};
use federation_tests::{Bitcoind, Ecash, Federation, Postgres, Sandbox};

async fn main_job(n: usize, stopped: bool) {
    let sandbox = Sandbox::new("ecash").unwrap();
    let bitcoind = Bitcoind::start(&sandbox).await.unwrap();
    let federation = Federation::start(&sandbox, &bitcoind, n).await.unwrap();
    if stopped {
        federation.guardians[n - 1].process.kill();
    }
    let alice = Ecash::join(&sandbox, "alice", &federation.invite).await.unwrap();
    let bob = Ecash::join(&sandbox, "bob", &federation.invite).await.unwrap();
    deposit(&bitcoind, &alice, 100_000).await.unwrap();
    send(&alice, &bob, "30000sat").await.unwrap();
    send(&bob, &alice, "1msat").await.unwrap();
    let (a, b) = (alice.balance().await.unwrap(), bob.balance().await.unwrap());
    assert_eq!((a, b), (70_000_001, 29_999_999));
    conserved(&federation.audit().await.unwrap(), &[a, b]).unwrap();

    let (sat, fee) = withdraw(&bitcoind, &alice, "50000").await.unwrap();
    let left = alice.balance().await.unwrap();
    assert_eq!(left + (sat + fee) * 1000, a);
    conserved(&federation.audit().await.unwrap(), &[left, b]).unwrap();
    withdraw(&bitcoind, &bob, "all").await.unwrap();
    conserved(&federation.audit().await.unwrap(), &[left, bob.balance().await.unwrap()]).unwrap();
}

#[tokio::test]
async fn main_job_of_four() {
    main_job(4, false).await;
}

#[tokio::test]
async fn main_job_of_four_with_one_stopped_throughout() {
    main_job(4, true).await;
}

#[tokio::test]
async fn main_job_of_other_sizes() {
    for n in [1, 2, 7] {
        main_job(n, false).await;
    }
}

#[tokio::test]
async fn a_note_is_spent_once() {
    let sandbox = Sandbox::new("double").unwrap();
    let bitcoind = Bitcoind::start(&sandbox).await.unwrap();
    let federation = Federation::start(&sandbox, &bitcoind, 4).await.unwrap();
    let alice = Ecash::join(&sandbox, "alice", &federation.invite).await.unwrap();
    let bob = Ecash::join(&sandbox, "bob", &federation.invite).await.unwrap();
    let carol = Ecash::join(&sandbox, "carol", &federation.invite).await.unwrap();
    deposit(&bitcoind, &alice, 20_000).await.unwrap();

    // In later epochs: whoever comes second is refused, in either order.
    for (first, second) in [(&bob, &carol), (&carol, &bob)] {
        let notes = text(&alice.run(&["send", "1000sat"]).await.unwrap(), "ecash").unwrap();
        let before = second.balance().await.unwrap();
        first.run(&["receive", &notes]).await.unwrap();
        let refusal = second.refused(&["receive", &notes]).await.unwrap();
        assert!(refusal.code.contains("spent"), "{refusal}");
        assert_eq!(second.balance().await.unwrap(), before);
    }

    // At once, so that both are in the pool together: exactly one gets it.
    for _ in 0..3 {
        let notes = text(&alice.run(&["send", "1000sat"]).await.unwrap(), "ecash").unwrap();
        let before = bob.balance().await.unwrap() + carol.balance().await.unwrap();
        let args = ["receive", notes.as_str()];
        let (b, c) = tokio::join!(bob.run(&args), carol.run(&args));
        assert!(b.is_ok() != c.is_ok(), "{b:?} {c:?}");
        assert_eq!(bob.balance().await.unwrap() + carol.balance().await.unwrap(), before + 1_000_000);
    }
    let mut held = Vec::new();
    for wallet in [&alice, &bob, &carol] {
        held.push(wallet.balance().await.unwrap());
    }
    assert_eq!(held.iter().sum::<u64>(), 20_000_000);
    conserved(&federation.audit().await.unwrap(), &held).unwrap();
}

#[tokio::test]
async fn guardians_on_postgres_come_back() {
    let sandbox = Sandbox::new("pg").unwrap();
    let bitcoind = Bitcoind::start(&sandbox).await.unwrap();
    let postgres = Postgres::start(&sandbox).await.unwrap();
    let mut stores = Vec::new();
    for i in 0..4 {
        stores.push(Some(postgres.create_database(&format!("guardian{i}")).await.unwrap()));
    }
    let mut federation = Federation::start_on(&sandbox, &bitcoind, &stores).await.unwrap();
    let alice = Ecash::join(&sandbox, "alice", &federation.invite).await.unwrap();
    let bob = Ecash::join(&sandbox, "bob", &federation.invite).await.unwrap();
    deposit(&bitcoind, &alice, 50_000).await.unwrap();
    // One is away for a while and catches up; then all are stopped and started.
    federation.guardians[0].process.kill();
    send(&alice, &bob, "10000sat").await.unwrap();
    federation.guardians[0].process.restart().unwrap();
    federation.guardians[0].ready().await.unwrap();
    federation.settled().await.unwrap();
    for guardian in &federation.guardians {
        guardian.process.stop().await.unwrap();
    }
    for guardian in &mut federation.guardians {
        guardian.process.restart().unwrap();
    }
    for guardian in &federation.guardians {
        guardian.ready().await.unwrap();
    }
    send(&bob, &alice, "5000sat").await.unwrap();
    let held = [alice.balance().await.unwrap(), bob.balance().await.unwrap()];
    assert_eq!(held, [45_000_000, 5_000_000]);
    conserved(&federation.audit().await.unwrap(), &held).unwrap();
}

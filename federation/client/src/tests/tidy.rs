//! Many small notes become few, in the background or because a payment needs it, whatever happens meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use federation_core::db::Database;
use federation_core::module::Value;
use federation_mint::Denomination;

use super::engine::free_money;
use super::mortal::Mortal;
use super::{Wallet, msat};
use crate::engine::Plan;
use crate::store::{NOTES, SENT, UNFINISHED};
use crate::testing::{Fault, World};
use crate::{Client, ClientError, Words};

const SOON: Duration = Duration::from_secs(20);

/// Takes in so many notes of 1 msat.
pub(super) async fn shower(client: &Client, count: usize) {
    // No more at a time than numbers may be under way.
    for (round, count) in [count % 100].into_iter().chain(vec![100; count / 100]).enumerate() {
        let mut op = [99; 32];
        op[0] = u8::try_from(round).unwrap();
        if count == 0 {
            continue;
        }
        let notes = vec![Denomination::new(0).unwrap(); count];
        let plan = Plan { notes, ..Plan::new(op, vec![free_money(count as u64)], Vec::new()) };
        client.begin(plan, |_, _| Ok(())).await.unwrap();
        client.settled(op).await.unwrap();
    }
}

async fn count(db: &Arc<dyn Database>) -> usize {
    NOTES.all(&**db).await.unwrap().len()
}

#[tokio::test]
async fn small_notes_become_larger_ones_once() {
    let world = World::new();
    let wallet = Wallet::with(&world, 10_000).await;
    assert!(!wallet.client.tidy().await.unwrap(), "all is well");
    shower(&wallet.client, 150).await;
    let before = count(&wallet.db).await;
    assert!(wallet.client.tidy().await.unwrap());
    assert!(!wallet.client.tidy().await.unwrap(), "one at a time");
    assert!(wallet.client.settle_all(SOON).await.unwrap());
    assert_eq!((wallet.balance().await, world.circulating()), (10_150, 10_150));
    assert!(count(&wallet.db).await < before - 130, "{before}");
    assert!(!wallet.client.tidy().await.unwrap(), "nothing is left to do");
    // It is no operation of the user's.
    assert!(wallet.client.history().await.unwrap().iter().all(|entry| entry.kind != "tidy"));
}

#[tokio::test]
async fn whoever_needs_the_notes_meanwhile_waits_for_them() {
    let world = World::new();
    let wallet = Wallet::new(&world).await;
    shower(&wallet.client, 150).await;
    assert!(wallet.client.tidy().await.unwrap());
    assert!(wallet.balance().await < 10);
    let sent = wallet.client.send(msat(120), "").await.unwrap();
    let ecash: federation_mint::client::ECash = sent.ecash.parse().unwrap();
    assert_eq!(ecash.notes.iter().map(|note| note.amount().msat()).sum::<u64>(), 120);
    assert!(wallet.client.settle_all(SOON).await.unwrap());
    assert_eq!(wallet.balance().await + wallet.sent().await, 150);
}

#[tokio::test]
async fn what_takes_too_many_notes_is_paid_all_the_same() {
    let world = World::new();
    let wallet = Wallet::new(&world).await;
    shower(&wallet.client, 700).await;
    let output = (super::pay::contract_output(600), Value { amount: msat(600), fee: msat(3) });
    wallet.client.transact([1; 32], Vec::new(), vec![output]).await.unwrap();
    assert!(wallet.client.settle_all(SOON).await.unwrap());
    assert_eq!(wallet.balance().await, 97);
    // Where it is of no use, the error is the same as ever.
    let inputs = (0..300).map(|_| free_money(1)).collect();
    let plan = Plan::new([2; 32], inputs, Vec::new());
    let error = wallet.client.begin(plan, |_, _| Ok(())).await.unwrap_err();
    assert!(matches!(error, ClientError::TooManyNotes), "{error}");
}

#[tokio::test]
async fn a_kill_at_any_commit_of_it_loses_nothing() {
    let mut kills = 0;
    for commits in 1.. {
        let mut died = false;
        for after in [false, true] {
            let world = World::new();
            let (inner, words) = (federation_store::memory(), Words::generate().unwrap());
            let client = world.join(&inner, &words).await;
            shower(&client, 40).await;
            drop(client);
            let mortal = Mortal::at(&inner, commits, after);
            let client = world.open(&mortal, &words).await;
            let begun = client.tidy().await;
            let settled = client.settle_all(Duration::from_millis(500)).await;
            if begun.is_ok() && settled.is_ok_and(|settled| settled) {
                continue;
            }
            (died, kills) = (true, kills + 1);
            drop(client);
            let client = world.open(&inner, &words).await;
            assert!(client.settle_all(SOON).await.unwrap(), "{commits} {after}");
            client.tidy().await.unwrap();
            assert!(client.settle_all(SOON).await.unwrap(), "{commits} {after}");
            assert_eq!(client.balance().await.unwrap(), msat(40), "{commits} {after}");
            assert_eq!(world.circulating(), 40);
            assert!(count(&inner).await < 20);
        }
        if !died {
            break;
        }
    }
    assert!(kills >= 3, "{kills}");
}

#[tokio::test]
async fn sends_beside_it_never_share_a_note_with_it() {
    let world = World::new();
    let wallet = Wallet::with(&world, 5_000).await;
    shower(&wallet.client, 150).await;
    // It hangs for a while, with its notes reserved.
    world.fault("/v1/transactions", Fault::Hang);
    assert!(wallet.client.tidy().await.unwrap());
    let sends = (0..8).map(|n| {
        let client = wallet.client.clone();
        tokio::spawn(async move { client.send(msat(100 + n), "").await.unwrap().ecash })
    });
    let mut nonces = BTreeSet::new();
    for send in sends.collect::<Vec<_>>() {
        let ecash: federation_mint::client::ECash = send.await.unwrap().parse().unwrap();
        for note in &ecash.notes {
            assert!(nonces.insert(note.nonce().serialize()), "a note was handed out twice");
        }
    }
    assert_eq!(SENT.all(&*wallet.db).await.unwrap().len(), nonces.len());
    let held: u64 = wallet.balance().await + wallet.sent().await;
    let (reserved, incoming) =
        (wallet.client.reserved().await.unwrap(), wallet.client.incoming().await.unwrap());
    assert!(held + reserved.msat().max(incoming.msat()) >= 5_150);
    // As after a restart: it goes on.
    let mut wallet = wallet;
    wallet.restart().await;
    assert!(wallet.client.settle_all(SOON).await.unwrap());
    assert!(UNFINISHED.all(&*wallet.db).await.unwrap().is_empty());
    assert_eq!(wallet.balance().await + wallet.sent().await, 5_150);
}

#[tokio::test]
async fn where_the_rest_is_too_much_already_nothing_is_merged() {
    let world = World::new();
    let wallet = Wallet::new(&world).await;
    shower(&wallet.client, 300).await;
    let (before, submissions) = (count(&wallet.db).await, world.submissions());
    let output = || (super::pay::contract_output(1), Value { amount: msat(1), fee: msat(3) });
    let plans = [
        Plan::new(
            [3; 32],
            (0..256).map(|_| free_money(1)).collect(),
            vec![(super::pay::contract_output(520), Value { amount: msat(520), fee: msat(3) })],
        ),
        Plan::new([4; 32], Vec::new(), (0..257).map(|_| output()).collect()),
    ];
    for plan in plans {
        let error = wallet.client.begin(plan, |_, _| Ok(())).await.unwrap_err();
        assert!(
            matches!(error, ClientError::TooManyNotes | ClientError::InsufficientFunds { .. }),
            "{error}"
        );
        assert_eq!((count(&wallet.db).await, world.submissions()), (before, submissions), "{error}");
    }
}

#[tokio::test]
async fn a_payment_whose_notes_somebody_else_is_merging_waits_for_that() {
    let world = World::new();
    let wallet = Wallet::new(&world).await;
    shower(&wallet.client, 300).await;
    let guard = wallet.client.inner.money.lock().await;
    // First in line: finds that it takes too many notes. Second: takes them before it can.
    let client = wallet.client.clone();
    let paying = tokio::spawn(async move {
        let output = (super::pay::contract_output(267), Value { amount: msat(267), fee: msat(3) });
        client.transact([5; 32], Vec::new(), vec![output]).await
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let client = wallet.client.clone();
    let tidying = tokio::spawn(async move { client.tidy().await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(guard);
    assert!(tidying.await.unwrap().unwrap());
    paying.await.unwrap().unwrap();
    assert!(wallet.client.settle_all(SOON).await.unwrap());
    assert_eq!(wallet.balance().await, 30);
}

//! E-cash from hand to hand.

use std::time::Duration;

use bitcoin::secp256k1::SecretKey;
use federation_mint::client::{ECash, Note};

use super::mortal::Mortal;
use super::{Wallet, msat};
use crate::ops::{Kind, send::State};
use crate::testing::World;
use crate::{Client, ClientError, Words};

#[tokio::test]
async fn from_one_wallet_to_another() {
    let world = World::new();
    let (alice, bob) = (Wallet::with(&world, 10_000).await, Wallet::new(&world).await);
    let sent = alice.client.send(msat(1234), "lunch").await.unwrap();
    let received = bob.client.receive(&sent.ecash, "").await.unwrap();
    assert_eq!((received.amount, received.face), (msat(1234), msat(1234)));
    assert_eq!((alice.balance().await, bob.balance().await), (8766, 1234));
    assert_eq!(world.circulating(), 10_000);

    let again = bob.client.receive(&sent.ecash, "").await;
    assert!(matches!(again, Err(ClientError::EcashReceived)), "{again:?}");
    let carol = Wallet::new(&world).await;
    let late = carol.client.receive(&sent.ecash, "").await;
    assert!(matches!(late, Err(ClientError::EcashSpent)), "{late:?}");
    assert!(carol.is_settled().await);
    let back = alice.client.reclaim(sent.operation).await;
    assert!(matches!(back, Err(ClientError::EcashClaimed)), "{back:?}");

    let history = alice.client.history().await.unwrap();
    assert_eq!((history[0].kind, history[0].status, history[0].memo.as_str()), ("send", "claimed", "lunch"));
}

#[tokio::test]
async fn what_nobody_receives_can_be_taken_back() {
    let world = World::new();
    let mut alice = Wallet::with(&world, 10_000).await;
    let sent = alice.client.send(msat(5), "").await.unwrap();
    assert_eq!(alice.balance().await, 9_995);
    alice.restart().await;
    assert_eq!(alice.client.sent(sent.operation).await.unwrap(), sent);
    assert_eq!(alice.client.reclaim(sent.operation).await.unwrap(), msat(5));
    assert_eq!(alice.balance().await, 10_000);
    let operation = alice.client.operation(&sent.operation).await.unwrap();
    assert!(matches!(operation.kind, Kind::Send(send) if send.state == State::Reclaimed { amount: msat(5) }));
}

#[tokio::test]
async fn of_a_string_with_a_spent_note_the_rest_is_received() {
    let world = World::new();
    let (alice, bob) = (Wallet::with(&world, 10_000).await, Wallet::new(&world).await);
    // 3 = 1 + 2.
    let sent = alice.client.send(msat(3), "").await.unwrap();
    let ecash: federation_mint::client::ECash = sent.ecash.parse().unwrap();
    let note = &ecash.notes[0];
    world.spend(note.nonce().serialize());
    let received = bob.client.receive(&sent.ecash, "").await.unwrap();
    assert_eq!(received.amount.msat() + note.amount().msat(), 3);
    assert_eq!(bob.balance().await, received.amount.msat());
}

#[tokio::test]
async fn bad_input_has_its_own_errors() {
    let world = World::new();
    let alice = Wallet::with(&world, 100).await;
    let code = |result: crate::Result<_>| result.map(|_: ()| ()).unwrap_err().code().to_owned();
    assert_eq!(code(alice.client.send(msat(0), "").await.map(drop)), "zero_amount");
    assert_eq!(code(alice.client.send(msat(101), "").await.map(drop)), "insufficient_funds");
    assert_eq!(code(alice.client.receive("hello", "").await.map(drop)), "bad_ecash");
    let sent = alice.client.send(msat(1), "").await.unwrap().ecash;
    assert_eq!(code(alice.client.receive(&sent[..sent.len() - 1], "").await.map(drop)), "bad_ecash");
    let mut foreign: federation_mint::client::ECash = sent.parse().unwrap();
    foreign.federation.0[0] ^= 1;
    assert_eq!(code(alice.client.receive(&foreign.to_string(), "").await.map(drop)), "foreign_ecash");
    assert_eq!(alice.balance().await, 99);
}

/// 256 notes of which one is forged.
#[tokio::test]
async fn of_many_notes_one_bad_one_spoils_nothing() {
    let world = World::new();
    let (alice, bob) = (Wallet::new(&world).await, Wallet::new(&world).await);
    super::tidy::shower(&alice.client, 256).await;
    let sent = alice.client.send(msat(256), "").await.unwrap();
    let mut ecash: ECash = sent.ecash.parse().unwrap();
    assert_eq!(ecash.notes.len(), 256);
    let (good, key) = (ecash.notes[7].clone(), SecretKey::from_slice(&[3; 32]).unwrap());
    ecash.notes[7] = Note::new(good.denomination, good.signature.clone(), key);
    let text = ecash.to_string();
    let refused = bob.client.receive(&text, "").await.unwrap_err();
    assert!(refused.code() == "bad_ecash" && refused.to_string().contains("1 of the notes"), "{refused}");
    assert!(refused.to_string().contains("--part") && bob.balance().await == 0);
    let received = bob.client.receive_part(&text, "").await.unwrap();
    assert_eq!((received.face, bob.balance().await), (msat(255), 255));
    // The good one that it stood for is still whose it was.
    let left = ECash { notes: vec![good], ..ecash }.to_string();
    bob.client.receive(&left, "").await.unwrap();
    assert_eq!((bob.balance().await, world.circulating()), (256, 256));
    let nothing = bob.client.receive_part("clnecash1", "").await.unwrap_err();
    assert_eq!(nothing.code(), "bad_ecash");
}

/// What a wallet does while it is killed at each of its commits in turn, before it or after it. Then it is opened again, `again` may
/// do what a user would, and `check` sees the end.
async fn killed_at_each_commit(
    begin: impl AsyncFn(&Client, &str),
    again: impl AsyncFn(&Client, &str),
    worth: u64,
) {
    let mut kills = 0;
    for commit in 1.. {
        let mut died = false;
        for after in [false, true] {
            let world = World::new();
            let other = Wallet::with(&world, 1000).await;
            let ecash = other.client.send(msat(300), "").await.unwrap().ecash;
            let (inner, words) = (federation_store::memory(), Words::generate().unwrap());
            let client = world.join(&inner, &words).await;
            crate::testing::fund(&client, 1000).await;
            drop(client);
            let client = world.open(&Mortal::at(&inner, commit, after), &words).await;
            let done = tokio::time::timeout(Duration::from_millis(700), begin(&client, &ecash)).await;
            drop(client);
            died |= done.is_err();
            let client = world.open(&inner, &words).await;
            assert!(client.settle_all(Duration::from_secs(20)).await.unwrap(), "{commit} {after}");
            again(&client, &ecash).await;
            assert!(client.settle_all(Duration::from_secs(20)).await.unwrap(), "{commit} {after}");
            let mut handed_out = 0;
            for ((_, nonce), held) in crate::store::SENT.all(&*inner).await.unwrap() {
                // What was taken back stays in the table.
                let spent = client.is_spent(&nonce).await.unwrap();
                handed_out += if spent { 0 } else { held.denomination.amount().msat() };
            }
            let balance = client.balance().await.unwrap().msat();
            assert_eq!(balance + handed_out, worth, "{commit} {after}: {balance}, {handed_out}");
            assert!(crate::store::RESERVED.all(&*inner).await.unwrap().is_empty());
            assert_eq!(world.circulating(), 2000);
            kills += usize::from(done.is_err());
        }
        if !died {
            break;
        }
    }
    assert!(kills >= 2, "{kills}");
}

/// Done, or killed: then whoever asked never hears of it.
async fn or_dead<T>(result: crate::Result<T>) {
    if result.is_err() {
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn a_send_that_is_killed_at_any_commit_loses_nothing() {
    // 777 needs change, 3 is at hand.
    for amount in [777, 3] {
        let send = async |client: &Client, _: &str| or_dead(client.send(msat(amount), "").await).await;
        killed_at_each_commit(send, async |_: &Client, _: &str| {}, 1000).await;
    }
}

#[tokio::test]
async fn a_receive_that_is_killed_at_any_commit_loses_nothing() {
    let receive = async |client: &Client, ecash: &str| or_dead(client.receive(ecash, "").await).await;
    let again = async |client: &Client, ecash: &str| match client.receive(ecash, "").await {
        Ok(_) | Err(ClientError::EcashReceived) => {}
        Err(error) => panic!("{error}"),
    };
    killed_at_each_commit(receive, again, 1300).await;
}

#[tokio::test]
async fn a_reclaim_that_is_killed_at_any_commit_loses_nothing() {
    let reclaim = async |client: &Client, _: &str| {
        let reclaimed = async {
            let sent = client.send(msat(300), "").await?;
            client.reclaim(sent.operation).await
        };
        or_dead(reclaimed.await).await;
    };
    killed_at_each_commit(reclaim, async |_: &Client, _: &str| {}, 1000).await;
}

//! E-cash from hand to hand.

use super::{Wallet, msat};
use crate::ClientError;
use crate::ops::{Kind, send::State};
use crate::testing::World;

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

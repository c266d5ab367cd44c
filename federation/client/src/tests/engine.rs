//! Transactions: idempotent, crash-proof, and never one note twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::secp256k1::{Keypair, SECP256K1};
use federation_core::encoding::encode;
use federation_core::rest::{TransactionResponse, TransactionStatus};
use federation_core::{Input, ModuleId, PeerId, Transaction, module};
use serde_json::{Value, json};

use super::{Wallet, msat};
use crate::api::{CallError, FederationApi, Method, Request, Transport};
use crate::store::{NOTES, RESERVED};
use crate::testing::{Fault, GUARDIAN, World, config};
use crate::{Client, ClientError, Words};

pub(super) fn free_money(amount: u64) -> (Input, Keypair, module::Value) {
    let key = Keypair::new(SECP256K1, &mut rand::thread_rng());
    let input = Input { module: ModuleId(9), key: key.x_only_public_key().0, body: encode(&amount) };
    (input, key, module::Value::free(msat(amount)))
}

#[tokio::test]
async fn the_same_operation_is_one_transaction() {
    let world = World::new();
    let mut wallet = Wallet::new(&world).await;
    let first = wallet.client.transact([1; 32], vec![free_money(1000)], Vec::new()).await.unwrap();
    // Other arguments do not matter any more.
    let again = wallet.client.transact([1; 32], vec![free_money(5000)], Vec::new()).await.unwrap();
    assert_eq!(first, again);
    wallet.client.settled([1; 32]).await.unwrap();
    wallet.restart().await;
    let later = wallet.client.transact([1; 32], vec![free_money(5000)], Vec::new()).await.unwrap();
    assert_eq!(first, later);
    assert_eq!(wallet.client.transaction([1; 32]).await.unwrap(), Some(first));
    assert_eq!(wallet.client.transaction([2; 32]).await.unwrap(), None);
    assert_eq!((wallet.balance().await, world.submissions()), (1000, 1));
}

#[tokio::test]
async fn a_lost_answer_or_a_guardian_that_is_down_costs_nothing() {
    let world = World::new();
    let wallet = Wallet::new(&world).await;
    world.fault("/v1/transactions", Fault::Down);
    world.fault("/v1/transactions", Fault::LostAnswer);
    wallet.client.transact([1; 32], vec![free_money(1000)], Vec::new()).await.unwrap_err();
    wallet.client.settled([1; 32]).await.ok();
    assert!(wallet.client.settle_all(Duration::from_secs(20)).await.unwrap());
    assert_eq!(wallet.balance().await, 1000);
}

#[tokio::test]
async fn a_crash_anywhere_loses_nothing() {
    // The process ends while it waits for: the submission, the shares, the outcome instead of them.
    for path in ["/v1/transactions", "mint/shares", "/v1/transactions/", "down"] {
        let world = World::new();
        let mut wallet = Wallet::with(&world, 10_000).await;
        if path == "/v1/transactions/" {
            world.fault("mint/shares", Fault::Down);
        }
        if path == "down" {
            world.fault("/v1/transactions", Fault::Down);
        } else {
            world.fault(path, Fault::Hang);
        }
        let client = wallet.client.clone();
        let paying = tokio::spawn(async move { client.send(msat(777), "").await });
        // Until it is written down.
        let mut changes = wallet.client.inner.changes.subscribe();
        while wallet.is_settled().await && wallet.sent().await == 0 {
            changes.changed().await.unwrap();
        }
        let before = wallet.balance().await;
        assert!(before + wallet.client.reserved().await.unwrap().msat() + wallet.sent().await == 10_000);
        paying.abort();
        let _ = paying.await;
        wallet.restart().await;
        assert!(wallet.client.settle_all(Duration::from_secs(20)).await.unwrap(), "{path}");
        assert_eq!(wallet.balance().await + wallet.sent().await, 10_000, "{path}");
        assert_eq!(world.circulating(), 10_000);
    }
}

#[tokio::test]
async fn a_refused_transaction_gives_its_notes_back() {
    let world = World::new();
    let wallet = Wallet::with(&world, 5000).await;
    // An input that claims to bring more than it does.
    let (input, key, _) = free_money(10);
    let lie = module::Value::free(msat(4000));
    let (output, value) = (super::pay::contract_output(8000), module::Value::free(msat(8000)));
    let result = wallet.client.transact([1; 32], vec![(input, key, lie)], vec![(output, value)]).await;
    assert!(matches!(&result, Err(ClientError::Rejected { code, .. }) if code == "unbalanced"), "{result:?}");
    assert_eq!(wallet.balance().await, 5000);
    assert!(wallet.is_settled().await);
    // The refusal is remembered.
    let again = wallet.client.transact([1; 32], vec![free_money(1)], Vec::new()).await;
    assert!(matches!(again, Err(ClientError::Rejected { .. })));
}

#[tokio::test]
async fn what_is_refused_as_too_early_is_handed_in_again_and_never_replaced() {
    let world = World::new();
    let wallet = Wallet::new(&world).await;
    for code in ["not_expired", "not_decrypted", "not_final"] {
        world.fault("/v1/transactions", Fault::Refused(code));
    }
    wallet.client.transact([1; 32], vec![free_money(1000)], Vec::new()).await.unwrap();
    wallet.client.settled([1; 32]).await.unwrap();
    assert_eq!(wallet.balance().await, 1000);
}

/// The first guardian takes transactions and tells nobody.
struct Hole(Arc<World>);

#[async_trait]
impl Transport for Hole {
    async fn call(&self, base: &str, request: &Request, limit: Duration) -> Result<Value, CallError> {
        if base != "http://hole" {
            return self.0.call(base, request, limit).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        match request.method {
            Method::Post => {
                let transaction: Transaction = serde_json::from_value(request.body.clone()).unwrap();
                let txid = transaction.txid(config().id());
                let status = TransactionStatus::Proposed;
                Ok(json!(TransactionResponse { txid, status, outputs: Vec::new() }))
            }
            Method::Get => {
                Err(CallError::Refused { status: 404, code: "unknown".into(), detail: "unknown".into() })
            }
        }
    }
}

#[tokio::test]
async fn a_guardian_that_keeps_transactions_to_himself_stops_nobody() {
    let world = World::new();
    let urls = [(PeerId(0), "http://hole".to_owned()), (PeerId(1), GUARDIAN.to_owned())];
    let api = FederationApi::new(Arc::new(Hole(world)), urls.into(), 0);
    let seed = Words::generate().unwrap().seed().unwrap();
    let client = Client::assemble(federation_store::memory(), api, config(), seed).unwrap();
    let done = client.transact([1; 32], vec![free_money(1000)], Vec::new());
    tokio::time::timeout(Duration::from_secs(10), done).await.unwrap().unwrap();
}

#[tokio::test]
async fn one_spent_note_does_not_spoil_the_others() {
    let world = World::new();
    let wallet = Wallet::with(&world, 5000).await;
    let notes = NOTES.all(&*wallet.db).await.unwrap();
    let (nonce, largest) = notes.iter().max_by_key(|(_, held)| held.denomination).unwrap();
    world.spend(*nonce);
    let all = vec![(super::pay::contract_output(4997), module::Value { amount: msat(4997), fee: msat(3) })];
    let result = wallet.client.transact([1; 32], Vec::new(), all).await;
    assert!(
        matches!(&result, Err(ClientError::Rejected { code, .. }) if code == "double_spend"),
        "{result:?}"
    );
    assert_eq!(wallet.balance().await, 5000 - largest.denomination.amount().msat());
    assert!(wallet.is_settled().await);
}

#[tokio::test]
async fn concurrent_operations_never_share_a_note() {
    let world = World::new();
    let wallet = Wallet::with(&world, 16_000).await;
    let sends = (0..12).map(|n| {
        let client = wallet.client.clone();
        tokio::spawn(async move { client.send(msat(1000 + n), "").await.unwrap().ecash })
    });
    let mut nonces = BTreeSet::new();
    for send in sends.collect::<Vec<_>>() {
        let ecash: federation_mint::client::ECash = send.await.unwrap().parse().unwrap();
        for note in &ecash.notes {
            assert!(nonces.insert(note.nonce().serialize()), "a note was handed out twice");
        }
    }
    assert!(wallet.client.settle_all(Duration::from_secs(10)).await.unwrap());
    assert_eq!(wallet.balance().await + wallet.sent().await, 16_000);
}

#[tokio::test]
async fn too_little_writes_nothing() {
    let world = World::new();
    let wallet = Wallet::with(&world, 100).await;
    let output = vec![(super::pay::contract_output(100), module::Value { amount: msat(100), fee: msat(3) })];
    let result = wallet.client.transact([1; 32], Vec::new(), output).await;
    assert!(matches!(result, Err(ClientError::InsufficientFunds { .. })), "{result:?}");
    assert_eq!(wallet.client.transaction([1; 32]).await.unwrap(), None);
    assert!(RESERVED.all(&*wallet.db).await.unwrap().is_empty());
    assert_eq!(wallet.balance().await, 100);
}

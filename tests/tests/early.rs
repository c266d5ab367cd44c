//! E-cash of real guardians an epoch before its outcome: a wallet that can't ask for outcomes has its notes all the same.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use federation_client::api::{CallError, Http, Method, Request, Transport};
use federation_client::{Client, Words};
use federation_core::Amount;
use federation_core::rest::{OutputStatus, TransactionResponse, TransactionStatus};
use federation_tests::load::{Setup, World};
use serde_json::Value;

/// Longer than anything takes here.
const SOON: Duration = Duration::from_secs(60);

/// Over HTTP, but no request for a status or an outcome gets through.
struct WithoutOutcomes {
    http: Http,
    /// Transactions that were handed in.
    txids: Mutex<Vec<String>>,
    /// Answers with shares and nothing else.
    shares: AtomicUsize,
    /// Answers with signatures that the guardian had already.
    outcomes: AtomicUsize,
    refused: AtomicUsize,
}

#[async_trait]
impl Transport for WithoutOutcomes {
    async fn call(&self, base: &str, request: &Request, limit: Duration) -> Result<Value, CallError> {
        let path = request.path.as_str();
        if request.method == Method::Get
            && (path.starts_with("/v1/transactions/") || path.starts_with("/v1/outcomes/"))
        {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(CallError::Down("nobody tells outcomes".into()));
        }
        let answer = self.http.call(base, request, limit).await?;
        if path == "/v1/transactions" {
            self.txids.lock().unwrap().push(answer["txid"].as_str().unwrap().to_owned());
        }
        if path.contains("/mint/shares") {
            let early = answer["outcomes"].as_object().unwrap().is_empty();
            (if early { &self.shares } else { &self.outcomes }).fetch_add(1, Ordering::Relaxed);
        }
        Ok(answer)
    }
}

#[tokio::test]
async fn notes_come_before_their_outcomes_also_with_a_guardian_down() {
    let world = World::start("early", Setup { guardians: 4, postgres: false, sat: 20_000 }).await.unwrap();
    let transport = Arc::new(WithoutOutcomes {
        http: Http::new().unwrap(),
        txids: Mutex::default(),
        shares: AtomicUsize::new(0),
        outcomes: AtomicUsize::new(0),
        refused: AtomicUsize::new(0),
    });
    let invite = world.federation.invite.parse().ok().unwrap();
    let words = Words::generate().unwrap();
    let client =
        Client::join_over(federation_store::memory(), &words, &invite, transport.clone()).await.unwrap();

    let mut received = 0;
    for (stopped, payments) in [(false, 5), (true, 5)] {
        if stopped {
            world.guardian(3).unwrap().process.kill();
        }
        let mut ahead = 0;
        for _ in 0..payments {
            let sent = world.client.send(Amount::from_msat(100_000), "").await.unwrap();
            tokio::time::timeout(SOON, client.receive(&sent.ecash, "")).await.unwrap().unwrap();
            received += 100_000;
            // Spendable, whatever the guardians say of the outcomes.
            assert_eq!(client.balance().await.unwrap().msat(), received);
            let txid = transport.txids.lock().unwrap().last().unwrap().clone();
            let status: TransactionResponse =
                world.guardian(0).unwrap().get(&format!("/v1/transactions/{txid}")).await.unwrap();
            // (Guardian 0 may be the one that is not as far yet.)
            ahead += usize::from(
                status.status == TransactionStatus::Proposed
                    || status.outputs.contains(&OutputStatus::Pending),
            );
        }
        println!(
            "{ahead} of {payments} were spendable while their outcomes were pending (stopped: {stopped})"
        );
        assert!(ahead > 0, "no note was there before its outcome");
    }
    let (shares, outcomes) =
        (transport.shares.load(Ordering::Relaxed), transport.outcomes.load(Ordering::Relaxed));
    println!("{shares} answers with shares, {outcomes} with outcomes, of {} payments", received / 100_000);
    assert!(shares >= 30, "three guardians a payment");

    // And they are money: all of it goes back, through consensus.
    let sent = client.send(Amount::from_msat(received), "").await.unwrap();
    world.client.receive(&sent.ecash, "").await.unwrap();
    assert_eq!(client.balance().await.unwrap(), Amount::ZERO);
    assert!(world.client.settle_all(SOON).await.unwrap());
    let audit = world.federation.audit().await.unwrap();
    let balance = world.client.balance().await.unwrap().msat();
    federation_tests::scenario::conserved(&audit, &[balance]).unwrap();
    assert_eq!(balance, 20_000_000);
}

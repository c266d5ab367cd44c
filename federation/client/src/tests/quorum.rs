//! Asking four guardians, of which one may lie, be down or hang.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use federation_core::PeerId;
use serde_json::{Value, json};

use crate::api::{CallError, FederationApi, Request, Transport};
use crate::{Client, ClientError, Words};

/// What each guardian answers; `None` hangs.
struct Script {
    answers: Vec<Option<Result<Value, CallError>>>,
    asked: AtomicUsize,
}

#[async_trait]
impl Transport for Script {
    async fn call(&self, base: &str, _: &Request, limit: Duration) -> Result<Value, CallError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match &self.answers[base.parse::<usize>().unwrap()] {
            Some(answer) => answer.clone(),
            None => {
                tokio::time::sleep(limit).await;
                Err(CallError::Down("no answer in time".into()))
            }
        }
    }
}

type Answers = Vec<Option<Result<Value, CallError>>>;

fn api(answers: Answers) -> (FederationApi, Arc<Script>) {
    let urls: BTreeMap<_, _> = (0..4u16).map(|n| (PeerId(n), n.to_string())).collect();
    let script = Arc::new(Script { answers, asked: AtomicUsize::new(0) });
    (FederationApi::new(script.clone(), urls, 0), script)
}

fn good(value: u64) -> Option<Result<Value, CallError>> {
    Some(Ok(json!(value)))
}

fn down() -> Option<Result<Value, CallError>> {
    Some(Err(CallError::Down("down".into())))
}

fn no(code: &str) -> Option<Result<Value, CallError>> {
    Some(Err(CallError::Refused { status: 422, code: code.into(), detail: "no".into() }))
}

async fn agreed(answers: Answers) -> crate::Result<u64> {
    api(answers).0.agreed(&Request::get("/x"), Duration::ZERO, |value| value.as_u64()).await
}

#[tokio::test(start_paused = true)]
async fn one_liar_is_outvoted_wherever_he_sits() {
    for liar in 0..4 {
        let mut answers = vec![good(7); 4];
        answers[liar] = good(8);
        assert_eq!(agreed(answers).await.unwrap(), 7);
    }
}

#[tokio::test(start_paused = true)]
async fn two_equal_answers_are_enough_and_nobody_else_is_bothered() {
    let (api, script) = api(vec![good(7); 4]);
    api.agreed(&Request::get("/x"), Duration::ZERO, |value| value.as_u64()).await.unwrap();
    assert_eq!(script.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_down_or_hangs_is_worked_around() {
    assert_eq!(agreed(vec![down(), good(7), good(7), good(7)]).await.unwrap(), 7);
    let start = tokio::time::Instant::now();
    assert_eq!(agreed(vec![None, good(7), good(7), good(7)]).await.unwrap(), 7);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn one_that_hung_is_asked_last_the_next_time() {
    let (api, script) = api(vec![None, good(7), good(7), good(7)]);
    api.any(&Request::get("/x"), Duration::ZERO).await.unwrap();
    let before = script.asked.load(Ordering::Relaxed);
    let start = tokio::time::Instant::now();
    api.any(&Request::get("/x"), Duration::ZERO).await.unwrap();
    assert_eq!(script.asked.load(Ordering::Relaxed), before + 1);
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn four_opinions_are_none() {
    let answers = (0..4).map(good).collect();
    assert!(matches!(agreed(answers).await, Err(ClientError::Disagreement(_))));
}

#[tokio::test(start_paused = true)]
async fn too_few_answers() {
    let result = agreed(vec![good(7), down(), down(), down()]).await;
    assert!(matches!(result, Err(ClientError::Unreachable(_))), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn one_no_is_no_verdict_and_two_are() {
    let result = agreed(vec![no("double_spend"), good(7), good(7), good(7)]).await;
    assert_eq!(result.unwrap(), 7);
    let result = agreed(vec![no("a"), no("a"), good(7), good(7)]).await;
    assert!(matches!(&result, Err(ClientError::Refused { code, .. }) if code == "a"), "{result:?}");
    let (api, _) = api(vec![no("a"), good(1), no("a"), no("a")]);
    assert_eq!(api.any(&Request::get("/x"), Duration::ZERO).await.unwrap(), json!(1));
}

#[tokio::test(start_paused = true)]
async fn one_liar_does_not_set_the_height() {
    let height = |height: u32| Some(Ok(json!({ "height": height })));
    let ask = async |answers: Answers| {
        let seed = Words::generate().unwrap().seed().unwrap();
        let config = crate::testing::config();
        let client = Client::assemble(federation_store::memory(), api(answers).0, config, seed).unwrap();
        client.height().await
    };
    assert_eq!(ask(vec![height(100), height(u32::MAX), height(101), down()]).await.unwrap(), 101);
    let alone = ask(vec![height(100), height(u32::MAX), down(), down()]).await;
    assert!(matches!(alone, Err(ClientError::Disagreement(_))), "{alone:?}");
}

/// Two guardians lag or lie and know nothing of a contract; the others have seen it funded, or are down.
struct Lag {
    others: Result<Value, CallError>,
}

#[async_trait]
impl Transport for Lag {
    async fn call(&self, base: &str, request: &Request, _: Duration) -> Result<Value, CallError> {
        if request.path.contains("height") {
            return Ok(json!({ "height": 1000 }));
        }
        match base {
            "0" | "1" => {
                Err(CallError::Refused { status: 404, code: "unknown_contract".into(), detail: "no".into() })
            }
            _ => self.others.clone(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_invoice_is_not_given_up_on_the_word_of_two() {
    use crate::ops::invoice::{Invoice, State};
    let unknown = || CallError::Refused { status: 404, code: "unknown_contract".into(), detail: "no".into() };
    for (others, given_up) in [
        (Ok(json!({ "state": "funded" })), false),
        (Err(CallError::Down("down".into())), false),
        (Err(unknown()), true),
    ] {
        let urls: BTreeMap<_, _> = (0..4u16).map(|n| (PeerId(n), n.to_string())).collect();
        let api = FederationApi::new(Arc::new(Lag { others }), urls, 0);
        let seed = Words::generate().unwrap().seed().unwrap();
        let config = crate::testing::config();
        let client = Client::assemble(federation_store::memory(), api, config, seed).unwrap();
        let secrets = client.lightning_keys().incoming(0).unwrap();
        let order = federation_lightning::client::ReceiveOrder {
            federation: client.federation_id(),
            config: client.lightning().1,
            gateway: &crate::testing::announcement(0).info,
            invoice_amount: super::msat(1000),
            height: 100,
            secrets: &secrets,
        };
        let contract =
            federation_lightning::client::incoming_contract(&order, &mut rand::thread_rng()).unwrap();
        let invoice = Invoice {
            invoice: String::new(),
            amount: super::msat(1000),
            gateway: String::new(),
            contract,
            key: 0,
            expires_at: 0,
            state: State::Waiting,
        };
        let state = client.wait_for_funds(&invoice).await.unwrap();
        assert_eq!(state, given_up.then_some(State::Expired));
    }
}

//! Bad input at a guardian's REST API: each gets its own clear problem, and the federation goes on.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use federation_tests::scenario::{conserved, deposit};
use federation_tests::{Bitcoind, Ecash, Federation, Sandbox};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

async fn problem(response: reqwest::Response) -> (u16, String) {
    let status = response.status().as_u16();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let body: Value = response.json().await.unwrap();
    assert_eq!(kind, "application/problem+json", "{body}");
    assert_eq!(body["status"], status);
    assert!(!body["detail"].as_str().unwrap().is_empty() && !body["title"].as_str().unwrap().is_empty());
    (status, body["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn bad_requests_are_problems() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let sandbox = Sandbox::new("api").unwrap();
    let bitcoind = Bitcoind::start(&sandbox).await.unwrap();
    let federation = Federation::start(&sandbox, &bitcoind, 4).await.unwrap();
    let alice = Ecash::join(&sandbox, "alice", &federation.invite).await.unwrap();
    deposit(&bitcoind, &alice, 10_000).await.unwrap();
    let http = Client::new();
    let url = federation.guardians[0].url.clone();
    let post = |body: String| {
        http.post(format!("{url}/v1/transactions"))
            .header("content-type", "application/json")
            .body(body)
            .send()
    };
    let get = |path: &str| http.get(format!("{url}{path}")).send();

    let key = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    let signature = "00".repeat(64);
    let input = |module: u16| json!({ "module": module, "key": key, "body": "00" });
    let output = json!({ "module": 0, "body": "00" });
    let transaction = |inputs: Vec<Value>, outputs: Vec<Value>| {
        let witness = vec![signature.clone(); inputs.len()];
        json!({ "inputs": inputs, "outputs": outputs, "witness": witness }).to_string()
    };
    for (what, body, wanted) in [
        ("garbage", "\u{0}garbage".to_owned(), (400, "bad_body")),
        ("another shape", json!({ "inputs": 7 }).to_string(), (422, "bad_body")),
        ("empty", transaction(vec![], vec![]), (400, "malformed")),
        ("too many inputs", transaction(vec![input(0); 257], vec![output.clone()]), (400, "malformed")),
        ("too many outputs", transaction(vec![input(0)], vec![output.clone(); 257]), (400, "malformed")),
        ("wrong signature", transaction(vec![input(0)], vec![output.clone()]), (400, "bad_signature")),
        ("unknown module", transaction(vec![input(77)], vec![output.clone()]), (400, "bad_signature")),
        ("deeply nested", "[".repeat(100_000), (422, "bad_body")),
        ("too large", format!("\"{}\"", "x".repeat(1 << 20)), (413, "too_large")),
    ] {
        let (status, code) = problem(post(body).await.unwrap()).await;
        assert_eq!((status, code.as_str()), wanted, "{what}");
    }
    for (path, wanted) in [
        ("/v1/nothing", (404, "unknown_endpoint")),
        ("/v1/transactions/xyz", (400, "bad_parameter")),
        (&format!("/v1/transactions/{}", "0".repeat(64)), (404, "unknown_transaction")),
        (&format!("/v1/transactions/{}?wait=-1", "0".repeat(64)), (400, "bad_parameter")),
        (&format!("/v1/outcomes/{}/0", "0".repeat(64)), (404, "unknown_output")),
        ("/v1/modules/nothing/at-all", (404, "unknown_endpoint")),
        ("/v1/modules/mint/at-all", (404, "unknown_endpoint")),
        ("/v1/modules/wallet/quote", (400, "missing_parameter")),
        ("/v1/modules/lightning/contract?id=zz", (400, "bad_parameter")),
    ] {
        let (status, code) = problem(get(path).await.unwrap()).await;
        assert_eq!((status, code.as_str()), wanted, "{path}");
    }
    let wrong_method = http.delete(format!("{url}/v1/status")).send().await.unwrap();
    assert_eq!(problem(wrong_method).await, (405, "wrong_method".to_owned()));
    assert_eq!(get("/v1/config").await.unwrap().status(), StatusCode::OK);

    let balance = alice.balance().await.unwrap();
    conserved(&federation.audit().await.unwrap(), &[balance]).unwrap();
    assert_eq!(federation.guardians[0].status().await.unwrap().alarms, Vec::<String>::new());
}

#[tokio::test]
async fn notes_of_another_federation_are_refused() {
    let sandbox = Sandbox::new("foreign").unwrap();
    let bitcoind = Bitcoind::start(&sandbox).await.unwrap();
    let home = Federation::start(&sandbox, &bitcoind, 1).await.unwrap();
    let abroad_sandbox = Sandbox::new("abroad").unwrap();
    let abroad = Federation::start(&abroad_sandbox, &bitcoind, 1).await.unwrap();
    let alice = Ecash::join(&sandbox, "alice", &home.invite).await.unwrap();
    let mallory = Ecash::join(&sandbox, "mallory", &abroad.invite).await.unwrap();
    deposit(&bitcoind, &mallory, 10_000).await.unwrap();
    let sent = mallory.run(&["send", "1000sat"]).await.unwrap();
    let refusal = alice.refused(&["receive", sent["ecash"].as_str().unwrap()]).await.unwrap();
    assert!(refusal.message.contains("federation"), "{refusal}");
    assert_eq!(alice.balance().await.unwrap(), 0);
    // Nobody has taken them: they can be had back.
    mallory.run(&["reclaim", sent["operation"].as_str().unwrap()]).await.unwrap();
    assert_eq!(mallory.balance().await.unwrap(), 10_000_000);
}

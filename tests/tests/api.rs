//! Bad input at a guardian's REST API: each gets its own clear problem, and the federation goes on.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::time::Duration;

use federation_tests::scenario::{conserved, deposit};
use federation_tests::{Bitcoind, Ecash, Federation, Sandbox, wait_for};
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
async fn status_and_metrics_show_the_others() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let sandbox = Sandbox::new("status").unwrap();
    let bitcoind = Bitcoind::start(&sandbox).await.unwrap();
    let federation = Federation::start(&sandbox, &bitcoind, 4).await.unwrap();
    let alice = Ecash::join(&sandbox, "alice", &federation.invite).await.unwrap();
    deposit(&bitcoind, &alice, 10_000).await.unwrap();
    federation.guardians[3].process.kill();
    let guardian = &federation.guardians[0];
    wait_for("the killed guardian to be seen as gone", Duration::from_secs(60), || async {
        Ok(guardian.status().await?.peers.values().any(|peer| !peer.connected).then_some(()))
    })
    .await
    .unwrap();
    let status = guardian.status().await.unwrap();
    assert_eq!(status.peers.len(), 3);
    assert_eq!((status.consensus_version.in_force, status.consensus_version.supported), (1, 1));
    assert!(!status.catching_up && status.silent.is_none() && status.diverged.is_none());
    for (peer, seen) in &status.peers {
        assert_eq!(seen.connected, seen.name != "guardian-3", "{peer} {seen:?}");
        assert!(
            seen.last_seen_ms.is_some() && seen.epoch.is_some() && seen.epochs_behind.is_some(),
            "{seen:?}"
        );
        assert_eq!((seen.faults, seen.announced_version), (0, 1), "{seen:?}");
    }

    let response = reqwest::get(format!("{}/metrics", guardian.url)).await.unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let text = response.text().await.unwrap();
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
    };
    assert!(value("clnfed_epoch") >= status.epoch as f64);
    assert!(value("clnfed_epochs_total") > 0.0 && value("clnfed_epoch_seconds_count") > 0.0);
    assert!(value("clnfed_transactions_total{outcome=\"accepted\"}") >= 1.0);
    for (peer, seen) in &status.peers {
        let shown = value(&format!("clnfed_peer_connected{{peer=\"{peer}\"}}"));
        assert_eq!(shown, f64::from(u8::from(seen.connected)), "guardian {peer}");
    }
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

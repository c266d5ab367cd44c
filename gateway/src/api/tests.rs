//! The APIs over a real socket; swaps are tested elsewhere.

use std::sync::Arc;

use federation_core::rest::ProblemDocument;
use serde_json::{Value, json};

use super::types::InfoResponse;
use crate::swap::testing;
use crate::{Fees, Gateway, GatewayConfig, Limits};

struct Running {
    gateway: Arc<Gateway>,
    api: String,
    admin: String,
    token: String,
    http: reqwest::Client,
    _dir: tempfile::TempDir,
}

async fn start() -> Running {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let config = GatewayConfig {
        data_dir: dir.path().to_path_buf(),
        api_bind: "127.0.0.1:0".parse().unwrap(),
        api_url: None,
        fees: Fees::default(),
        limits: Limits::default(),
        words: None,
    };
    let gateway = Gateway::start(config, testing::node()).await.unwrap();
    let admin = gateway.serve_admin("127.0.0.1:0".parse().unwrap(), axum::Router::new()).await.unwrap();
    let token = std::fs::read_to_string(dir.path().join("admin-token")).unwrap();
    Running {
        api: format!("http://{}", gateway.api_address()),
        admin: format!("http://{admin}"),
        gateway,
        token,
        http: reqwest::Client::builder().no_proxy().build().unwrap(),
        _dir: dir,
    }
}

impl Running {
    async fn problem(&self, request: reqwest::RequestBuilder) -> ProblemDocument {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let problem: ProblemDocument = response.json().await.unwrap();
        assert_eq!(problem.status, status);
        assert_eq!(problem.kind, "about:blank");
        problem
    }
}

#[tokio::test]
async fn users_learn_fees_and_keys() {
    let running = start().await;
    let url = format!("{}/v1/info", running.api);
    let info: InfoResponse = running.http.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(info.gateway_key, running.gateway.key());
    assert_eq!(info.send_fees, Fees::default().send());
    assert!(info.federations.is_empty());
}

#[tokio::test]
async fn what_can_not_be_read_is_a_problem_document() {
    let running = start().await;
    let (http, api) = (&running.http, &running.api);
    let post = |path: &str, body: &'static str| http.post(format!("{api}{path}")).body(body);
    let get = |path: &str| http.get(format!("{api}{path}"));
    for (request, status, code) in [
        (post("/v1/pay", "garbage"), 400, "bad_body"),
        (post("/v1/pay", "{}"), 400, "bad_body"),
        (post("/v1/invoices", "[]"), 400, "bad_body"),
        (get("/v1/pay/xyz"), 400, "bad_id"),
        (get(&format!("/v1/pay/{}", "00".repeat(32))), 404, "unknown_swap"),
        (get(&format!("/v1/invoices/{}?wait=1", "00".repeat(32))), 404, "unknown_swap"),
        (get(&format!("/v1/pay/{}?wait=soon", "00".repeat(32))), 400, "bad_parameter"),
        (get("/v1/nothing"), 404, "no_such_endpoint"),
        (get("/v1/pay"), 405, "method_not_allowed"),
    ] {
        let problem = running.problem(request).await;
        assert_eq!((problem.status, problem.code.as_str()), (status, code));
    }
    let large = http.post(format!("{api}/v1/pay")).body(vec![b' '; (1 << 20) + 1]);
    assert_eq!(running.problem(large).await.status, 413);
    let pay = json!({
        "federation_id": "00".repeat(32), "contract_id": "00".repeat(32), "contract": "00", "invoice": "lnbcrt1",
    });
    let problem = running.problem(http.post(format!("{api}/v1/pay")).json(&pay)).await;
    assert_eq!(problem.code, "bad_contract");
}

#[tokio::test]
async fn only_the_token_opens_the_admin_api() {
    let running = start().await;
    let url = format!("{}/v1/status", running.admin);
    for token in ["", "x", &"0".repeat(64)] {
        let problem = running.problem(running.http.get(&url).bearer_auth(token)).await;
        assert_eq!((problem.status, problem.code.as_str()), (401, "unauthorized"));
    }
    assert_eq!(running.problem(running.http.get(&url)).await.status, 401);
    let status = running.http.get(&url).bearer_auth(&running.token).send().await.unwrap();
    let status: Value = status.json().await.unwrap();
    assert_eq!(status["node"]["alias"], "fake");
    assert_eq!(status["swaps"]["open"]["paying"], 0);
    // What changes at run time.
    let fees = json!({ "send_base_msat": 1, "send_ppm": 2, "receive_base_msat": 3, "receive_ppm": 4 });
    let url = |path: &str| format!("{}{path}", running.admin);
    let ok = |path: &str, body: Value| running.http.post(url(path)).bearer_auth(&running.token).json(&body);
    assert!(ok("/v1/fees", fees).send().await.unwrap().status().is_success());
    assert!(ok("/v1/drain", json!({ "draining": true })).send().await.unwrap().status().is_success());
    let status = running.gateway.status().await.unwrap();
    assert!(status.draining && status.safe_to_stop);
    assert_eq!(status.fees.receive_ppm, 4);
    let problem = running.problem(ok("/v1/federations", json!({ "invite": "nonsense" }))).await;
    assert_eq!(problem.code, "bad_invite");
    let unknown = json!({ "federation_id": "00".repeat(32) });
    assert_eq!(running.problem(ok("/v1/deposit", unknown)).await.code, "unknown_federation");
}

#[tokio::test]
async fn the_admin_api_stays_on_this_machine() {
    let running = start().await;
    let error =
        running.gateway.serve_admin("0.0.0.0:0".parse().unwrap(), axum::Router::new()).await.unwrap_err();
    assert_eq!(error.problem().code, "not_loopback");
}

#[tokio::test]
async fn it_stops_and_starts_again_on_the_same_directory() {
    let running = start().await;
    let key = running.gateway.key();
    // A request that waits does not hold it up.
    running.gateway.shutdown().await;
    let config = GatewayConfig {
        data_dir: running._dir.path().to_path_buf(),
        api_bind: "127.0.0.1:0".parse().unwrap(),
        api_url: Some("https://example.org".into()),
        fees: Fees::default(),
        limits: Limits::default(),
        words: None,
    };
    let Running { gateway, _dir, .. } = running;
    drop(gateway);
    let again = Gateway::start(config, testing::node()).await.unwrap();
    assert_eq!(again.key(), key);
    assert_eq!(again.api_url(), "https://example.org");
}

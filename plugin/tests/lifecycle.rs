//! The plugin in a real lightningd: options, start and stop, commands, and messages that would end cln-plugin.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::{Bitcoind, Node, error_code, free_port, lightningd_is_here, wait_for};

const PLUGIN: &str = env!("CARGO_BIN_EXE_cln-federation");

fn options() -> Vec<(&'static str, String)> {
    vec![
        ("fed-api", format!("127.0.0.1:{}", free_port())),
        ("fed-link", format!("127.0.0.1:{}", free_port())),
        ("fedgw-api", format!("127.0.0.1:{}", free_port())),
    ]
}

fn wait_until_running(node: &Node) {
    wait_for("the guardian", || {
        let status = node.try_call("fed-status", &[]).ok()?;
        assert_ne!(status["guardian"]["state"], "failed", "{status}");
        (status["guardian"]["state"] == "running").then_some(())
    });
}

#[test]
fn loaded_by_option() {
    if !lightningd_is_here() {
        return;
    }
    let bitcoind = Bitcoind::start();
    let mut args = vec![format!("--plugin={PLUGIN}")];
    args.extend(options().iter().map(|(name, value)| format!("--{name}={value}")));
    let mut node = Node::start(&bitcoind, "node", &args);
    wait_until_running(&node);

    // A federation of one.
    assert_eq!(node.call("fed-setup-status", &[])["phase"], "new");
    assert!(node.try_call("fed-invite", &[]).is_err());
    let setup =
        node.call("fed-setup", &[("name", json!("a")), ("federation", json!("f")), ("guardians", json!(1))]);
    assert!(setup["code"].is_string());
    node.call("fed-setup-start", &[]);
    let invite = wait_for("the federation", || node.try_call("fed-invite", &[]).ok());
    assert!(invite["invite"].as_str().unwrap().starts_with("clnfed1"), "{invite}");
    let status = node.call("fed-status", &[]);
    assert_eq!(status["federation"]["federation_id"], invite["federation_id"], "{status}");
    assert_eq!(node.call("fed-audit", &[])["net_msat"], 0);

    // Off is a status, and an error of the commands that need it.
    assert_eq!(node.call("fedgw-status", &[])["gateway"]["state"], "off");
    assert_eq!(error_code(node.try_call("fedgw-balance", &[])), -32001);

    bad_parameters(&node);
    hostile_messages(&node);

    for kill in [false, true] {
        node.restart(&bitcoind, kill);
        wait_until_running(&node);
        wait_for("the same federation", || {
            (node.try_call("fed-invite", &[]).ok()?["federation_id"] == invite["federation_id"]).then_some(())
        });
    }
    let log = std::fs::read_to_string(node.folder.join("log")).unwrap();
    let killed: Vec<_> = log
        .lines()
        .filter(|line| {
            line.contains("federation: Killing plugin") && !line.contains("exited during normal operation")
        })
        .collect();
    assert!(killed.is_empty(), "{killed:?}");
    assert_eq!(node.alarms("cln-federation"), Vec::<String>::new());
}

fn bad_parameters(node: &Node) {
    let code = |method: &str, params: Value| error_code(node.try_json(method, params));
    assert_eq!(code("fed-setup", json!([])), -32602);
    assert_eq!(code("fed-setup", json!({ "name": {} })), -32602);
    assert_eq!(code("fed-setup", json!({ "name": "a", "guardians": -1 })), -32602);
    assert_eq!(code("fed-setup", json!({ "name": "a", "federation": "f" })), -32602);
    assert_eq!(code("fed-setup", json!(["a", "f", 21])), -32602);
    assert_eq!(code("fed-setup", json!(["a", "f", 1, 2, 3])), -32602);
    assert_eq!(code("fed-status", json!({ "x": 1 })), -32602);
    assert_eq!(code("fedgw-connect", json!(["no invite"])), -32602);
    assert_eq!(code("fed-setup-peer", json!(["no code"])), -32000);
}

/// Each of these ends a plugin that reads them with cln-plugin 0.7 alone.
fn hostile_messages(node: &Node) {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for params in [format!("[{deep}]"), r#"["\ud800"]"#.to_owned(), r#"{"x":"\udfff"}"#.to_owned()] {
        let request = format!(r#"{{"jsonrpc":"2.0","id":"h","method":"fed-status","params":{params}}}"#);
        let answer = node.raw(&request);
        assert!(answer["error"]["code"].is_i64(), "{answer}");
    }
    // Blank lines between parameters, and an id that is written differently when it is read and written again.
    for request in [
        "{\"jsonrpc\":\"2.0\",\"id\":\"h\",\"method\":\"fed-status\",\"params\":[\n\n\n]}",
        r#"{"jsonrpc":"2.0","id":"\u0041","method":"fed-status","params":[]}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"fed-status"}"#,
    ] {
        let answer = node.raw(request);
        assert!(answer["result"].is_object() || answer["error"].is_object(), "{answer}");
    }
    assert_eq!(node.call("fed-status", &[])["guardian"]["state"], "running");
}

#[test]
fn loaded_dynamically() {
    if !lightningd_is_here() {
        return;
    }
    let bitcoind = Bitcoind::start();
    let mut node = Node::start(&bitcoind, "node", &[]);
    let start = |extra: &[(&str, &str)]| {
        let mut params = json!({ "subcommand": "start", "plugin": PLUGIN });
        for (name, value) in options() {
            params[name] = json!(value);
        }
        for (name, value) in extra {
            params[*name] = json!(value);
        }
        params
    };
    // A bad option: one line, and lightningd lives on.
    let refused = node.try_json("plugin", start(&[("fed-api", "nowhere")])).unwrap_err();
    assert!(
        refused["message"].as_str().unwrap().contains("fed-api: 'nowhere' is not an IP address"),
        "{refused}"
    );
    assert!(node.is_running());
    let data = node.folder.join("regtest/federation");
    assert!(!data.exists(), "a disabled plugin has touched files");

    for _ in 0..2 {
        node.try_json("plugin", start(&[("fedgw-enable", "true")])).unwrap();
        wait_until_running(&node);
        wait_for("the gateway", || {
            let status = node.try_call("fedgw-status", &[]).ok()?;
            assert_ne!(status["gateway"]["state"], "failed", "{status}");
            (status["gateway"]["state"] == "running").then_some(())
        });
        assert_eq!(node.call("fedgw-balance", &[])["ecash"], json!([]));
        assert_eq!(error_code(node.try_json("fedgw-deposit", json!(["10001msat"]))), -32602);
        assert_eq!(error_code(node.try_json("fedgw-withdraw", json!(["all"]))), -32002);
        assert_eq!(error_code(node.try_json("fedgw-receive-ecash", json!([]))), -32602);
        assert_eq!(error_code(node.try_json("fedgw-receive-ecash", json!({ "ecash": "x" }))), -32000);
        assert!(Path::new(&data).join("live-htlcs").exists());
        node.list("plugin", &["stop", PLUGIN]);
        assert_eq!(error_code(node.try_call("fed-status", &[])), -32601);
    }
    node.try_json("plugin", start(&[("fed-guardian", "false")])).unwrap();
    assert_eq!(node.call("fed-status", &[])["guardian"]["state"], "off");
    assert_eq!(error_code(node.try_call("fed-invite", &[])), -32001);

    // A damaged file of live hashes is not overwritten: the plugin says so and stays away.
    node.list("plugin", &["stop", PLUGIN]);
    std::fs::write(data.join("live-htlcs"), "garbage\n").unwrap();
    let refused = node.try_json("plugin", start(&[])).unwrap_err();
    assert!(refused["message"].as_str().unwrap().contains("damaged at line 1"), "{refused}");
    assert_eq!(std::fs::read(data.join("live-htlcs")).unwrap(), b"garbage\n");
    assert!(node.is_running());
}

//! The harness itself: each real part starts, does its work, and is gone afterwards.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bitcoin::hashes::{Hash as _, sha256};
use federation_tests::{
    Bitcoind, FIRST_BLOCKS, Lightningd, Postgres, Sandbox, Signal, lightningd, ports, wait_for,
};

const SOON: Duration = Duration::from_secs(20);

fn runs(pid: u32) -> bool {
    // A zombie whose parent is gone is not running, only not yet reaped by whoever inherited it.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap().starts_with('Z'))
}

#[tokio::test]
async fn bitcoind_mines_and_restarts() {
    let sandbox = Sandbox::new("bitcoind").unwrap();
    let mut bitcoind = Bitcoind::start(&sandbox).await.unwrap();
    assert_eq!(bitcoind.height().await.unwrap(), FIRST_BLOCKS);
    let address = bitcoind.address().await.unwrap();
    let txid = bitcoind.send(&address, 123_456).await.unwrap();
    bitcoind.wait_mempool(txid, SOON).await.unwrap();
    bitcoind.mine(2).await.unwrap();
    assert_eq!(bitcoind.received(&address).await.unwrap(), 123_456);
    assert_eq!(bitcoind.transaction(txid).await.unwrap().compute_txid(), txid);
    bitcoind.restart().await.unwrap();
    assert_eq!(bitcoind.height().await.unwrap(), FIRST_BLOCKS + 2);
    let error = bitcoind.rpc::<String>("nosuchcommand", serde_json::json!([])).await.unwrap_err();
    assert!(error.to_string().contains("nosuchcommand"));
    let (pid, path) = (bitcoind.process().pid(), sandbox.path().to_owned());
    drop(bitcoind);
    drop(sandbox);
    assert!(!runs(pid) && !path.exists());
}

#[tokio::test]
async fn postgres_makes_databases_and_restarts() {
    let sandbox = Sandbox::new("postgres").unwrap();
    let mut postgres = Postgres::start(&sandbox).await.unwrap();
    let url = postgres.create_database("guardian").await.unwrap();
    let query = |sql: &str| {
        let psql = postgres_psql(postgres.bin(), &url, sql);
        assert!(psql.status.success(), "{psql:?}");
        String::from_utf8(psql.stdout).unwrap().trim().to_owned()
    };
    query("create table t (x int); insert into t values (41)");
    assert_eq!(query("update t set x = x + 1; select x from t").lines().last(), Some("42"));
    assert!(postgres.create_database("guardian").await.is_err(), "it exists");
    postgres.restart().await.unwrap();
    let psql = postgres_psql(postgres.bin(), &url, "select x from t");
    assert_eq!(String::from_utf8(psql.stdout).unwrap().trim(), "42");
    let pid = postgres.process().pid();
    drop(postgres);
    assert!(!runs(pid));
}

fn postgres_psql(bin: &Path, url: &str, sql: &str) -> std::process::Output {
    Command::new(bin.join("psql")).args([url, "-XqAtc", sql]).output().unwrap()
}

#[tokio::test]
async fn two_lightningds_open_a_channel_and_pay() {
    if lightningd::require().is_none() {
        return;
    }
    let sandbox = Sandbox::new("lightningd").unwrap();
    let bitcoind = Bitcoind::start(&sandbox).await.unwrap();
    let (payer, payee) = tokio::try_join!(
        Lightningd::start(&sandbox, "payer", &bitcoind, &[]),
        Lightningd::start(&sandbox, "payee", &bitcoind, &[]),
    )
    .unwrap();
    payer.fund(&bitcoind, 2_000_000).await.unwrap();
    payer.open_channel(&payee, &bitcoind, 1_000_000, 300_000_000).await.unwrap();

    let invoice = payee.invoice(50_000, "first").await.unwrap();
    assert_eq!(payee.received("first").await.unwrap(), None);
    let preimage = payer.pay(&invoice).await.unwrap();
    let hash = sha256::Hash::hash(&hex::decode(preimage).unwrap());
    let parsed: lightning_invoice::Bolt11Invoice = invoice.parse().unwrap();
    assert_eq!(&hash, parsed.payment_hash());
    assert_eq!(payee.received("first").await.unwrap(), Some(50_000));
    let back = payer.invoice(20_000, "back").await.unwrap();
    payee.pay(&back).await.unwrap();

    let mut payee = payee;
    let id = payee.id().to_owned();
    payee.stop().await.unwrap();
    payee.restart().await.unwrap();
    assert_eq!(payee.id(), id);
    payee.process().kill();
    payee.restart().await.unwrap();
    assert_eq!(payee.received("first").await.unwrap(), Some(50_000));
}

#[tokio::test]
async fn a_process_that_fails_says_why() {
    let sandbox = Sandbox::new("process").unwrap();
    let spec = sandbox.spec("bad", "sh").args(["-c", "echo because; exit 3"]);
    let error = spec.run(SOON).await.unwrap_err().to_string();
    assert!(error.contains("exit status: 3") && error.contains("because"), "{error}");
    let bad = sandbox.spec("bad", "sh").args(["-c", "echo too early"]).start().unwrap();
    let error = bad.wait_ready(SOON, || async { anyhow::Ok(None::<()>) }).await.unwrap_err().to_string();
    assert!(error.contains("while it started") && error.contains("too early"), "{error}");
    assert!(sandbox.spec("none", "/does/not/exist").run(SOON).await.is_err());

    let slow = sandbox.spec("slow", "sleep").arg("1000").start().unwrap();
    let pid = slow.pid();
    slow.signal(Signal::Stop).unwrap();
    slow.signal(Signal::Cont).unwrap();
    assert!(slow.exited().unwrap().is_none() && runs(pid));
    assert!(!slow.stop().await.unwrap().success());
    assert!(slow.signal(Signal::Term).is_err() && !runs(pid));
    let never = wait_for("never", Duration::from_millis(50), || async { anyhow::Ok(None::<()>) });
    assert!(never.await.is_err());
}

/// Not a test of its own: what the next one starts and kills.
#[tokio::test]
async fn helper_that_is_killed() {
    let Some(file) = std::env::var_os("HARNESS_PID_FILE") else { return };
    let sandbox = Sandbox::new("killed").unwrap();
    // In a thread that ends at once: the child must not end with that one.
    let spec = sandbox.spec("left", "sleep").arg("1000");
    let child = std::thread::spawn(move || spec.start().unwrap()).join().unwrap();
    std::fs::write(&file, format!("{} {}\n", child.pid(), sandbox.path().display())).unwrap();
    child.wait_exit(Duration::from_secs(60)).await.unwrap();
}

#[tokio::test]
async fn nothing_is_left_when_a_test_is_killed() {
    let sandbox = Sandbox::new("kill").unwrap();
    let file = sandbox.path().join("pid");
    let mut test = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper_that_is_killed"])
        .env("HARNESS_PID_FILE", &file)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let written = wait_for("the helper's child", SOON, || async {
        Ok(Some(std::fs::read_to_string(&file)?).filter(|text| text.ends_with('\n')))
    });
    let written = written.await.unwrap();
    let (pid, folder) = written.trim().split_once(' ').unwrap();
    let pid = pid.parse().unwrap();
    assert!(runs(pid));
    test.kill().unwrap();
    test.wait().unwrap();
    wait_for("the child is gone", SOON, || async { Ok((!runs(pid)).then_some(())) }).await.unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn ports_are_given_once() {
    let ports: std::collections::BTreeSet<_> = (0..50).map(|_| ports::free_port().unwrap()).collect();
    assert_eq!(ports.len(), 50);
}

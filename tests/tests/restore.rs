//! Disks that are lost or go back in time: a guardian comes back from its secrets backup, or from an old copy of its
//! folder, while the others go on; and outsiders can check what the federation signs.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bitcoin::secp256k1::{Message, SECP256K1, schnorr};
use federation_core::config::ConfigResponse;
use federation_core::rest::{EpochResponse, header_message};
use federation_tests::chaos::world::copy;
use federation_tests::federation::Guardian;
use federation_tests::scenario::{conserved, deposit, send};
use federation_tests::{Bitcoind, Ecash, Federation, Postgres, Sandbox, wait_for};

const SOON: Duration = Duration::from_secs(90);

/// Hands a little money to and fro until the federation is at this epoch.
async fn run_to(federation: &Federation, wallets: [&Ecash; 2], epoch: u64) {
    let [mut from, mut to] = wallets;
    while federation.guardians[0].status().await.unwrap().epoch < epoch {
        send(from, to, "1sat").await.unwrap();
        std::mem::swap(&mut from, &mut to);
    }
}

async fn header(guardian: &Guardian, epoch: u64) -> EpochResponse {
    guardian.get(&format!("/v1/epochs/{epoch}")).await.unwrap()
}

/// All guardians have come to the same, by the hash of the last header, which covers those before.
async fn same_headers(federation: &Federation) -> u64 {
    let last = federation.settled().await.unwrap() - 1;
    let mut hashes = BTreeSet::new();
    for guardian in &federation.guardians {
        hashes.insert(header(guardian, last).await.hash);
    }
    assert_eq!(hashes.len(), 1);
    last
}

/// The restored guardian speaks and signs again: then another one is stopped, and money still moves.
async fn takes_part(federation: &Federation, one: usize, wallets: [&Ecash; 2]) {
    let guardian = &federation.guardians[one];
    let me = guardian.status().await.unwrap().peer;
    wait_for("the guardian signs what the others hold", SOON, || async {
        send(wallets[0], wallets[1], "1sat").await?;
        let silent = guardian.status().await?.silent;
        let last = federation.settled().await? - 1;
        let signatures = header(&federation.guardians[0], last).await.signatures;
        Ok((silent.is_none() && signatures.contains_key(&me)).then_some(()))
    })
    .await
    .unwrap();
    let other = if one == 2 { 3 } else { 2 };
    federation.guardians[other].process.kill();
    send(wallets[0], wallets[1], "7sat").await.unwrap();
    send(wallets[1], wallets[0], "5sat").await.unwrap();
}

async fn held(federation: &Federation, wallets: [&Ecash; 2]) {
    let held = [wallets[0].balance().await.unwrap(), wallets[1].balance().await.unwrap()];
    assert_eq!(held.iter().sum::<u64>(), 100_000_000);
    conserved(&federation.audit().await.unwrap(), &held).unwrap();
}

fn wipe(folder: &Path) {
    std::fs::remove_dir_all(folder).unwrap();
}

async fn a_lost_disk(postgres: bool, interval: u64) {
    let sandbox = Sandbox::new("restore").unwrap();
    let bitcoind = Bitcoind::start(&sandbox).await.unwrap();
    let mut stores = vec![None; 4];
    let server = if postgres { Some(Postgres::start(&sandbox).await.unwrap()) } else { None };
    if let Some(server) = &server {
        for (i, store) in stores.iter_mut().enumerate() {
            *store = Some(server.create_database(&format!("guardian{i}")).await.unwrap());
        }
    }
    let mut federation =
        Federation::start_with_snapshots(&sandbox, &bitcoind, &stores, interval).await.unwrap();
    let alice = Ecash::join(&sandbox, "alice", &federation.invite).await.unwrap();
    let bob = Ecash::join(&sandbox, "bob", &federation.invite).await.unwrap();
    let wallets = [&alice, &bob];
    deposit(&bitcoind, &alice, 100_000).await.unwrap();
    send(&alice, &bob, "40000sat").await.unwrap();

    // While it runs; a second time it does not overwrite the first.
    let backup = sandbox.path().join("backup");
    let to = format!("--to={}", backup.display());
    federation.guardians[1].command(&["backup", &to]).await.unwrap();
    assert!(federation.guardians[1].command(&["backup", &to]).await.is_err());
    let from = format!("--from={}", backup.display());
    let refused = federation.guardians[1].command(&["restore", &from]).await.unwrap_err();
    assert!(refused.to_string().contains("is not empty"), "{refused}");

    run_to(&federation, wallets, if interval < 45 { 45 } else { 20 }).await;
    let last = same_headers(&federation).await;
    outsider(&federation, last).await;
    let snapshots = federation.guardians[0].data_dir.join("snapshots");
    let files = std::fs::read_dir(&snapshots).map_or(0, Iterator::count);
    assert!(if interval < 45 { files >= 4 } else { files == 0 }, "two snapshots, each of two files, or none");

    federation.guardians[1].process.kill();
    wipe(&federation.guardians[1].data_dir);
    if let Some(server) = &server {
        let (dropdb, port) =
            (server.bin().join("dropdb"), server.url("").rsplit(['/', ':']).nth(1).unwrap().to_owned());
        let dropped = std::process::Command::new(dropdb)
            .args(["--force", "-h", "127.0.0.1", "-U", "postgres", "-p", &port, "guardian1"])
            .status();
        assert!(dropped.unwrap().success());
        server.create_database("guardian1").await.unwrap();
    }
    send(&bob, &alice, "1000sat").await.unwrap();
    federation.guardians[1].command(&["restore", &from]).await.unwrap();
    federation.guardians[1].process.restart().unwrap();
    send(&alice, &bob, "2000sat").await.unwrap();
    federation.guardians[1].ready().await.unwrap();
    let log = std::fs::read_to_string(federation.guardians[1].process.log()).unwrap();
    assert_eq!(log.contains("the state is restored"), interval < 45, "whether a snapshot was used");
    assert_eq!(log.contains("the whole history"), interval >= 45);
    send(&bob, &alice, "3000sat").await.unwrap();
    same_headers(&federation).await;
    held(&federation, wallets).await;
    takes_part(&federation, 1, wallets).await;
    held(&federation, wallets).await;
}

#[tokio::test]
async fn a_lost_disk_comes_back_from_the_secrets_backup() {
    a_lost_disk(false, 10).await;
}

#[tokio::test]
async fn without_any_snapshot_the_whole_history_does_it() {
    a_lost_disk(false, 1000).await;
}

#[tokio::test]
async fn a_lost_database_on_postgres_does_too() {
    a_lost_disk(true, 10).await;
}

/// With the configuration alone, f + 1 signatures of a header can be checked.
async fn outsider(federation: &Federation, epoch: u64) {
    let guardian = &federation.guardians[0];
    let response: ConfigResponse = guardian.get("/v1/config").await.unwrap();
    let config = response.verified(response.federation_id).unwrap();
    let all = || async {
        let shown = header(guardian, epoch).await;
        Ok((shown.signatures.len() >= config.threshold()).then_some(shown))
    };
    let shown = wait_for("n - f signatures", SOON, all).await.unwrap();
    assert!(shown.is_final);
    let encoded = [
        b"cln-federation/header/v1".as_slice(),
        &shown.epoch.to_be_bytes(),
        &shown.previous,
        &shown.items,
        &shown.state,
    ]
    .concat();
    use bitcoin::hashes::{Hash as _, sha256};
    let hash = sha256::Hash::hash(&encoded).to_byte_array();
    assert_eq!(hash, shown.hash);
    let message = Message::from_digest(header_message(config.id(), &hash));
    for (peer, signature) in &shown.signatures {
        let signature = schnorr::Signature::from_slice(&hex::decode(signature).unwrap()).unwrap();
        SECP256K1.verify_schnorr(&signature, &message, &config.guardians[peer].identity).unwrap();
    }
    assert_eq!(header(guardian, epoch - 1).await.hash, shown.previous);
    assert!(guardian.get::<EpochResponse>("/v1/epochs/99999999").await.is_err());
}

#[tokio::test]
async fn a_disk_that_goes_back_by_fifty_epochs_catches_up() {
    let sandbox = Sandbox::new("rollback").unwrap();
    let bitcoind = Bitcoind::start(&sandbox).await.unwrap();
    let mut federation = Federation::start(&sandbox, &bitcoind, 4).await.unwrap();
    let alice = Ecash::join(&sandbox, "alice", &federation.invite).await.unwrap();
    let bob = Ecash::join(&sandbox, "bob", &federation.invite).await.unwrap();
    let wallets = [&alice, &bob];
    deposit(&bitcoind, &alice, 100_000).await.unwrap();
    send(&alice, &bob, "40000sat").await.unwrap();

    let old = sandbox.path().join("old");
    let folder = federation.guardians[1].data_dir.clone();
    let before = federation.settled().await.unwrap();
    federation.guardians[1].process.stop().await.unwrap();
    copy(&folder, &old).await.unwrap();
    federation.guardians[1].process.restart().unwrap();
    federation.guardians[1].ready().await.unwrap();
    run_to(&federation, wallets, before + 50).await;
    federation.settled().await.unwrap();
    federation.guardians[1].process.stop().await.unwrap();
    wipe(&folder);
    copy(&old, &folder).await.unwrap();
    federation.guardians[1].process.restart().unwrap();
    federation.guardians[1].ready().await.unwrap();
    send(&bob, &alice, "3000sat").await.unwrap();
    let last = same_headers(&federation).await;
    assert!(last >= before + 50);
    held(&federation, wallets).await;
    takes_part(&federation, 1, wallets).await;
    held(&federation, wallets).await;
}

#[tokio::test]
async fn a_guardian_that_was_away_for_too_long_gets_a_snapshot_by_itself() {
    let sandbox = Sandbox::new("away").unwrap();
    let bitcoind = Bitcoind::start(&sandbox).await.unwrap();
    let mut federation =
        Federation::start_with_snapshots(&sandbox, &bitcoind, &vec![None; 4], 5).await.unwrap();
    let alice = Ecash::join(&sandbox, "alice", &federation.invite).await.unwrap();
    let bob = Ecash::join(&sandbox, "bob", &federation.invite).await.unwrap();
    let wallets = [&alice, &bob];
    deposit(&bitcoind, &alice, 100_000).await.unwrap();
    let before = federation.settled().await.unwrap();
    federation.guardians[1].process.stop().await.unwrap();
    run_to(&federation, wallets, before + 30).await;
    federation.guardians[1].process.restart().unwrap();
    let log = || std::fs::read_to_string(federation.guardians[1].process.log()).unwrap();
    wait_for("a snapshot is restored in the running process", SOON, || async {
        Ok(log().contains("the state is restored").then_some(()))
    })
    .await
    .unwrap();
    assert!(log().contains("the others have forgotten"));
    federation.guardians[1].ready().await.unwrap();
    same_headers(&federation).await;
    held(&federation, wallets).await;
    takes_part(&federation, 1, wallets).await;
    held(&federation, wallets).await;
}

/// Changes what a stopped guardian believes its state to be.
async fn falsify(guardian: &Guardian) {
    let url = format!("sqlite://{}", guardian.data_dir.join("guardian.sqlite").display());
    let db = federation_store::open(&url).await.unwrap();
    // This guardian's own table 10: the sums of the state digest.
    let key = vec![2, 10];
    let mut sums = db.get(&key).await.unwrap().unwrap();
    sums[100] ^= 1;
    db.commit([(key, Some(sums))].into()).await.unwrap();
}

#[tokio::test]
async fn a_guardian_whose_state_differs_says_so_and_is_left_out() {
    let sandbox = Sandbox::new("diverged").unwrap();
    let bitcoind = Bitcoind::start(&sandbox).await.unwrap();
    let mut federation = Federation::start(&sandbox, &bitcoind, 4).await.unwrap();
    let alice = Ecash::join(&sandbox, "alice", &federation.invite).await.unwrap();
    let bob = Ecash::join(&sandbox, "bob", &federation.invite).await.unwrap();
    let wallets = [&alice, &bob];
    deposit(&bitcoind, &alice, 100_000).await.unwrap();
    federation.settled().await.unwrap();
    federation.guardians[3].process.stop().await.unwrap();
    falsify(&federation.guardians[3]).await;
    for again in [false, true] {
        federation.guardians[3].process.restart().unwrap();
        federation.guardians[3].ready().await.unwrap();
        send(&alice, &bob, "1000sat").await.unwrap();
        let guardian = &federation.guardians[3];
        let status = wait_for("the alarm", SOON, || async {
            Ok(Some(guardian.status().await?).filter(|status| status.diverged.is_some()))
        })
        .await
        .unwrap();
        assert!(status.alarms.iter().any(|alarm| alarm.contains("differs")), "{:?}", status.alarms);
        let log = std::fs::read_to_string(guardian.process.log()).unwrap();
        assert!(log.contains("ERROR") && log.contains("differs"));
        // It takes nothing in, and still answers what it knows.
        let post = reqwest::Client::new().post(format!("{}/v1/transactions", guardian.url));
        let transaction = serde_json::json!({ "inputs": [], "outputs": [], "witness": [] });
        let answer = post.json(&transaction).send().await.unwrap();
        assert_eq!(answer.status(), 503, "{again}");
        assert!(answer.text().await.unwrap().contains("\"diverged\""));
        // Nor does it sign.
        let shares = format!("{}/v1/modules/mint/shares?txid={}", guardian.url, "00".repeat(32));
        let answer = reqwest::get(shares).await.unwrap();
        assert_eq!(answer.status(), 503, "{again}");
        guardian.get::<federation_core::rest::AuditResponse>("/v1/audit").await.unwrap();
        // The others do without it, and it keeps up.
        send(&bob, &alice, "500sat").await.unwrap();
        let last = federation.settled().await.unwrap() - 1;
        assert_ne!(
            header(&federation.guardians[3], last).await.hash,
            header(&federation.guardians[0], last).await.hash
        );
        let me = guardian.status().await.unwrap().peer;
        assert!(!header(&federation.guardians[0], last).await.signatures.contains_key(&me));
        held(&federation, wallets).await;
        federation.guardians[3].process.stop().await.unwrap();
    }
}

//! The main job on Core Lightning, with the plugin in four nodes.

#![allow(clippy::unwrap_used, reason = "a test")]

use federation_tests::lightningd::require;
use federation_tests::setting::main_job;
use federation_tests::{Lightningd, LightningdWorld};
use serde_json::{Value, json};

#[tokio::test]
async fn main_job_on_lightningd() {
    if require().is_none() {
        return;
    }
    let start = std::time::Instant::now();
    let mut told = |line: &str| println!("{:5.1} s  {line}", start.elapsed().as_secs_f32());
    let world = LightningdWorld::start("lightningd").await.unwrap();
    told("four guardians, a gateway and a payee are up");
    main_job(&world, &mut told).await.unwrap();

    // What the nodes themselves say.
    let paid = with_status(world.gateway(), "listpays", "pays", "complete").await;
    let received = with_status(world.payee(), "listinvoices", "invoices", "paid").await;
    let ([paid], [received]) = (paid.as_slice(), received.as_slice()) else {
        unreachable!("one payment was made: {paid:?} {received:?}")
    };
    assert_eq!(paid.get("payment_hash").unwrap(), received.get("payment_hash").unwrap());
    assert_eq!(paid.get("preimage").unwrap(), received.get("payment_preimage").unwrap());
    assert_eq!(received.get("amount_received_msat").unwrap(), 50_000_000);
}

/// The entries of a list that have a status.
async fn with_status(node: &Lightningd, command: &str, list: &str, status: &str) -> Vec<Value> {
    let answer = node.call(command, json!({})).await.unwrap();
    let entries = answer.get(list).unwrap().as_array().unwrap();
    entries.iter().filter(|entry| entry.get("status").unwrap() == status).cloned().collect()
}

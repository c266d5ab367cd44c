//! The whole main job with Lightning on the embedded node, and what goes wrong in payments.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use federation_tests::embedded_world::EmbeddedWorld;
use federation_tests::scenario::{conserved, deposit};
use federation_tests::setting::{Setting as _, main_job};
use federation_tests::{Ecash, Sandbox};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn main_job_with_lightning() {
    let world = EmbeddedWorld::start(Sandbox::new("lightning").unwrap(), 4).await.unwrap();
    main_job(&world, &mut |step| println!("{step}")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn main_job_with_lightning_and_one_guardian_stopped_throughout() {
    let world = EmbeddedWorld::start(Sandbox::new("stopped").unwrap(), 4).await.unwrap();
    world.federation.guardians[2].process.kill();
    main_job(&world, &mut |step| println!("{step}")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_payments_cost_nothing() {
    let world = EmbeddedWorld::start(Sandbox::new("refused").unwrap(), 4).await.unwrap();
    let alice = Ecash::join(&world.sandbox, "alice", world.invite()).await.unwrap();
    deposit(&world.bitcoind, &alice, 200_000).await.unwrap();
    let before = alice.balance().await.unwrap();

    let invoice = world.payee_invoice(10_000_000).await.unwrap();
    alice.run(&["pay", &invoice]).await.unwrap();
    let after = alice.balance().await.unwrap();
    let again = alice.refused(&["pay", &invoice]).await.unwrap();
    println!("paid already: {again}");

    // More than the channel can carry: the gateway gives up, and the money comes back at once.
    let large = world.payee_invoice(150_000_000).await.unwrap();
    world.payee().stop().await;
    let failed = alice.refused(&["pay", &large]).await.unwrap();
    println!("payee is gone: {failed}");

    let mainnet = "lnbc20u1p3y0x3hpp5743k2g0fsqqxj7n8qzuhns5gmkk4djeejk3wkp64ppevgekvc0jsdqcve5kzar2v9nr5gpqd4hkuetesp5ez2g297jduwc20t6lmqlsg3man0vf2jfd8ar9fh8fhn2g8yttfkqxqy9gcqcqzys9qrsgqrzjqtx3k77yrrav9hye7zar2rtqlfkytl094dsp0ms5majzth6gt7ca6uhdkxl983uywgqqqqlgqqqvx5qqjqrzjqd98kxkpyw0l9tyy8r8q57k7zpy9zjmh6sez752wj6gcumqnj3yxzhdsmg6qq56utgqqqqqqqqqqqeqqjq7jd56882gtxhrjm03c93aacyfy306m4fq0tskf83c0nmet8zc2lxyyg3saz8x6vwcp26xnrlagf9semau3qm2glysp7sv95693fphvsp54l567";
    for (what, args) in [
        ("another network", vec!["pay", mainnet]),
        ("no invoice", vec!["pay", "lnbcrt1nonsense"]),
        ("nothing", vec!["send", "0"]),
        ("too much", vec!["send", "100000000"]),
        ("no e-cash", vec!["receive", "clnecash1nonsense"]),
        ("another network", vec!["withdraw", "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", "10000"]),
        ("dust", vec!["withdraw", "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202", "1"]),
    ] {
        let refusal = alice.refused(&args).await.unwrap();
        println!("{what}: {refusal}");
        assert!(!refusal.code.is_empty() && !refusal.message.is_empty(), "{what}: {refusal:?}");
    }

    // A gateway that is down.
    world.gateway.process.kill();
    let down = alice.refused(&["pay", &large]).await.unwrap();
    println!("gateway is down: {down}");
    assert_eq!(alice.balance().await.unwrap(), after);
    assert!(before - after >= 10_000_000);
    world.gateway.process.kill();
    let audit = world.audit().await.unwrap();
    let gateway = -audit.modules["mint"][0].amount_msat - i64::try_from(after).unwrap();
    assert!(gateway >= 10_000_000, "the gateway was paid with notes: {gateway}");
    conserved(&audit, &[after, u64::try_from(gateway).unwrap()]).unwrap();
}

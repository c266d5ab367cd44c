//! Wallets that are lost: restored from their twelve words, put back from an old copy; after payments with crashes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::time::{Duration, Instant};

use federation_tests::chaos::world::copy;
use federation_tests::ecash::{Refusal, number, text};
use federation_tests::embedded_world::EmbeddedWorld;
use federation_tests::scenario::{conserved, deposit, send};
use federation_tests::setting::Setting as _;
use federation_tests::{Bitcoind, Ecash, Federation, Sandbox, wait_for};
use gateway::node::{HoldInvoiceRequest, LightningNode as _};
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// How many payments: some by default, 200 with `contrib/test --long`.
fn payments() -> usize {
    std::env::var("PAYMENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(40)
}

/// Runs a command, and kills it at a random moment now and then. `None`: killed.
async fn shaky(
    wallet: &Ecash,
    args: &[&str],
    input: &str,
    rng: &mut rand::rngs::StdRng,
) -> Option<anyhow::Result<Value>> {
    let moment = Duration::from_millis(rng.gen_range(5..600));
    if rng.gen_bool(0.6) {
        return Some(wallet.run_with(args, input).await);
    }
    tokio::time::timeout(moment, wallet.run_with(args, input)).await.ok()
}

/// Waits until nothing of a wallet is under way.
async fn settled(wallet: &Ecash) -> u64 {
    wait_for("nothing is under way", SOON, || async {
        let balance = wallet.run(&["balance"]).await?;
        let history = wallet.run(&["history", "--limit", "1000"]).await?;
        let open = history["operations"].as_array().unwrap().iter().any(|entry| entry["open"] == true);
        let done = !open && number(&balance, "pending_msat")? == 0;
        Ok(done.then_some(number(&balance, "balance_msat")?))
    })
    .await
    .unwrap()
}

/// Takes back all strings that nobody has received: those whose sender was killed among them.
async fn take_back(wallet: &Ecash) {
    settled(wallet).await;
    let history = wallet.run(&["history", "--limit", "1000"]).await.unwrap();
    for entry in history["operations"].as_array().unwrap() {
        if entry["kind"] != "send" || entry["status"] == "failed" {
            continue;
        }
        let result = wallet.run(&["reclaim", entry["id"].as_str().unwrap()]).await;
        if let Err(error) = result {
            let refusal = error.downcast::<Refusal>().unwrap();
            assert_eq!(refusal.code, "ecash_claimed", "{refusal}");
        }
    }
}

/// Pays to a fresh address of a wallet, and mines until it is final.
async fn pay_in(bitcoind: &Bitcoind, wallet: &Ecash, sat: u64) {
    let address = text(&wallet.run(&["deposit"]).await.unwrap(), "address").unwrap();
    let address = address.parse::<bitcoin::Address<_>>().unwrap().assume_checked();
    bitcoind.send(&address, sat).await.unwrap();
    bitcoind.mine(2).await.unwrap();
}

/// A new wallet from the words of another one, which are handed over in a file.
async fn restore(sandbox: &Sandbox, of: &Ecash, name: &str, invite: &str) -> (Ecash, Value) {
    let words = text(&of.run(&["words"]).await.unwrap(), "words").unwrap();
    let wallet = Ecash::unborn(sandbox, name).unwrap();
    let file = sandbox.path().join(format!("words-{name}"));
    std::fs::write(&file, words).unwrap();
    let result = wallet.run(&["restore", invite, "--words-file", file.to_str().unwrap()]).await.unwrap();
    (wallet, result)
}

#[tokio::test]
async fn two_users_lose_their_wallets_after_payments_with_crashes() {
    let seed = rand::random::<u64>();
    println!("seed {seed}, {} payments", payments());
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let sandbox = Sandbox::new("words").unwrap();
    let bitcoind = Bitcoind::start(&sandbox).await.unwrap();
    let mut federation = Federation::start(&sandbox, &bitcoind, 4).await.unwrap();
    let alice = Ecash::join(&sandbox, "alice", &federation.invite).await.unwrap();
    let bob = Ecash::join(&sandbox, "bob", &federation.invite).await.unwrap();
    deposit(&bitcoind, &alice, 60_000).await.unwrap();
    deposit(&bitcoind, &bob, 40_000).await.unwrap();

    let (mut done, mut killed) = (0, 0);
    for payment in 0..payments() {
        if payment == payments() / 2 {
            // One guardian is away for the second half.
            federation.guardians[3].process.kill();
        }
        let (from, to) = if rng.gen_bool(0.5) { (&alice, &bob) } else { (&bob, &alice) };
        let amount = format!("{}msat", rng.gen_range(1..5_000_000u64));
        let sent = match shaky(from, &["send", &amount], "", &mut rng).await {
            None => {
                killed += 1;
                continue;
            }
            // Too much of its money is in strings of killed commands.
            Some(Err(error)) => {
                let refusal = error.downcast::<Refusal>().unwrap();
                assert_eq!(refusal.code, "insufficient_funds", "{refusal}");
                continue;
            }
            Some(Ok(sent)) => text(&sent, "ecash").unwrap(),
        };
        loop {
            match shaky(to, &["receive", "-"], &sent, &mut rng).await {
                None => killed += 1,
                Some(Ok(_)) => break,
                Some(Err(error)) => {
                    // Before it was killed it had begun, and opening the wallet finished it.
                    let refusal = error.downcast::<Refusal>().unwrap();
                    assert_eq!(refusal.code, "ecash_received", "{refusal}");
                    break;
                }
            }
        }
        done += 1;
    }
    take_back(&alice).await;
    take_back(&bob).await;
    let held = [settled(&alice).await, settled(&bob).await];
    println!("{done} payments went through, {killed} commands were killed: {held:?} msat");
    assert_eq!(held.iter().sum::<u64>(), 100_000_000);
    conserved(&federation.audit().await.unwrap(), &held).unwrap();

    // From the words alone, one of them with a string that nobody has received; with a guardian down.
    let unclaimed = text(&alice.run(&["send", "1000sat"]).await.unwrap(), "ecash").unwrap();
    let left = settled(&alice).await;
    assert_eq!(left + 1_000_000, held[0]);
    let start = Instant::now();
    let (alice2, restored) = restore(&sandbox, &alice, "alice-2", &federation.invite).await;
    println!("restored in {:.1} s: {restored}", start.elapsed().as_secs_f32());
    let (bob2, _) = restore(&sandbox, &bob, "bob-2", &federation.invite).await;
    // What is in the string is set aside again, if its backup was taken: so many commands are more than guardians take at once.
    let aside = number(&restored, "sent_msat").unwrap();
    assert!(aside == 1_000_000 || aside == 0, "{aside}");
    assert_eq!(number(&restored, "balance_msat").unwrap() + aside, held[0]);
    assert_eq!([alice2.balance().await.unwrap() + aside, bob2.balance().await.unwrap()], held);
    conserved(&federation.audit().await.unwrap(), &held).unwrap();
    federation.guardians[3].process.restart().unwrap();
    federation.guardians[3].ready().await.unwrap();

    // The string is still good, for whoever is first; then a restore leaves it out.
    bob2.run_with(&["receive", "-"], &unclaimed).await.unwrap();
    let (alice3, _) = restore(&sandbox, &alice, "alice-3", &federation.invite).await;
    let after = [settled(&alice3).await, settled(&bob2).await];
    assert_eq!(after, [held[0] - 1_000_000, held[1] + 1_000_000]);
    // They are wallets like any others.
    send(&alice3, &bob2, "2000sat").await.unwrap();
    let after = [settled(&alice3).await, settled(&bob2).await];
    assert_eq!(after, [held[0] - 3_000_000, held[1] + 3_000_000]);
    conserved(&federation.audit().await.unwrap(), &after).unwrap();

    // A wallet that is there is not restored over.
    let again = alice2.refused(&["restore", &federation.invite, "--words-file", "/dev/null"]).await.unwrap();
    assert_eq!(again.code, "words");
    let words = sandbox.path().join("words-alice-2");
    let again =
        alice2.refused(&["restore", &federation.invite, "--words-file", words.to_str().unwrap()]).await;
    assert_eq!(again.unwrap().code, "wallet_exists");
}

#[tokio::test]
async fn a_restore_is_killed_and_a_wallet_is_put_back_from_a_copy() {
    let sandbox = Sandbox::new("copy").unwrap();
    let bitcoind = Bitcoind::start(&sandbox).await.unwrap();
    let federation = Federation::start(&sandbox, &bitcoind, 4).await.unwrap();
    let alice = Ecash::join(&sandbox, "alice", &federation.invite).await.unwrap();
    let bob = Ecash::join(&sandbox, "bob", &federation.invite).await.unwrap();
    deposit(&bitcoind, &alice, 50_000).await.unwrap();

    // An old copy of the folder knows nothing of what came later, and would use its numbers again.
    let backup = sandbox.path().join("backup");
    copy(alice.folder(), &backup).await.unwrap();
    send(&alice, &bob, "20000sat").await.unwrap();
    send(&bob, &alice, "5000sat").await.unwrap();
    assert_eq!(settled(&alice).await, 35_000_000);
    std::fs::remove_dir_all(alice.folder()).unwrap();
    copy(&backup, alice.folder()).await.unwrap();
    assert_eq!(settled(&alice).await, 50_000_000);
    let bobs = settled(&bob).await;
    assert_eq!(bobs, 15_000_000);
    pay_in(&bitcoind, &alice, 6000).await;
    // Its used numbers are skipped, so that the deposit is credited; and what came later is taken in. (What was spent
    // later it still counts, until it tries to spend it.)
    wait_for("the old copy has found what it did not know", SOON, || async {
        Ok((alice.balance().await? > 56_000_000).then_some(()))
    })
    .await
    .unwrap();
    settled(&alice).await;

    // A deposit that arrives while there is no wallet.
    pay_in(&bitcoind, &alice, 7000).await;

    // Killed at several moments, then finished.
    let words = text(&alice.run(&["words"]).await.unwrap(), "words").unwrap();
    std::fs::remove_dir_all(alice.folder()).unwrap();
    let args = ["restore", &federation.invite];
    let mut killed = 0;
    for moment in [150, 300, 500, 700, 900, 60_000] {
        let restoring = alice.run_with(&args, &words);
        match tokio::time::timeout(Duration::from_millis(moment), restoring).await {
            Err(_) => killed += 1,
            Ok(Ok(_)) => break,
            Ok(Err(error)) => {
                // It was killed after its last commit.
                assert_eq!(error.downcast::<Refusal>().unwrap().code, "wallet_exists");
                break;
            }
        }
    }
    println!("the restore was killed {killed} times");
    assert!(killed > 0);
    let expected = 50_000_000 + 6_000_000 + 7_000_000 - bobs;
    wait_for("the deposit is claimed", SOON, || async {
        Ok((alice.balance().await? == expected).then_some(()))
    })
    .await
    .unwrap();
    conserved(&federation.audit().await.unwrap(), &[expected, bobs]).unwrap();
}

/// Begins to pay, and is killed when the payee holds the payment.
async fn pay_and_die(world: &EmbeddedWorld, wallet: &Ecash, msat: u64) -> ([u8; 32], [u8; 32]) {
    use bitcoin::hashes::{Hash as _, sha256};
    let preimage = rand::random::<[u8; 32]>();
    let payment_hash = sha256::Hash::hash(&preimage).to_byte_array();
    let request = HoldInvoiceRequest {
        payment_hash,
        amount_msat: msat,
        description: "held".to_owned(),
        expiry: Duration::from_secs(3600),
    };
    let invoice = world.payee().hold_invoice(request).await.unwrap().to_string();
    let args = ["pay", invoice.as_str(), "--memo", "for shoes"];
    let held = wait_for("the payee holds the payment", SOON, || async {
        let held = world.payee().held_payments().await?;
        Ok(held.iter().any(|held| held.payment_hash == payment_hash).then_some(()))
    });
    tokio::select! {
        result = wallet.run(&args) => panic!("{result:?}"),
        held = held => held.unwrap(),
    }
    (payment_hash, preimage)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payments_that_were_under_way_when_the_wallet_was_lost_are_paid_or_come_back() {
    let world = EmbeddedWorld::start(Sandbox::new("lost").unwrap(), 4).await.unwrap();
    let alice = Ecash::join(&world.sandbox, "alice", world.invite()).await.unwrap();
    deposit(&world.bitcoind, &alice, 200_000).await.unwrap();
    let words = text(&alice.run(&["words"]).await.unwrap(), "words").unwrap();

    let (paid, preimage) = pay_and_die(&world, &alice, 10_000_000).await;
    let (cancelled, _) = pay_and_die(&world, &alice, 20_000_000).await;
    std::fs::remove_dir_all(alice.folder()).unwrap();
    let restored = alice.run_with(&["restore", world.invite()], &words).await.unwrap();
    println!("restored: {restored}");
    let history = alice.run(&["history"]).await.unwrap();
    let entries = history["operations"].as_array().unwrap();
    let open = entries.iter().filter(|entry| entry["kind"] == "pay" && entry["open"] == true);
    assert_eq!(open.count(), 2, "{history}");

    world.payee().settle(paid, preimage).await.unwrap();
    world.payee().cancel(cancelled).await.unwrap();
    let balance = settled(&alice).await;
    let history = alice.run(&["history"]).await.unwrap();
    println!("{balance} msat after {history}");
    let of = |status: &str| {
        let entries = history["operations"].as_array().unwrap().iter();
        entries.filter(|entry| entry["status"] == status).cloned().collect::<Vec<_>>()
    };
    assert_eq!(of("paid").len(), 1);
    assert!(of("paid")[0]["detail"].as_str().unwrap().contains(&hex::encode(preimage)));
    assert_eq!(of("paid")[0]["memo"], "for shoes");
    assert_eq!(of("refunded").len(), 1);
    // One was paid, with the gateway's fee, and the other one is back but for the federation's.
    assert!((189_000_000..=190_000_000).contains(&balance), "{balance}");
    let gateway = world.gateway_msat().await.unwrap();
    conserved(&world.audit().await.unwrap(), &[balance, gateway]).unwrap();
    let info = alice.run(&["info"]).await.unwrap();
    assert_eq!(info["backup"]["behind"], false, "{info}");
    assert!(info["backup"]["kept_by"].as_u64().unwrap() >= 3, "{info}");
}

#[tokio::test]
async fn a_withdrawal_under_way_when_the_wallet_is_lost_is_paid_once_or_comes_back() {
    let sandbox = Sandbox::new("withdrawal").unwrap();
    let bitcoind = Bitcoind::start(&sandbox).await.unwrap();
    let federation = Federation::start(&sandbox, &bitcoind, 4).await.unwrap();
    let alice = Ecash::join(&sandbox, "alice", &federation.invite).await.unwrap();
    deposit(&bitcoind, &alice, 60_000).await.unwrap();
    let words = text(&alice.run(&["words"]).await.unwrap(), "words").unwrap();
    let (mut expected, mut ends) = (60_000_000, Vec::new());
    // The last one is over long before.
    for moment in [120, 180, 240, 320, 500, 900, 30_000] {
        let address = bitcoind.address().await.unwrap();
        let to = address.to_string();
        let args = ["withdraw", to.as_str(), "5000"];
        let _ = tokio::time::timeout(Duration::from_millis(moment), alice.run(&args)).await;
        std::fs::remove_dir_all(alice.folder()).unwrap();
        alice.run_with(&["restore", &federation.invite], &words).await.unwrap();
        let balance = settled(&alice).await;
        let history = alice.run(&["history"]).await.unwrap();
        let newest = history["operations"].as_array().unwrap().first().cloned().unwrap_or_default();
        let known = newest["kind"] == "withdraw" && !ends.iter().any(|(id, _)| *id == newest["id"]);
        // Paid, or all is back: what balance and history say is what the chain says.
        let paid = balance < expected;
        let arrived = wait_for("blocks", SOON, || async {
            bitcoind.mine(2).await?;
            let received = bitcoind.received(&address).await?;
            Ok((received > 0 || !paid).then_some(received))
        });
        assert_eq!(arrived.await.unwrap(), if paid { 5000 } else { 0 }, "{moment} {history}");
        assert!(!paid || balance < expected - 5_000_000, "{moment} {balance}");
        if known {
            let status = if paid { "sent" } else { "failed" };
            assert_eq!(newest["status"], status, "{moment} {history}");
            ends.push((newest["id"].clone(), status));
        }
        conserved(&federation.audit().await.unwrap(), &[balance]).unwrap();
        expected = balance;
    }
    println!("{ends:?}");
    assert!(!ends.is_empty(), "each was killed before it was backed up");
}

//! The LDK backend on a real regtest chain.
#![cfg(feature = "ldk")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "ldk_support/mod.rs"]
mod support;

use std::time::Duration;

use bitcoin::hashes::{Hash as _, sha256};
use gateway::ldk::{LdkError, LdkNode};
use gateway::node::{
    HOLD_MIN_FINAL_CLTV, HoldInvoiceRequest, LightningNode as _, NodeError, OnchainSendRequest, PaymentStatus,
};
use lightning_invoice::Bolt11Invoice;
use serde_json::json;
use support::{Chain, TestNode, eventually, open, pay_request};

const RETRY: Duration = Duration::from_secs(20);

fn hash_of(preimage: [u8; 32]) -> [u8; 32] {
    sha256::Hash::hash(&preimage).to_byte_array()
}

fn payment_hash(invoice: &Bolt11Invoice) -> [u8; 32] {
    *invoice.payment_hash().as_byte_array()
}

fn hold(preimage: [u8; 32], amount_msat: u64) -> HoldInvoiceRequest {
    HoldInvoiceRequest {
        payment_hash: hash_of(preimage),
        amount_msat,
        description: "held".to_owned(),
        expiry: Duration::from_secs(3600),
    }
}

/// Waits until one payment is held, and nothing else.
async fn wait_held(node: &TestNode, hash: [u8; 32]) {
    let held = eventually("the payment is held", async || {
        let held = node.held_payments().await.unwrap();
        (!held.is_empty()).then_some(held)
    })
    .await;
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].payment_hash, hash);
}

#[tokio::test(flavor = "multi_thread")]
async fn pays_both_ways_over_announced_and_unannounced_channels() {
    let chain = Chain::start().await;
    let alice = chain.node("alice").await;
    let bob = chain.node("bob").await;
    chain.fund(&[&alice, &bob]).await;
    for announced in [true, false] {
        open(&chain, &alice, &bob, 300_000_000, announced).await;
    }
    let channels = alice.list_channels();
    assert_eq!(channels.iter().filter(|channel| channel.announced).count(), 1);

    for (payer, payee) in [(&alice, &bob), (&bob, &alice)] {
        let invoice = payee.invoice(50_000_123, "both ways").unwrap();
        let hash = payment_hash(&invoice);
        assert_eq!(payer.payment(hash).await.unwrap(), PaymentStatus::Unknown);
        let status = payer.pay(pay_request(&invoice, RETRY)).await.unwrap();
        let PaymentStatus::Succeeded { preimage, fee_msat: 0 } = status else { panic!("{status:?}") };
        assert_eq!(hash_of(preimage), hash);
        assert_eq!(payee.wait_received(hash).await.unwrap(), 50_000_123);
        // Again: the same result, and no second payment.
        let again = payer.pay(pay_request(&invoice, RETRY)).await.unwrap();
        assert_eq!(again, status);
        assert_eq!(payer.payment(hash).await.unwrap(), status);
    }
    let info = alice.info().await.unwrap();
    assert_eq!(info.route_hints.len(), 1, "one for the unannounced channel");
    assert_eq!(info.block_height, chain.height().await);
    let balances = alice.balances().await.unwrap();
    assert!(balances.outbound_msat > 1_000_000_000 && balances.inbound_msat > 400_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_invoice_is_settled_or_cancelled() {
    let chain = Chain::start().await;
    let alice = chain.node("alice").await;
    let bob = chain.node("bob").await;
    chain.fund(&[&alice]).await;
    open(&chain, &alice, &bob, 0, false).await;

    let preimage = [7; 32];
    let hash = hash_of(preimage);
    let invoice = bob.hold_invoice(hold(preimage, 1_000_000)).await.unwrap();
    assert_eq!(invoice.min_final_cltv_expiry_delta(), u64::from(HOLD_MIN_FINAL_CLTV));
    assert_eq!(bob.hold_invoice(hold(preimage, 1_000_000)).await.unwrap(), invoice);
    let other = bob.hold_invoice(hold(preimage, 2_000_000)).await;
    assert!(matches!(other, Err(NodeError::Refused(_))));

    let seen = bob.held_changed(0).await;
    let (paid, ()) = tokio::join!(alice.pay(pay_request(&invoice, RETRY)), async {
        bob.held_changed(seen).await;
        let held = bob.held_payments().await.unwrap();
        assert_eq!((held.len(), held[0].payment_hash, held[0].amount_msat), (1, hash, 1_000_000));
        let left = held[0].claim_deadline_height - chain.height().await;
        // More than 120 minus LDK's margin if the payer hides the payee's delay (BOLT 7, shadow route).
        assert!(left >= 60, "{left} blocks left");
        assert_eq!(alice.payment(hash).await.unwrap(), PaymentStatus::Pending);
        let wrong = bob.settle(hash, [8; 32]).await;
        assert!(matches!(wrong, Err(NodeError::WrongPreimage(_))));
        bob.settle(hash, preimage).await.unwrap();
        bob.settle(hash, preimage).await.unwrap();
    });
    assert_eq!(paid.unwrap(), PaymentStatus::Succeeded { preimage, fee_msat: 0 });
    assert_eq!(bob.held_payments().await.unwrap(), []);
    assert!(matches!(bob.cancel(hash).await, Err(NodeError::AlreadySettled(_))));

    let preimage = [9; 32];
    let hash = hash_of(preimage);
    let invoice = bob.hold_invoice(hold(preimage, 1_000_000)).await.unwrap();
    let (paid, ()) = tokio::join!(alice.pay(pay_request(&invoice, RETRY)), async {
        wait_held(&bob, hash).await;
        bob.cancel(hash).await.unwrap();
        bob.cancel(hash).await.unwrap();
    });
    assert!(matches!(paid.unwrap(), PaymentStatus::Failed { .. }));
    assert!(matches!(bob.settle(hash, preimage).await, Err(NodeError::NotHeld(_))));

    // Cancelled before it is paid: what arrives fails back.
    let preimage = [10; 32];
    let invoice = bob.hold_invoice(hold(preimage, 1_000_000)).await.unwrap();
    bob.cancel(hash_of(preimage)).await.unwrap();
    let paid = alice.pay(pay_request(&invoice, RETRY)).await.unwrap();
    assert!(matches!(paid, PaymentStatus::Failed { .. }), "{paid:?}");
    bob.cancel([1; 32]).await.unwrap();
    assert!(matches!(bob.settle(hash_of([5; 32]), [5; 32]).await, Err(NodeError::NotHeld(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_held_as_one_and_expire_without_harm() {
    let chain = Chain::start().await;
    let alice = chain.node("alice").await;
    let bob = chain.node("bob").await;
    chain.fund(&[&alice]).await;
    for _ in 0..2 {
        open(&chain, &alice, &bob, 0, false).await;
    }
    // Neither channel can pay it alone.
    let amount = 1_500_000_000;
    let preimage = [7; 32];
    let invoice = bob.hold_invoice(hold(preimage, amount)).await.unwrap();
    let (paid, ()) = tokio::join!(alice.pay(pay_request(&invoice, RETRY)), async {
        wait_held(&bob, hash_of(preimage)).await;
        assert_eq!(bob.held_payments().await.unwrap()[0].amount_msat, amount);
        bob.settle(hash_of(preimage), preimage).await.unwrap();
    });
    assert_eq!(paid.unwrap(), PaymentStatus::Succeeded { preimage, fee_msat: 0 });

    let preimage = [8; 32];
    let hash = hash_of(preimage);
    let invoice = bob.hold_invoice(hold(preimage, 1_000_000)).await.unwrap();
    let shared = alice.shared();
    let paying = tokio::spawn(async move { shared.pay(pay_request(&invoice, RETRY)).await });
    wait_held(&bob, hash).await;
    let last = bob.held_payments().await.unwrap()[0].claim_deadline_height;
    let blocks = last - chain.height().await;
    chain.mine_and_sync(blocks, &[&alice, &bob]).await;
    assert_eq!(bob.held_payments().await.unwrap().len(), 1, "the last block");
    chain.mine_and_sync(1, &[&alice, &bob]).await;
    assert_eq!(bob.held_payments().await.unwrap(), []);
    assert!(matches!(bob.settle(hash, preimage).await, Err(NodeError::NotHeld(_))));
    assert!(matches!(paying.await.unwrap().unwrap(), PaymentStatus::Failed { .. }));
    alice.usable(2).await;
    bob.usable(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn follows_a_reorganisation() {
    let chain = Chain::start().await;
    let alice = chain.node("alice").await;
    chain.fund(&[&alice]).await;
    let address = alice.onchain_address().await.unwrap();
    let before = alice.balances().await.unwrap().onchain_sat;
    let sent = OnchainSendRequest {
        address: address.into_unchecked(),
        amount_sat: 100_000,
        fee_rate_sat_per_kwu: Some(1000),
    };
    alice.onchain_send(sent).await.unwrap();
    chain.mine_and_sync(1, &[&alice]).await;
    let after = alice.balances().await.unwrap().onchain_sat;
    assert!(after < before && after + 1000 > before, "only the fee is gone");

    let tip = chain.call("getbestblockhash", json!([])).await;
    chain.call("invalidateblock", json!([tip])).await;
    // To another address: the same block again would be invalid again.
    let address = alice.onchain_address().await.unwrap();
    chain.call("generatetoaddress", json!([3, address.to_string()])).await;
    chain.synced(&alice).await;
    assert_eq!(alice.balances().await.unwrap().onchain_sat, after);
    let alice = alice.restart().await;
    assert_eq!(alice.info().await.unwrap().block_height, chain.height().await);
    assert_eq!(alice.balances().await.unwrap().onchain_sat, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn held_payments_survive_crashes_of_either_side() {
    let chain = Chain::start().await;
    let mut alice = chain.node("alice").await;
    let mut bob = chain.node("bob").await;
    chain.fund(&[&alice]).await;
    open(&chain, &alice, &bob, 0, false).await;

    let preimage = [7; 32];
    let hash = hash_of(preimage);
    let invoice = bob.hold_invoice(hold(preimage, 1_000_000)).await.unwrap();
    let request = pay_request(&invoice, Duration::from_millis(1));
    let waiting = tokio::spawn({
        let request = request.clone();
        let alice = alice.shared();
        async move { alice.pay(request).await }
    });
    wait_held(&bob, hash).await;
    assert_eq!(waiting.await.unwrap().unwrap(), PaymentStatus::Pending, "the wait is over");

    bob = bob.crash().await;
    wait_held(&bob, hash).await;
    alice = alice.crash().await;
    assert_eq!(alice.payment(hash).await.unwrap(), PaymentStatus::Pending);
    bob = bob.restart().await;
    wait_held(&bob, hash).await;
    // Settled without the peer, and crashed at once: the claim is not lost.
    bob.settle(hash, preimage).await.unwrap();
    bob = bob.crash().await;
    assert_eq!(bob.held_payments().await.unwrap(), []);
    bob.settle(hash, preimage).await.unwrap();

    let paid =
        eventually("the payer has the preimage", async || match alice.pay(request.clone()).await.unwrap() {
            PaymentStatus::Pending => None,
            known => Some(known),
        })
        .await;
    assert_eq!(paid, PaymentStatus::Succeeded { preimage, fee_msat: 0 });
    alice = alice.crash().await;
    assert_eq!(alice.payment(hash).await.unwrap(), paid, "kept");
    alice.usable(1).await;
    bob.usable(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_moment_closes_no_channel_and_loses_no_payment() {
    let chain = Chain::start().await;
    let mut alice = chain.node("alice").await;
    let mut bob = chain.node("bob").await;
    chain.fund(&[&alice]).await;
    open(&chain, &alice, &bob, 400_000_000, false).await;

    let mut received = 0;
    for round in 0..24_u64 {
        let amount = 1_000_000 + round;
        let invoice = bob.invoice(amount, "crash").unwrap();
        let hash = payment_hash(&invoice);
        let payer = alice.shared();
        let request = pay_request(&invoice, RETRY);
        let paying = tokio::spawn(async move { payer.pay(request).await });
        // The moment moves through the payment, which takes some 100 ms.
        tokio::time::sleep(Duration::from_millis(round * 5)).await;
        match round % 3 {
            0 => alice = alice.crash().await,
            1 => bob = bob.crash().await,
            _ => {
                let (a, b) = tokio::join!(alice.crash(), bob.crash());
                (alice, bob) = (a, b);
            }
        }
        drop(paying);
        alice.usable(1).await;
        bob.usable(1).await;
        let status =
            eventually("the payment has a result", async || match alice.payment(hash).await.unwrap() {
                PaymentStatus::Pending => None,
                known => Some(known),
            })
            .await;
        match status {
            PaymentStatus::Succeeded { .. } => {
                assert_eq!(bob.wait_received(hash).await.unwrap(), amount);
                received += amount;
            }
            PaymentStatus::Failed { .. } | PaymentStatus::Unknown => {
                assert_eq!(bob.received(hash).unwrap(), None, "round {round}: {status:?}");
            }
            PaymentStatus::Pending => unreachable!(),
        }
    }
    assert!(received > 0, "some went through");
    for node in [&alice, &bob] {
        assert_eq!(node.list_channels().len(), 1, "no channel was closed");
    }
    let owned = eventually("all HTLCs are gone", async || {
        let owned = bob.list_channels()[0].outbound_msat;
        (owned % 1_000 == (400_000_000 + received) % 1_000).then_some(owned)
    })
    .await;
    // bob's outbound is what he owns without the channel reserve (1 %).
    assert_eq!(owned, 400_000_000 + received - 10_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_paid_fails_for_good() {
    let chain = Chain::start().await;
    let alice = chain.node("alice").await;
    let bob = chain.node("bob").await;
    let carol = chain.node("carol").await;
    chain.fund(&[&alice]).await;
    open(&chain, &alice, &bob, 0, false).await;

    let no_route = carol.invoice(1_000, "no channel").unwrap();
    let failed = alice.pay(pay_request(&no_route, RETRY)).await.unwrap();
    assert!(matches!(&failed, PaymentStatus::Failed { reason } if reason.contains("route")));
    assert_eq!(alice.pay(pay_request(&no_route, RETRY)).await.unwrap(), failed);

    let too_large = bob.invoice(2_000_000_000, "more than the channel").unwrap();
    let failed = alice.pay(pay_request(&too_large, RETRY)).await.unwrap();
    assert!(matches!(failed, PaymentStatus::Failed { .. }));

    let nothing_there = bob.invoice(1_000_000, "the wrong way").unwrap();
    let mut request = pay_request(&nothing_there, RETRY);
    request.amount_msat = 5;
    assert!(matches!(alice.pay(request).await, Err(NodeError::Refused(_))));
    let unknown = alice.payment(payment_hash(&nothing_there)).await.unwrap();
    assert_eq!(unknown, PaymentStatus::Unknown, "never started");

    // A payee that holds on for ever: pending, never failed on a guess.
    let invoice = bob.hold_invoice(hold([3; 32], 1_000_000)).await.unwrap();
    let pending = alice.pay(pay_request(&invoice, Duration::from_millis(1))).await.unwrap();
    assert_eq!(pending, PaymentStatus::Pending);
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_channels_come_home() {
    let chain = Chain::start().await;
    let alice = chain.node("alice").await;
    let mut bob = chain.node("bob").await;
    chain.fund(&[&alice]).await;
    let before = alice.balances().await.unwrap().onchain_sat;
    open(&chain, &alice, &bob, 300_000_000, false).await;
    assert!(alice.balances().await.unwrap().onchain_sat < before - 1_000_000);

    let id = alice.list_channels()[0].channel_id.clone();
    alice.close_channel(&id, false).await.unwrap();
    eventually("the channel is closed", async || {
        (alice.list_channels().is_empty() && bob.list_channels().is_empty()).then_some(())
    })
    .await;
    // The closing transaction, some blocks, the sweeps.
    home(&chain, &alice, &bob, before - 310_000, 295_000).await;
    bob = bob.restart().await;
    assert!(bob.balances().await.unwrap().onchain_sat > 290_000);

    open(&chain, &alice, &bob, 300_000_000, false).await;
    let id = bob.list_channels()[0].channel_id.clone();
    bob.close_channel(&id, true).await.unwrap();
    home(&chain, &alice, &bob, before - 640_000, 585_000).await;

    let address = alice.onchain_address().await.unwrap();
    let sent = OnchainSendRequest {
        address: address.into_unchecked(),
        amount_sat: 100_000,
        fee_rate_sat_per_kwu: None,
    };
    bob.onchain_send(sent.clone()).await.unwrap();
    assert!(bob.balances().await.unwrap().onchain_sat < 500_000);
    let too_much = OnchainSendRequest { amount_sat: 10_000_000, ..sent };
    assert!(matches!(bob.onchain_send(too_much).await, Err(NodeError::OnchainFunds(_))));
}

/// Mines until both wallets have what is theirs.
async fn home(chain: &Chain, alice: &TestNode, bob: &TestNode, alice_sat: u64, bob_sat: u64) {
    eventually("both have their coins", async || {
        chain.mine_and_sync(8, &[alice, bob]).await;
        let a = alice.balances().await.unwrap().onchain_sat;
        let b = bob.balances().await.unwrap().onchain_sat;
        (a >= alice_sat && b >= bob_sat).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_a_directory() {
    let chain = Chain::start().await;
    let alice = chain.node("alice").await;
    let mut config = alice.config().clone();
    config.listen = "127.0.0.1:0".parse().unwrap();
    assert!(matches!(LdkNode::start(config.clone()).await, Err(LdkError::InUse(_))));
    let id = alice.info().await.unwrap().node_id;
    let alice = alice.crash().await;
    assert_eq!(alice.info().await.unwrap().node_id, id);
    config.data_dir.push("other");
    config.network = bitcoin::Network::Bitcoin;
    assert!(matches!(LdkNode::start(config).await, Err(LdkError::Bitcoind(_))));
}

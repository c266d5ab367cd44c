//! Payments through a gateway of every mood.

use std::time::Duration;

use bitcoin::hashes::Hash as _;
use bitcoin::hashes::sha256;
use bitcoin::secp256k1::{SECP256K1, SecretKey};
use federation_core::{ModuleId, Output};
use federation_lightning::client::fund;
use federation_lightning::{Contract, OutgoingContract};
use lightning_invoice::{Currency, InvoiceBuilder, PaymentSecret};

use super::{Wallet, msat};
use crate::ClientError;
use crate::ops::now;
use crate::testing::{Fault, GatewayMood, PREIMAGE, World};

/// A contract that nobody will ever claim.
pub fn contract_output(amount: u64) -> Output {
    let key = SecretKey::from_slice(&[3; 32]).unwrap().x_only_public_key(SECP256K1).0;
    let contract = OutgoingContract {
        payment_hash: PREIMAGE.payment_hash(),
        amount: msat(amount),
        gateway_key: key,
        user_key: key,
        expiry_height: 1000,
        invoice_hash: [0; 32],
    };
    fund(ModuleId(2), Contract::Outgoing(contract))
}

fn invoice_of(currency: Currency, amount: Option<u64>, age: Duration) -> String {
    let builder = InvoiceBuilder::new(currency)
        .description("test".into())
        .payment_hash(sha256::Hash::from_byte_array(PREIMAGE.payment_hash().0))
        .payment_secret(PaymentSecret([1; 32]))
        .duration_since_epoch(now() - age)
        .expiry_time(Duration::from_secs(3600))
        .min_final_cltv_expiry_delta(18);
    let key = SecretKey::from_slice(&[4; 32]).unwrap();
    let sign = |hash: &_| SECP256K1.sign_ecdsa_recoverable(hash, &key);
    match amount {
        Some(amount) => builder.amount_milli_satoshis(amount).build_signed(sign).unwrap().to_string(),
        None => builder.build_signed(sign).unwrap().to_string(),
    }
}

pub fn invoice(amount: u64) -> String {
    invoice_of(Currency::Regtest, Some(amount), Duration::ZERO)
}

// 5,000 msat, the gateway's 10 + 0.1 %, the federation's 3.
pub const COST: u64 = 5000 + 15 + 3;

#[tokio::test]
async fn paid() {
    let world = World::new();
    let wallet = Wallet::with(&world, 20_000).await;
    let paid = wallet.client.pay(&invoice(5000), None, "shoes").await.unwrap();
    assert_eq!((paid.preimage, paid.amount, paid.fee), (PREIMAGE, msat(5000), msat(15)));
    assert!(wallet.client.settle_all(Duration::from_secs(10)).await.unwrap());
    assert_eq!(wallet.balance().await, 20_000 - COST);
    let again = wallet.client.pay(&invoice(5000), None, "").await;
    assert!(matches!(again, Err(ClientError::InvoicePaid)), "{again:?}");
    assert_eq!(wallet.balance().await, 20_000 - COST);
}

#[tokio::test]
async fn a_cancelled_payment_comes_back_at_once_and_can_be_tried_again() {
    let world = World::new();
    let wallet = Wallet::with(&world, 20_000).await;
    world.gateway(GatewayMood::Cancels);
    let failed = wallet.client.pay(&invoice(5000), None, "").await;
    assert!(matches!(&failed, Err(ClientError::PaymentFailed(reason)) if reason == "no route"), "{failed:?}");
    // Only the federation's fees for funding and refunding are gone.
    assert_eq!(wallet.balance().await, 20_000 - 3 - 2);
    world.gateway(GatewayMood::Pays);
    wallet.client.pay(&invoice(5000), None, "").await.unwrap();
}

#[tokio::test]
async fn a_forged_cancellation_is_not_believed() {
    let world = World::new();
    let wallet = Wallet::with(&world, 20_000).await;
    world.gateway(GatewayMood::Forges);
    let pending = wallet.client.pay(&invoice(5000), None, "").await;
    assert!(matches!(pending, Err(ClientError::PaymentPending(_))), "{pending:?}");
    world.gateway(GatewayMood::Pays);
    assert_eq!(
        wallet.client.pay(&invoice(5000), None, "").await.map(|paid| paid.preimage).unwrap(),
        PREIMAGE
    );
}

#[tokio::test]
async fn a_gateway_that_talks_nonsense_leaves_the_payment_pending() {
    let world = World::new();
    let wallet = Wallet::with(&world, 20_000).await;
    world.gateway(GatewayMood::Babbles);
    let pending = wallet.client.pay(&invoice(5000), None, "").await;
    assert!(matches!(pending, Err(ClientError::PaymentPending(_))), "{pending:?}");
    world.gateway(GatewayMood::Pays);
    assert_eq!(wallet.client.pay(&invoice(5000), None, "").await.unwrap().preimage, PREIMAGE);
}

#[tokio::test]
async fn the_federation_shows_the_preimage_when_the_gateway_does_not() {
    let world = World::new();
    let wallet = Wallet::with(&world, 20_000).await;
    world.gateway(GatewayMood::TakesSilently);
    assert_eq!(wallet.client.pay(&invoice(5000), None, "").await.unwrap().preimage, PREIMAGE);
}

#[tokio::test]
async fn a_greedy_gateway_is_used_only_if_it_is_named() {
    let world = World::new();
    let wallet = Wallet::with(&world, 500_000).await;
    world.greed(1_000_000);
    let greedy = wallet.client.pay(&invoice(100_000), None, "").await;
    assert!(matches!(greedy, Err(ClientError::NoGateway(_))), "{greedy:?}");
    assert_eq!(wallet.balance().await, 500_000);
    let paid = wallet.client.pay(&invoice(100_000), Some("http://gateway"), "").await.unwrap();
    assert_eq!(paid.fee, msat(10 + 100_100));
}

#[tokio::test]
async fn a_gateway_that_is_down_gets_no_money() {
    let world = World::new();
    let wallet = Wallet::with(&world, 20_000).await;
    world.gateway(GatewayMood::Gone);
    let down = wallet.client.pay(&invoice(5000), None, "").await;
    assert!(matches!(down, Err(ClientError::NoGateway(_))), "{down:?}");
    let down = wallet.client.pay(&invoice(5000), Some("http://gateway/"), "").await;
    assert!(matches!(down, Err(ClientError::GatewayDown { .. })), "{down:?}");
    let unknown = wallet.client.pay(&invoice(5000), Some("http://other"), "").await;
    assert!(matches!(unknown, Err(ClientError::NoGateway(_))), "{unknown:?}");
    assert_eq!(wallet.balance().await, 20_000);
}

#[tokio::test]
async fn a_payment_goes_on_after_a_crash() {
    for path in ["/v1/transactions", "/v1/pay"] {
        let world = World::new();
        let mut wallet = Wallet::with(&world, 20_000).await;
        world.fault(path, Fault::Hang);
        let client = wallet.client.clone();
        let paying = tokio::spawn(async move { client.pay(&invoice(5000), None, "").await });
        let mut changes = wallet.client.inner.changes.subscribe();
        while wallet.client.history().await.unwrap().is_empty() {
            changes.changed().await.unwrap();
        }
        paying.abort();
        let _ = paying.await;
        wallet.restart().await;
        let op = wallet.client.find_operation(&wallet.client.history().await.unwrap()[0].id).await.unwrap();
        assert_eq!(wallet.client.wait_paid(op).await.unwrap().preimage, PREIMAGE, "{path}");
        assert!(wallet.client.settle_all(Duration::from_secs(10)).await.unwrap());
        assert_eq!(wallet.balance().await, 20_000 - COST, "{path}");
    }
}

#[tokio::test]
async fn bad_invoices_have_their_own_errors() {
    let world = World::new();
    let wallet = Wallet::with(&world, 20_000).await;
    let hour = Duration::from_secs(3600);
    for (text, code) in [
        ("lnbcrt1hello".to_owned(), "bad_invoice"),
        (invoice_of(Currency::Regtest, Some(5000), hour * 2), "invoice_expired"),
        (invoice_of(Currency::Bitcoin, Some(5000), Duration::ZERO), "invoice_network"),
        (invoice_of(Currency::Regtest, None, Duration::ZERO), "invoice_without_amount"),
        (invoice(2_000_000), "no_gateway"),
        (invoice(20_000), "insufficient_funds"),
    ] {
        let error = wallet.client.pay(&text, None, "").await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(!error.to_string().contains('\n'));
    }
    assert_eq!(wallet.balance().await, 20_000);
}

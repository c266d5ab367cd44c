//! A user's money for a gateway that pays.

use std::time::Duration;

use bitcoin::Network;
use bitcoin::secp256k1::Keypair;
use federation_core::Amount;
use federation_core::api::Method;
use lightning_invoice::Currency;
use serde_json::{Value, json};

use super::federation::{Federation, ID, MODULE, START, fund, gateway, gateway_key, invoice, keys, spend};
use crate::client::{
    self, OUTGOING_EXPIRY_BLOCKS, PayOrder, claim_outgoing, outgoing_contract, refund_outgoing,
};
use crate::contract::sign_cancellation;
use crate::message::Cancellation;
use crate::{Contract, ContractId, ContractState, LightningOutcome, OutgoingContract, Preimage};

const PREIMAGE: Preimage = Preimage([5; 32]);

fn contract(index: u64) -> (OutgoingContract, Keypair) {
    contract_at(index, START)
}

pub fn contract_at(index: u64, height: u32) -> (OutgoingContract, Keypair) {
    let key = keys(1).outgoing(index).unwrap();
    let contract = outgoing_contract(&PayOrder {
        invoice: &invoice(&PREIMAGE, Some(1_000_000), Currency::Regtest),
        gateway: &gateway(),
        network: Network::Regtest,
        now: Duration::from_secs(2000),
        height,
        user_key: key.x_only_public_key().0,
    });
    (contract.unwrap(), key)
}

async fn funded(federation: &mut Federation, index: u64) -> (ContractId, Keypair) {
    let (contract, key) = contract(index);
    let id = contract.id(ID);
    let point = federation.submit(fund(client::fund(MODULE, Contract::Outgoing(contract)))).await.unwrap();
    assert_eq!(federation.outcome(point).await, Some(LightningOutcome::Funded));
    (id, key)
}

#[tokio::test]
async fn the_gateway_claims_with_the_preimage_once() {
    let mut federation = Federation::new(4).await;
    let (id, user) = funded(&mut federation, 0).await;
    assert_eq!(federation.inside, 1_006_000);
    let gate = gateway_key().x_only_public_key().0;
    let claim = |key, preimage| spend(claim_outgoing(MODULE, id, key, preimage));

    assert_eq!(federation.submit(claim(gate, Preimage([6; 32]))).await, Err("wrong_preimage"));
    assert_eq!(federation.submit(claim(user.x_only_public_key().0, PREIMAGE)).await, Err("wrong_key"));
    let unknown = spend(claim_outgoing(MODULE, ContractId([1; 32]), gate, PREIMAGE));
    assert_eq!(federation.submit(unknown).await, Err("unknown_contract"));
    assert_eq!(federation.contract(id).await.unwrap().state, ContractState::Funded);

    // Twice in one epoch, and again in the next.
    let both = federation.epoch(vec![claim(gate, PREIMAGE), claim(gate, PREIMAGE)]).await;
    assert!(both[0].is_ok());
    assert_eq!(both[1], Err("already_spent"));
    assert_eq!(federation.submit(claim(gate, PREIMAGE)).await, Err("already_spent"));
    assert_eq!(federation.inside, 0);

    let report = federation.contract(id).await.unwrap();
    assert_eq!((report.state, report.preimage), (ContractState::Claimed, Some(PREIMAGE)));
    federation.mine_to(START + OUTGOING_EXPIRY_BLOCKS).await;
    let refund = refund_outgoing(MODULE, id, user.x_only_public_key().0, None);
    assert_eq!(federation.submit(spend(refund)).await, Err("already_spent"));
}

#[tokio::test]
async fn a_refund_needs_the_height() {
    let mut federation = Federation::new(4).await;
    let (id, user) = funded(&mut federation, 0).await;
    let refund = || spend(refund_outgoing(MODULE, id, user.x_only_public_key().0, None));
    assert_eq!(federation.submit(refund()).await, Err("not_expired"));
    federation.mine_to(START + OUTGOING_EXPIRY_BLOCKS - 1).await;
    assert_eq!(federation.submit(refund()).await, Err("not_expired"));
    federation.mine_to(START + OUTGOING_EXPIRY_BLOCKS).await;
    let stranger = refund_outgoing(MODULE, id, gateway().key, None);
    assert_eq!(federation.submit(spend(stranger)).await, Err("wrong_key"));
    federation.submit(refund()).await.unwrap();
    assert_eq!(federation.contract(id).await.unwrap().state, ContractState::Refunded);
    let claim = claim_outgoing(MODULE, id, gateway().key, PREIMAGE);
    assert_eq!(federation.submit(spend(claim)).await, Err("already_spent"));
    assert_eq!(federation.inside, 0);
}

#[tokio::test]
async fn a_claim_is_good_after_the_expiry() {
    let mut federation = Federation::new(4).await;
    let (id, _) = funded(&mut federation, 0).await;
    federation.mine_to(START + OUTGOING_EXPIRY_BLOCKS + 100).await;
    federation.submit(spend(claim_outgoing(MODULE, id, gateway().key, PREIMAGE))).await.unwrap();
}

#[tokio::test]
async fn a_cancellation_refunds_at_once() {
    let mut federation = Federation::new(4).await;
    let (id, user) = funded(&mut federation, 0).await;
    let (other, _) = funded(&mut federation, 1).await;
    let refund = |signature| {
        let cancellation = Some(Cancellation(signature));
        spend(refund_outgoing(MODULE, id, user.x_only_public_key().0, cancellation))
    };
    for wrong in [
        sign_cancellation(ID, id, &user),
        sign_cancellation(ID, other, &gateway_key()),
        sign_cancellation(federation_core::FederationId([8; 32]), id, &gateway_key()),
    ] {
        assert_eq!(federation.submit(refund(wrong)).await, Err("bad_cancellation"));
    }
    federation.submit(refund(sign_cancellation(ID, id, &gateway_key()))).await.unwrap();
    assert_eq!(federation.contract(id).await.unwrap().state, ContractState::Refunded);
    assert_eq!(federation.inside, 1_006_000);
}

#[tokio::test]
async fn duplicated_empty_and_expired_contracts_are_refused() {
    let mut federation = Federation::new(4).await;
    let (good, user) = contract(0);
    let output =
        |contract: &OutgoingContract| fund(client::fund(MODULE, Contract::Outgoing(contract.clone())));
    let zero = OutgoingContract { amount: Amount::ZERO, ..good.clone() };
    assert_eq!(federation.submit(output(&zero)).await, Err("zero_amount"));
    let expired = OutgoingContract { expiry_height: START, ..good.clone() };
    assert_eq!(federation.submit(output(&expired)).await, Err("contract_expired"));
    let large = OutgoingContract { amount: Amount::from_msat(u64::MAX), ..good.clone() };
    federation.submit(output(&good)).await.unwrap();
    assert_eq!(federation.submit(output(&good)).await, Err("contract_exists"));
    assert_eq!(federation.submit(output(&large)).await, Err("amount_too_large"));
    // The same invoice in another contract is the gateway's matter.
    federation.submit(output(&contract(1).0)).await.unwrap();
    // A spent contract is not funded again either.
    let id = good.id(ID);
    let cancellation = Some(Cancellation(sign_cancellation(ID, id, &gateway_key())));
    let refund = refund_outgoing(MODULE, id, user.x_only_public_key().0, cancellation);
    federation.submit(spend(refund)).await.unwrap();
    assert_eq!(federation.submit(output(&good)).await, Err("contract_exists"));
    // Inputs of the other kind.
    let id = contract(1).0.id(ID);
    let wrong = client::claim_incoming(MODULE, id, user.x_only_public_key().0);
    assert_eq!(federation.submit(spend(wrong)).await, Err("wrong_kind"));
}

#[tokio::test]
async fn the_height_is_what_three_of_four_have_reached_and_never_falls() {
    let mut federation = Federation::new(4).await;
    assert!(federation.proposals().await.is_empty(), "no block, no epoch");
    federation.see_block(3, u32::MAX);
    federation.see_block(0, START + 1);
    federation.epoch(vec![]).await;
    assert_eq!(federation.height().await, START);
    federation.see_block(1, START + 2);
    federation.epoch(vec![]).await;
    assert_eq!(federation.height().await, START + 1);
    federation.see_block(0, START - 50);
    federation.see_block(1, START - 50);
    assert!(federation.proposals().await.is_empty());
    assert_eq!(federation.height().await, START + 1);
    assert_eq!(federation.alarms().await.len(), 1);
    federation.see_block(0, START + 1);
    assert!(federation.alarms().await.is_empty());
    federation.say(4, crate::LightningItem::Height(5)).await;
    assert_eq!(federation.faults, [(4, "unknown_guardian")]);
}

#[tokio::test]
async fn who_asks_for_a_contract_can_wait_for_its_next_state() {
    let mut federation = Federation::new(4).await;
    let (contract, _) = contract(0);
    let id = contract.id(ID);
    let error = federation.contract(id).await.unwrap_err();
    assert_eq!((error.status, error.code.as_str()), (404, "unknown_contract"));
    let (id, _) = funded(&mut federation, 0).await;
    let query = [("id", id.to_string()), ("wait", "0".to_owned()), ("not", "funded".to_owned())];
    let now = federation.call(Method::Get, "contract", &query, Value::Null).await.unwrap();
    assert_eq!(now["state"], "funded");
    assert_eq!(
        now,
        json!({
            "id": id.to_string(), "kind": "outgoing", "amount_msat": 1_006_000, "state": "funded",
            "preimage": null, "deadline_height": START + OUTGOING_EXPIRY_BLOCKS, "height": START,
        })
    );
    let federation = tokio::sync::RwLock::new(federation);
    // The waiter polls first and the claim comes while it waits: both run in this one thread.
    let waiting = {
        let reader = federation.read().await;
        reader.waiting_for(id, ContractState::Funded)
    };
    let claim = async {
        tokio::task::yield_now().await;
        let claim = spend(claim_outgoing(MODULE, id, gateway().key, PREIMAGE));
        federation.write().await.submit(claim).await.unwrap();
    };
    let (report, ()) = tokio::join!(waiting, claim);
    assert_eq!(report.unwrap()["state"], "claimed");
    for (name, value) in [("not", "lost"), ("wait", "-1"), ("id", "12")] {
        let mut query = vec![("id", id.to_string())];
        query.retain(|(key, _)| *key != name);
        query.push((name, value.to_owned()));
        let error = federation.read().await.call(Method::Get, "contract", &query, Value::Null).await;
        assert_eq!(error.unwrap_err().code, "bad_parameter");
    }
}

//! A gateway's money for a user who has encrypted the preimage.

use federation_core::encoding::encode;
use federation_core::{Amount, OutPoint, PeerId};
use federation_tbs::encryption::{decryption_share, encrypt};
use rand::rngs::OsRng;

use super::federation::{Federation, ID, MODULE, START, fund, gateway, keys, spend};
use crate::client::{
    self, FUND_WINDOW_BLOCKS, IncomingSecrets, ReceiveOrder, claim_incoming, incoming_contract,
    reclaim_incoming,
};
use crate::{
    Contract, ContractId, ContractState, IncomingContract, LightningItem, LightningOutcome, Preimage,
};

fn contract(federation: &Federation, index: u64) -> (IncomingContract, IncomingSecrets) {
    contract_at(federation, index, START)
}

pub fn contract_at(federation: &Federation, index: u64, height: u32) -> (IncomingContract, IncomingSecrets) {
    let secrets = keys(2).incoming(index).unwrap();
    let order = ReceiveOrder {
        federation: ID,
        config: &federation.config,
        gateway: &gateway(),
        invoice_amount: Amount::from_msat(70_050),
        height,
        secrets: &secrets,
    };
    (incoming_contract(&order, &mut OsRng).unwrap(), secrets)
}

/// Puts something else into the ciphertext, with a right proof.
pub fn encrypt_instead(federation: &Federation, contract: &mut IncomingContract, plaintext: &[u8]) {
    let label = contract.terms.label(ID);
    contract.ciphertext = encrypt(&federation.config.encryption, plaintext, &label, &mut OsRng).unwrap();
}

async fn submit(federation: &mut Federation, contract: &IncomingContract) -> Result<OutPoint, &'static str> {
    federation.submit(fund(client::fund(MODULE, Contract::Incoming(contract.clone())))).await
}

async fn state(federation: &Federation, id: ContractId) -> ContractState {
    federation.contract(id).await.unwrap().state
}

#[tokio::test]
async fn a_right_preimage_pays_the_user_and_opens_it_to_the_gateway() {
    let mut federation = Federation::new(4).await;
    let (contract, secrets) = contract(&federation, 0);
    let (id, user) = (contract.id(ID), secrets.key.x_only_public_key().0);
    let point = submit(&mut federation, &contract).await.unwrap();
    assert_eq!(federation.outcome(point).await, None);
    let claim = || spend(claim_incoming(MODULE, id, user));
    let reclaim = || spend(reclaim_incoming(MODULE, id, gateway().key));
    // (Without items, so that nothing is decrypted yet.)
    assert_eq!(federation.epoch_with(vec![], vec![claim()]).await, [Err("not_decrypted")]);
    assert_eq!(federation.epoch_with(vec![], vec![reclaim()]).await, [Err("not_decrypted")]);

    assert_eq!(federation.proposals().await.len(), 4);
    federation.epoch(vec![]).await;
    assert!(federation.faults.is_empty(), "a share that came after the third is no fault");
    assert_eq!(
        federation.outcome(point).await,
        Some(LightningOutcome::Preimage { preimage: secrets.preimage })
    );
    assert_eq!(state(&federation, id).await, ContractState::Decrypted);
    assert!(federation.proposals().await.is_empty());

    assert_eq!(federation.submit(reclaim()).await, Err("right_preimage"));
    let stranger = spend(claim_incoming(MODULE, id, gateway().key));
    assert_eq!(federation.submit(stranger).await, Err("wrong_key"));
    let both = federation.epoch(vec![claim(), claim()]).await;
    assert!(both[0].is_ok());
    assert_eq!(both[1], Err("already_spent"));
    assert_eq!(federation.submit(claim()).await, Err("already_spent"));
    assert_eq!(federation.inside, 0);
    // The gateway can still read the preimage, whenever it comes back.
    assert_eq!(
        federation.outcome(point).await,
        Some(LightningOutcome::Preimage { preimage: secrets.preimage })
    );
    assert_eq!(submit(&mut federation, &contract).await, Err("contract_exists"));
}

#[tokio::test]
async fn a_wrong_preimage_gives_the_gateway_its_money_back() {
    let mut federation = Federation::new(4).await;
    let (mut contract, secrets) = contract(&federation, 0);
    encrypt_instead(&federation, &mut contract, &[1; 32]);
    let id = contract.id(ID);
    let point = submit(&mut federation, &contract).await.unwrap();
    federation.epoch(vec![]).await;
    assert_eq!(federation.outcome(point).await, Some(LightningOutcome::Invalid));
    let report = federation.contract(id).await.unwrap();
    assert_eq!((report.state, report.preimage), (ContractState::Invalid, None));
    let claim = claim_incoming(MODULE, id, secrets.key.x_only_public_key().0);
    assert_eq!(federation.submit(spend(claim)).await, Err("wrong_preimage"));
    let reclaim = || spend(reclaim_incoming(MODULE, id, gateway().key));
    federation.submit(reclaim()).await.unwrap();
    assert_eq!(federation.submit(reclaim()).await, Err("already_spent"));
    assert_eq!(state(&federation, id).await, ContractState::Refunded);
    assert_eq!(federation.inside, 0);
}

#[tokio::test]
async fn a_preimage_is_not_decrypted_through_another_contract() {
    let mut federation = Federation::new(4).await;
    let (victim, _) = contract(&federation, 0);
    let thief = keys(3).incoming(0).unwrap().key.x_only_public_key().0;
    let mut copies = vec![victim.clone(); 4];
    copies[0].terms.user_key = thief;
    copies[1].terms.amount = Amount::from_msat(1);
    copies[2].terms.gateway_key = thief;
    copies[3].terms.fund_before_height += 1;
    for copy in &copies {
        assert_eq!(submit(&mut federation, copy).await, Err("bad_ciphertext"));
    }
    let (other, _) = contract(&federation, 1);
    let swapped = IncomingContract { ciphertext: other.ciphertext, terms: victim.terms };
    assert_eq!(submit(&mut federation, &swapped).await, Err("bad_ciphertext"));
    let (mut short, _) = contract(&federation, 0);
    encrypt_instead(&federation, &mut short, &[1; 31]);
    assert_eq!(submit(&mut federation, &short).await, Err("bad_ciphertext"));
    assert!(federation.proposals().await.is_empty());
}

#[tokio::test]
async fn it_can_be_funded_before_its_height_only() {
    let mut federation = Federation::new(4).await;
    let (first, _) = contract(&federation, 0);
    let (second, _) = contract(&federation, 1);
    let (mut zero, _) = contract(&federation, 2);
    zero.terms.amount = Amount::ZERO;
    assert_eq!(submit(&mut federation, &zero).await, Err("zero_amount"));
    federation.mine_to(START + FUND_WINDOW_BLOCKS - 1).await;
    submit(&mut federation, &first).await.unwrap();
    federation.mine_to(START + FUND_WINDOW_BLOCKS).await;
    assert_eq!(submit(&mut federation, &second).await, Err("too_late"));
}

#[tokio::test]
async fn fewer_than_the_threshold_decrypt_nothing() {
    let mut federation = Federation::new(4).await;
    federation.down = [0, 3].into();
    let (contract, secrets) = contract(&federation, 0);
    let point = submit(&mut federation, &contract).await.unwrap();
    for _ in 0..3 {
        federation.epoch(vec![]).await;
    }
    assert_eq!(federation.outcome(point).await, None);
    assert!(federation.proposals().await.is_empty(), "a share is given once");
    federation.down.remove(&3);
    federation.epoch(vec![]).await;
    assert_eq!(
        federation.outcome(point).await,
        Some(LightningOutcome::Preimage { preimage: secrets.preimage })
    );
}

#[tokio::test]
async fn wrong_and_senseless_shares_are_faults_and_change_nothing() {
    let mut federation = Federation::new(4).await;
    let (contract, secrets) = contract(&federation, 0);
    let (id, label) = (contract.id(ID), contract.terms.label(ID));
    let point = submit(&mut federation, &contract).await.unwrap();
    let share = |guardian: usize| {
        decryption_share(&contract.ciphertext, &label, &federation.secrets[guardian].share).unwrap()
    };
    let shares: Vec<_> = (0..4).map(share).collect();
    // Another guardian's share, two at once, none, of nobody.
    let cases = [
        (0, vec![(id, shares[1].clone())], "wrong_share"),
        (0, vec![(id, shares[0].clone()), (id, shares[0].clone())], "bad_shares"),
        (0, vec![], "bad_shares"),
        (9, vec![(id, shares[0].clone())], "unknown_guardian"),
    ];
    for (from, item, code) in cases {
        federation.say(from, LightningItem::Shares(item)).await;
        assert_eq!(federation.faults, [(from, code)]);
    }
    // Of an unknown contract, and the same again: of no use, and no fault.
    federation.say(0, LightningItem::Shares(vec![(ContractId([0; 32]), shares[0].clone())])).await;
    for _ in 0..3 {
        federation.say(0, LightningItem::Shares(vec![(id, shares[0].clone())])).await;
        assert!(federation.faults.is_empty());
    }
    federation.say(1, LightningItem::Shares(vec![(id, shares[1].clone())])).await;
    assert_eq!(federation.outcome(point).await, None);
    federation.epoch_with(vec![(PeerId(2), vec![255; 40])], vec![]).await;
    assert_eq!(federation.faults, [(2, "malformed")]);
    let last = encode(&LightningItem::Shares(vec![(id, shares[2].clone())]));
    federation.epoch_with(vec![(PeerId(2), last)], vec![]).await;
    assert_eq!(
        federation.outcome(point).await,
        Some(LightningOutcome::Preimage { preimage: secrets.preimage })
    );
}

#[tokio::test]
async fn a_federation_of_one_and_of_seven() {
    for n in [1, 7] {
        let mut federation = Federation::new(n).await;
        let (contract, secrets) = contract(&federation, 0);
        let point = submit(&mut federation, &contract).await.unwrap();
        federation.epoch(vec![]).await;
        let Some(LightningOutcome::Preimage { preimage }) = federation.outcome(point).await else {
            panic!("not decrypted with n = {n}");
        };
        assert_eq!(preimage, secrets.preimage);
        assert_eq!(Preimage(preimage.0).payment_hash(), contract.terms.payment_hash);
    }
}

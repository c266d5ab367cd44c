//! Deposits: seen, proved, claimed once.

use super::federation::{Federation, Part, key};

#[tokio::test]
async fn a_deposit_is_seen_becomes_final_and_is_claimed_once() {
    let mut federation = Federation::new(4, 3).await;
    let key = key(1);
    let address = federation.register(&key).await;
    assert!(address.starts_with("bcrt1q"));
    assert_eq!(federation.register(&key).await, address);
    let payment = federation.pay(1, &key, 50_000);
    federation.mine(vec![payment]).await;
    let status = federation.guardians[0].deposits(&key).await;
    assert_eq!(status.address, address);
    assert_eq!((status.deposits[0].confirmations, status.deposits[0].amount_sat), (1, 50_000));
    assert_eq!(status.deposits[0].proof, None);
    federation.mine(Vec::new()).await;
    federation.mine(Vec::new()).await;
    let claim = federation.claim(&key).await;
    let again = federation.claim(&key).await;
    let results = federation.epoch(&[claim, again]).await;
    assert_eq!(results[0].unwrap().amount.sat_exact(), Some(50_000));
    assert_eq!(results[1], Err("already_claimed"));
    let later = federation.claim(&key).await;
    assert_eq!(federation.epoch(&[later]).await, [Err("already_claimed")]);
    assert!(federation.guardians[0].deposits(&key).await.deposits[0].claimed);
    assert_eq!(federation.equity().await, 50_000);
}

#[tokio::test]
async fn several_deposits_in_one_transaction_and_to_one_address() {
    let mut federation = Federation::new(4, 1).await;
    let key = key(1);
    federation.register(&key).await;
    let mut payment = federation.pay(1, &key, 50_000);
    payment.output.extend(federation.pay(2, &key, 60_000).output);
    federation.mine(vec![payment]).await;
    let payment = federation.pay(3, &key, 70_000);
    federation.mine(vec![payment]).await;
    let status = federation.guardians[0].deposits(&key).await;
    let mut claims = Vec::new();
    for deposit in &status.deposits {
        let bytes = hex::decode(deposit.proof.as_ref().unwrap()).unwrap();
        let input = federation_core::encoding::decode(&bytes, 10_000).unwrap();
        claims.push(Part::Deposit(key, Box::new(input)));
    }
    assert_eq!(claims.len(), 3);
    assert!(federation.epoch(&claims).await.iter().all(Result::is_ok));
    assert_eq!(federation.equity().await, 180_000);
}

#[tokio::test]
async fn a_key_that_is_registered_after_the_payment_is_found() {
    let mut federation = Federation::new(4, 1).await;
    let key = key(1);
    let payment = federation.pay(1, &key, 50_000);
    federation.mine(vec![payment]).await;
    federation.mine(Vec::new()).await;
    federation.register(&key).await;
    let guardian = &federation.guardians[0];
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while guardian.deposits(&key).await.deposits.is_empty() {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn false_claims_are_refused() {
    let mut federation = Federation::new(4, 1).await;
    let owner = key(1);
    federation.register(&owner).await;
    let payment = federation.pay(1, &owner, 50_000);
    let dust = federation.pay(2, &owner, 4_999);
    federation.mine(vec![payment]).await;
    let Part::Deposit(_, good) = federation.claim(&owner).await else { unreachable!() };

    let thief = Part::Deposit(key(2), good.clone());
    let part = |change: &dyn Fn(&mut crate::DepositInput)| {
        let mut input = good.clone();
        change(&mut input);
        Part::Deposit(owner, input)
    };
    let parts = [
        thief,
        part(&|input| input.vout = 7),
        part(&|input| input.proof.height += 1),
        part(&|input| input.proof.height -= 1),
        part(&|input| input.proof.height = 1),
        part(&|input| input.proof.path.header.nonce += 1),
        part(&|input| input.proof.transaction.output[0].value *= 2),
    ];
    assert_eq!(
        federation.epoch(&parts).await,
        [
            Err("wrong_address"),
            Err("bad_proof"),
            Err("not_final"),
            Err("wrong_block"),
            Err("wrong_block"),
            Err("wrong_block"),
            Err("bad_proof"),
        ]
    );
    federation.mine(vec![dust]).await;
    let status = federation.guardians[0].deposits(&owner).await;
    assert!(status.deposits[1].too_small);
    let claim = federation.claim(&owner).await;
    assert_eq!(federation.epoch(&[claim]).await, [Err("deposit_too_small")]);
    assert_eq!(federation.equity().await, 0);
}

#[tokio::test]
async fn a_deposit_in_a_vanished_block_is_forgotten() {
    let mut federation = Federation::new(1, 3).await;
    let key = key(1);
    federation.register(&key).await;
    let payment = federation.pay(1, &key, 50_000);
    federation.mine(vec![payment]).await;
    assert_eq!(federation.guardians[0].deposits(&key).await.deposits.len(), 1);
    federation.chain.reorganise(1, 3);
    federation.synced().await;
    assert_eq!(federation.guardians[0].deposits(&key).await.deposits.len(), 0);
}

#[tokio::test]
async fn requests_that_make_no_sense_have_their_own_errors() {
    let federation = Federation::new(1, 1).await;
    let guardian = &federation.guardians[0];
    assert_eq!(guardian.call("register", &[("key", "00")]).await.unwrap_err().code, "bad_body");
    assert_eq!(guardian.call("deposits", &[("key", "zz")]).await.unwrap_err().code, "bad_parameter");
    assert_eq!(guardian.call("deposits", &[]).await.unwrap_err().code, "missing_parameter");
    assert_eq!(
        guardian.call("quote", &[("address", "x"), ("amount_sat", "1")]).await.unwrap_err().code,
        "bad_address"
    );
    assert!(guardian.call("status", &[]).await.unwrap()["watched_keys"].is_number());
}

#[tokio::test]
async fn a_restart_goes_on_where_the_last_run_ended() {
    let mut federation = Federation::new(1, 2).await;
    let key = key(1);
    federation.register(&key).await;
    federation.mine(Vec::new()).await;
    federation.chain.stop(true);
    let payment = federation.pay(1, &key, 50_000);
    federation.chain.mine(vec![payment]);
    federation.guardians[0].restart().await;
    assert_eq!(federation.guardians[0].deposits(&key).await.deposits.len(), 0);
    federation.chain.stop(false);
    federation.mine(Vec::new()).await;
    let claim = federation.claim(&key).await;
    assert!(federation.epoch(&[claim]).await[0].is_ok());
}

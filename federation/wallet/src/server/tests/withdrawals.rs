//! Withdrawals: quoted, batched, signed, confirmed.

use federation_core::module::ServerModule as _;

use super::federation::{Federation, Part};
use crate::body::{InputSignature, Item};

const ADDRESS: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

/// Waits until a transaction was broadcast.
async fn broadcast(federation: &Federation) -> bitcoin::Transaction {
    let guardian = &federation.guardians[0];
    guardian.until("a broadcast", || !guardian.chain.mempool().is_empty()).await;
    let mempool = guardian.chain.mempool();
    assert_eq!(mempool.len(), 1);
    mempool[0].clone()
}

#[tokio::test]
async fn from_the_quote_to_the_change() {
    for n in [1, 2, 4] {
        let mut federation = Federation::new(n, 1).await;
        federation.deposit(1, 100_000).await;
        federation.deposit(2, 30_000).await;
        let quote = federation.quote(ADDRESS, 40_000).await.unwrap();
        assert_eq!(quote.rate_sat_per_kvb, 5_000);
        let (point, part) = federation.withdrawal(ADDRESS, 40_000, quote.fee_sat);
        let value = federation.epoch(&[part]).await.remove(0).unwrap();
        assert_eq!(value.amount.sat_exact(), Some(40_000));
        assert_eq!(value.fee.sat_exact(), Some(quote.fee_sat));
        assert_eq!(federation.equity().await, 130_000 - 40_000 - quote.fee_sat as i64);
        let guardian = &federation.guardians[0];
        assert_eq!(guardian.wallet.outcome(&guardian.state(), point).await.unwrap(), None);
        assert!(guardian.wallet.propose(&guardian.state()).await.unwrap().opens_epoch);
        federation.epoch(&[]).await;
        let guardian = &federation.guardians[0];
        let outcome = guardian.wallet.outcome(&guardian.state(), point).await.unwrap().unwrap();
        let transaction = broadcast(&federation).await;
        assert_eq!(transaction.compute_txid(), outcome.txid);
        assert_eq!(transaction.input.len(), 1);
        let paid: Vec<u64> = transaction.output.iter().map(|output| output.value.to_sat()).collect();
        assert_eq!(paid.len(), 2);
        assert!(paid.contains(&40_000));
        let miner = 100_000 - paid.iter().sum::<u64>();
        assert!(miner <= quote.fee_sat);
        assert!(miner >= transaction.vsize() as u64 * 5, "{miner} sat for {} vB", transaction.vsize());

        federation.mine(Vec::new()).await;
        federation.epoch(&[]).await;
        let status = federation.guardians[0].call("status", &[]).await.unwrap();
        assert_eq!((&status["coins"], &status["transactions_unconfirmed"]), (&2.into(), &0.into()));
        assert_eq!(status["fee_reserve_sat"].as_u64().unwrap(), quote.fee_sat - miner);
        assert_eq!(federation.equity().await, 130_000 - 40_000 - quote.fee_sat as i64);
        // The proof is not proposed for ever.
        let guardian = &federation.guardians[0];
        assert!(!guardian.wallet.propose(&guardian.state()).await.unwrap().opens_epoch);
    }
}

#[tokio::test]
async fn those_of_one_epoch_share_a_transaction_and_the_next_waits_for_the_change() {
    let mut federation = Federation::new(4, 1).await;
    federation.deposit(1, 200_000).await;
    let fee = federation.quote(ADDRESS, 30_000).await.unwrap().fee_sat;
    let (first, a) = federation.withdrawal(ADDRESS, 30_000, fee);
    let (second, b) = federation.withdrawal(ADDRESS, 20_000, fee);
    assert!(federation.epoch(&[a, b]).await.iter().all(Result::is_ok));
    let (third, c) = federation.withdrawal(ADDRESS, 25_000, fee);
    assert!(federation.epoch(&[c]).await[0].is_ok());
    let guardian = &federation.guardians[0];
    let outcome = |point| async move { guardian.wallet.outcome(&guardian.state(), point).await.unwrap() };
    assert!(outcome(first).await.is_some());
    assert_eq!(outcome(first).await, outcome(second).await);
    assert_eq!(outcome(third).await, None);
    assert_eq!(broadcast(&federation).await.output.len(), 3);
    let equity = federation.equity().await;

    federation.mine(Vec::new()).await;
    federation.epoch(&[]).await;
    federation.epoch(&[]).await;
    let guardian = &federation.guardians[0];
    assert!(guardian.wallet.outcome(&guardian.state(), third).await.unwrap().is_some());
    assert_eq!(federation.equity().await, equity);
    assert_eq!(broadcast(&federation).await.output.len(), 2);
}

#[tokio::test]
async fn what_cannot_be_paid_is_refused() {
    let mut federation = Federation::new(4, 1).await;
    federation.deposit(1, 100_000).await;
    let refused = federation.quote(ADDRESS, 200_000).await.unwrap_err();
    assert_eq!(refused.code, "insufficient_reserves");
    let foreign = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
    assert_eq!(federation.quote(foreign, 20_000).await.unwrap_err().code, "wrong_network");
    assert_eq!(federation.quote(ADDRESS, 100).await.unwrap_err().code, "dust");
    let fee = federation.quote(ADDRESS, 20_000).await.unwrap().fee_sat;
    let (_, cheap) = federation.withdrawal(ADDRESS, 20_000, fee / 3);
    let (_, large) = federation.withdrawal(ADDRESS, 200_000, fee);
    let (_, dust) = federation.withdrawal(ADDRESS, 100, fee);
    let (_, absurd) = federation.withdrawal(ADDRESS, u64::MAX, u64::MAX);
    let (_, mut odd) = federation.withdrawal(ADDRESS, 20_000, fee);
    if let Part::Withdraw(_, output) = &mut odd {
        output.script = bitcoin::ScriptBuf::new_op_return([7; 20]);
    }
    assert_eq!(
        federation.epoch(&[cheap, large, dust, absurd, odd]).await,
        [
            Err("quote_expired"),
            Err("insufficient_reserves"),
            Err("dust"),
            Err("overflow"),
            Err("address_kind")
        ]
    );
}

#[tokio::test]
async fn a_quote_outlives_a_rise_of_the_fee_rate_for_its_blocks() {
    let mut federation = Federation::new(4, 1).await;
    federation.deposit(1, 100_000).await;
    let fee = federation.quote(ADDRESS, 20_000).await.unwrap().fee_sat;
    for guardian in &federation.guardians {
        guardian.wallet.view().fee_rate = Some(50_000);
    }
    let mut items = federation.proposals(&[0, 1, 2, 3]).await;
    for (_, item) in &mut items {
        if let Item::FeeRate(rate) = item {
            *rate = 50_000;
        }
    }
    items.extend((0..4).map(|i| (federation_core::PeerId(i), Item::FeeRate(50_000))));
    federation.epoch_of(&items, &[]).await;
    assert!(federation.quote(ADDRESS, 20_000).await.unwrap().fee_sat > 5 * fee);
    let (_, part) = federation.withdrawal(ADDRESS, 20_000, fee);
    // The cheap rate pays for it, slowly: the transaction never costs more than what users paid.
    assert!(federation.epoch(&[part]).await[0].is_ok());
    federation.epoch(&[]).await;
    broadcast(&federation).await;
}

#[tokio::test]
async fn a_wrong_signature_is_a_fault_and_t_good_ones_suffice() {
    let mut federation = Federation::new(4, 1).await;
    federation.deposit(1, 100_000).await;
    let fee = federation.quote(ADDRESS, 20_000).await.unwrap().fee_sat;
    let (point, part) = federation.withdrawal(ADDRESS, 20_000, fee);
    federation.epoch(&[part]).await;
    let mut items = federation.proposals(&[0, 1, 2, 3]).await;
    items.retain(|(_, item)| matches!(item, Item::Signatures { .. }));
    let Item::Signatures { txid, signatures } = items[0].1.clone() else { unreachable!() };
    // Guardian 1 hands in what guardian 0 signed; others too few, too many, or for an unknown transaction.
    let stolen = Item::Signatures { txid, signatures: signatures.clone() };
    let few = Item::Signatures { txid, signatures: Vec::new() };
    let many = Item::Signatures { txid, signatures: vec![signatures[0]; 2] };
    let other = bitcoin::hashes::Hash::from_byte_array([9; 32]);
    let unknown = Item::Signatures { txid: other, signatures: Vec::<InputSignature>::new() };
    let bad: Vec<_> =
        [stolen, few, many, unknown].into_iter().map(|item| (federation_core::PeerId(1), item)).collect();
    let (faults, _) = federation.epoch_of(&bad, &[]).await;
    assert_eq!(
        faults,
        [Some("bad_signature"), Some("bad_signature"), Some("bad_signature"), Some("unknown_transaction")]
    );
    let (faults, _) = federation.epoch_of(&items[..2], &[]).await;
    assert_eq!(faults, [None, None]);
    let guardian = &federation.guardians[0];
    assert_eq!(guardian.wallet.outcome(&guardian.state(), point).await.unwrap(), None);
    let (faults, _) = federation.epoch_of(&items[3..], &[]).await;
    assert_eq!(faults, [None]);
    let guardian = &federation.guardians[0];
    assert!(guardian.wallet.outcome(&guardian.state(), point).await.unwrap().is_some());
    // Guardian 2 is late: nobody's fault.
    let (faults, _) = federation.epoch_of(&items[2..3], &[]).await;
    assert_eq!(faults, [None]);
}

#[tokio::test]
async fn everything_can_be_withdrawn() {
    let mut federation = Federation::new(4, 1).await;
    for seed in 1..=5 {
        federation.deposit(seed, 50_000).await;
    }
    let fee = federation.quote(ADDRESS, 245_000).await.unwrap().fee_sat;
    let amount = 250_000 - fee;
    let (_, part) = federation.withdrawal(ADDRESS, amount, fee);
    federation.epoch(&[part]).await.remove(0).unwrap();
    federation.epoch(&[]).await;
    let transaction = broadcast(&federation).await;
    assert_eq!(transaction.input.len(), 5);
    assert_eq!(federation.equity().await, 0);
}

#[tokio::test]
async fn a_withdrawal_to_the_change_script_is_not_taken_for_the_change() {
    let mut federation = Federation::new(4, 1).await;
    federation.deposit(1, 100_000).await;
    let fee = federation.quote(ADDRESS, 20_000).await.unwrap().fee_sat;
    // The number of the transaction that is to come: the withdrawal itself takes 0.
    let wallet = &federation.guardians[0].wallet;
    let tag = federation_core::encoding::tagged_hash(
        "cln-federation/wallet/change-number",
        &[&wallet.federation.0, &1u64.to_be_bytes()],
    );
    let script = wallet.descriptor.script(&crate::Tweak::Change(tag)).unwrap();
    let (_, mut part) = federation.withdrawal(ADDRESS, 20_000, 2 * fee);
    if let Part::Withdraw(_, output) = &mut part {
        output.script = script.clone();
    }
    federation.epoch(&[part]).await.remove(0).unwrap();
    federation.epoch(&[]).await;
    let transaction = broadcast(&federation).await;
    assert!(transaction.output.iter().all(|output| output.script_pubkey == script));
    let change = transaction.output.iter().map(|output| output.value.to_sat()).max().unwrap();
    let guardian = &federation.guardians[0];
    let audit = guardian.wallet.audit(&guardian.state()).await.unwrap();
    assert_eq!(audit[1].amount_msat, change as i64 * 1000);
}

#[tokio::test]
async fn a_transaction_that_was_mined_while_all_were_down_is_found() {
    let mut federation = Federation::new(4, 1).await;
    federation.deposit(1, 100_000).await;
    let fee = federation.quote(ADDRESS, 20_000).await.unwrap().fee_sat;
    let (_, part) = federation.withdrawal(ADDRESS, 20_000, fee);
    federation.epoch(&[part]).await;
    federation.epoch(&[]).await;
    broadcast(&federation).await;
    federation.chain.stop(true);
    federation.chain.mine_empty(30);
    for guardian in &mut federation.guardians {
        guardian.restart().await;
    }
    federation.chain.stop(false);
    federation.synced().await;
    federation.epoch(&[]).await;
    federation.epoch(&[]).await;
    let status = federation.guardians[0].call("status", &[]).await.unwrap();
    assert_eq!((&status["coins"], &status["transactions_unconfirmed"]), (&1.into(), &0.into()));
}

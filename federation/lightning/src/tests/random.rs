//! Random sequences of everything, by honest and dishonest parties: what goes into contracts comes out once.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::federation::{Federation, ID, MODULE, START, Tx, fund, gateway, gateway_key, spend};
use super::{incoming, outgoing};
use crate::client::{self, claim_incoming, claim_outgoing, reclaim_incoming, refund_outgoing};
use crate::contract::sign_cancellation;
use crate::message::Cancellation;
use crate::{Contract, ContractId, Preimage};

#[tokio::test]
async fn money_is_conserved_whatever_is_tried() {
    let mut federation = Federation::new(4).await;
    let mut rng = StdRng::seed_from_u64(11);
    let mut contracts: Vec<(ContractId, u64, bitcoin::secp256k1::XOnlyPublicKey)> = vec![];
    let mut done = std::collections::BTreeSet::new();
    let gate = gateway().key;
    let (mut height, mut entered) = (START, 0);
    // The sum is checked against the audit after every epoch, in `Federation::epoch_with`.
    for index in 0..60 {
        let mut txs = vec![];
        let (contract, user) = if rng.r#gen() {
            let (contract, key) = outgoing::contract_at(index, height);
            (Contract::Outgoing(contract), key)
        } else {
            let (mut contract, secrets) = incoming::contract_at(&federation, index, height);
            if rng.r#gen() {
                incoming::encrypt_instead(&federation, &mut contract, &[9; 32]);
            }
            (Contract::Incoming(contract), secrets.key)
        };
        contracts.push((contract.id(ID), contract.amount().msat(), user.x_only_public_key().0));
        txs.push(fund(client::fund(MODULE, contract)));
        let mut tried = vec![None];
        for _ in 0..6 {
            let (id, amount, user) = contracts[rng.gen_range(0..contracts.len())];
            let cancellation =
                rng.gen_bool(0.3).then(|| Cancellation(sign_cancellation(ID, id, &gateway_key())));
            let input = match rng.gen_range(0..4) {
                0 => claim_outgoing(MODULE, id, gate, Preimage([rng.gen_range(5..7); 32])),
                1 => refund_outgoing(MODULE, id, user, cancellation),
                2 => claim_incoming(MODULE, id, user),
                _ => reclaim_incoming(MODULE, id, gate),
            };
            txs.push(Tx { ..spend(input) });
            tried.push(Some((id, amount)));
        }
        federation.down = (0..4).filter(|_| rng.gen_bool(0.2)).collect();
        let results = federation.epoch(txs).await;
        entered += u64::from(results[0].is_ok()) * contracts.last().unwrap().1;
        for (tried, result) in tried.into_iter().zip(results) {
            if let (Some((id, amount)), Ok(_)) = (tried, result) {
                assert!(done.insert((id, amount)), "a contract was spent twice");
            }
        }
        height += rng.gen_range(0..2) * rng.gen_range(0..30);
        (0..4).for_each(|guardian| federation.see_block(guardian, height));
    }
    let left: u64 = done.iter().map(|(_, amount)| amount).sum();
    assert_eq!(entered - left, federation.inside);
    assert!(done.len() > 20, "only {} contracts were spent", done.len());
}

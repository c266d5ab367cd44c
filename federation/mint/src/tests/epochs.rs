//! The life of notes when everybody is honest, or only users aren't.

use federation_core::{Amount, OutPoint};
use federation_tbs::Signature;
use proptest::prelude::*;

use super::federation::{Federation, ID, denomination, transaction};
use crate::MintParams;
use crate::client::{Deriver, Note, NoteRequest};

#[tokio::test]
async fn notes_are_issued_spent_and_counted() {
    for n in [1, 2, 4] {
        let mut federation = Federation::new(n, MintParams::default());
        let requests = vec![federation.request(0), federation.request(9)];
        let tx = transaction(&[], &requests);
        let first = OutPoint { txid: tx.txid(ID), index: 0 };
        assert_eq!(federation.round(std::slice::from_ref(&tx)).await, [Ok(())]);
        assert_eq!(federation.outcome(first).await, None, "pending");
        assert_eq!(federation.owed().await, 513);
        federation.round(&[]).await;
        let notes = federation.collect(tx.txid(ID), &requests).await;
        assert!(federation.proposals().await.is_empty(), "nothing left to say");

        let requests: Vec<_> = [8, 8, 0].map(|exponent| federation.request(exponent)).into();
        let reissue = transaction(&notes.iter().collect::<Vec<_>>(), &requests);
        assert_eq!(federation.round(std::slice::from_ref(&reissue)).await, [Ok(())]);
        federation.round(&[]).await;
        federation.collect(reissue.txid(ID), &requests).await;
        assert_eq!(federation.owed().await, 513);
        assert!(federation.alarms().await.is_empty());
    }
}

#[tokio::test]
async fn a_note_is_spent_once_for_ever() {
    let mut federation = Federation::new(4, MintParams::default());
    let notes = federation.issue(&[3, 3]).await;
    let [a, b] = &notes[..] else { panic!() };
    let requests: Vec<_> = (0..4).map(|_| federation.request(3)).collect();
    let twice_inside = transaction(&[a, a], &requests[..1]);
    let first = transaction(&[a], &requests[1..2]);
    let second = transaction(&[b, a], &requests[2..3]);
    let results = federation.round(&[twice_inside, first, second.clone()]).await;
    assert_eq!(results, [Err("double_spend"), Ok(()), Err("double_spend")]);
    for _ in 0..3 {
        assert_eq!(federation.round(std::slice::from_ref(&second)).await, [Err("double_spend")]);
    }
    // The refused transactions took nothing along.
    let good = transaction(&[b], &requests[2..3]);
    assert_eq!(federation.round(&[good]).await, [Ok(())]);
    assert_eq!(federation.owed().await, 16);
}

#[tokio::test]
async fn a_blinded_nonce_is_signed_once_for_ever() {
    let mut federation = Federation::new(4, MintParams::default());
    let request = federation.request(2);
    let other_amount = NoteRequest::new(&federation.deriver, request.index, denomination(3));
    let both = transaction(
        &[],
        &[NoteRequest::new(&federation.deriver, request.index, denomination(2)), other_amount],
    );
    let tx = transaction(&[], &[request]);
    let results = federation.round(&[both.clone(), tx]).await;
    assert_eq!(results, [Err("blinded_nonce_reused"), Ok(())]);
    federation.round(&[]).await;
    assert_eq!(federation.round(&[both]).await, [Err("blinded_nonce_reused")]);
    assert_eq!(federation.owed().await, 4);
}

#[tokio::test]
async fn what_the_federation_did_not_sign_is_refused_and_the_rest_is_good() {
    let mut federation = Federation::new(4, MintParams::default());
    let mut notes = federation.issue(&[1; 70]).await;
    let good = notes[0].signature.clone();
    notes[69] = Note::new(denomination(1), good, federation.deriver.note(999).key);
    let request = vec![federation.request(7)];
    let all = transaction(&notes.iter().collect::<Vec<_>>(), &request);
    let without = transaction(&notes[..69].iter().collect::<Vec<_>>(), &request);
    assert_eq!(federation.round(&[all, without]).await, [Err("bad_note"), Ok(())]);

    let note = federation.issue(&[4]).await.remove(0);
    let higher = Note::new(denomination(5), note.signature.clone(), key(&note));
    let unknown = Note::new(denomination(63), note.signature.clone(), key(&note));
    let txs = [higher, unknown].map(|note| transaction(&[&note], &request));
    assert_eq!(federation.round(&txs).await, [Err("bad_note"), Err("unknown_denomination")]);
    let unknown = NoteRequest::new(&Deriver::new(&[9; 64], ID), 0, denomination(10));
    assert_eq!(federation.round(&[transaction(&[], &[unknown])]).await, [Err("unknown_denomination")]);
    let mut garbage = transaction(&[&note], &request);
    garbage.inputs[0].body = vec![0; 1 + Signature::SIZE];
    assert_eq!(federation.round(&[garbage]).await, [Err("malformed")]);
}

fn key(note: &Note) -> bitcoin::secp256k1::SecretKey {
    note.keypair().secret_key()
}

#[tokio::test]
async fn issuance_is_limited_and_fees_are_told() {
    let params = MintParams {
        fee_in: Amount::from_msat(1),
        fee_out: Amount::from_msat(2),
        max_issuance: Some(Amount::from_msat(20)),
    };
    let mut federation = Federation::new(4, params);
    let notes = federation.issue(&[4]).await;
    let requests: Vec<_> = [3, 2].map(|exponent| federation.request(exponent)).into();
    let too_much = transaction(&[], &requests[..1]);
    let enough = transaction(&[], &requests[1..]);
    assert_eq!(federation.round(&[too_much.clone(), enough]).await, [Err("issuance_limit"), Ok(())]);
    // Inputs make room.
    let reissue = transaction(&[&notes[0]], &requests[..1]);
    assert_eq!(federation.round(&[reissue]).await, [Ok(())]);
    assert_eq!(federation.owed().await, 12);
    let json = serde_json::to_value(&federation.config).unwrap();
    assert_eq!((&json["fee_in_msat"], &json["fee_out_msat"]), (&1.into(), &2.into()));
    assert_eq!(serde_json::from_value::<crate::MintConfig>(json).unwrap(), federation.config);
}

/// Random epochs: what the wallet holds, what is pending and what the mint owes stay the same sum.
async fn random_epochs(epochs: Vec<Vec<(Vec<prop::sample::Index>, Vec<u8>)>>) {
    let mut federation = Federation::new(4, MintParams::default());
    let mut held: Vec<Note> = Vec::new();
    let mut waiting: Vec<(federation_core::TxId, Vec<NoteRequest>)> = Vec::new();
    for epoch in epochs {
        let mut txs = Vec::new();
        for (spend, ask) in epoch {
            // Drawn with repetition, also across transactions: some are double spends.
            let spend: Vec<Note> = if held.is_empty() {
                Vec::new()
            } else {
                spend.iter().map(|index| held[index.index(held.len())].clone()).collect()
            };
            let requests: Vec<_> = ask.iter().map(|exponent| federation.request(*exponent)).collect();
            let tx = transaction(&spend.iter().collect::<Vec<_>>(), &requests);
            txs.push((tx, spend, requests));
        }
        let plain: Vec<_> = txs.iter().map(|(tx, ..)| tx.clone()).collect();
        let results = federation.round(&plain).await;
        for (txid, requests) in std::mem::take(&mut waiting) {
            held.extend(federation.collect(txid, &requests).await);
        }
        for (result, (tx, spend, requests)) in results.into_iter().zip(txs) {
            let unique = spend.iter().enumerate().all(|(i, note)| !spend[..i].contains(note));
            let unspent = spend.iter().all(|note| held.contains(note));
            assert_eq!(result.is_ok(), unique && unspent, "{result:?}");
            if result.is_ok() {
                held.retain(|note| !spend.contains(note));
                waiting.push((tx.txid(ID), requests));
            }
        }
        let in_hand: u64 = held.iter().map(|note| note.amount().msat()).sum();
        let on_the_way: u64 =
            waiting.iter().flat_map(|(_, requests)| requests).map(|r| r.denomination.amount().msat()).sum();
        assert_eq!(federation.owed().await, in_hand + on_the_way);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn money_is_conserved(epochs in prop::collection::vec(
        prop::collection::vec((prop::collection::vec(any::<prop::sample::Index>(), 0..3), prop::collection::vec(0..10u8, 0..4)), 0..3),
        1..8,
    )) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(random_epochs(epochs));
    }
}

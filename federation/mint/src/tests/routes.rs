//! What the REST endpoints give, and what a client makes of it.

use std::collections::BTreeMap;

use federation_core::{OutPoint, PeerId};
use serde_json::{Value, json};

use super::federation::{Federation, ID, transaction};
use crate::client::{SharesAnswer, finish_early};
use crate::{MintParams, PointBytes};

#[tokio::test]
async fn shares_of_an_accepted_transaction_make_the_note_an_epoch_earlier() {
    let mut federation = Federation::new(4, MintParams::default());
    let requests = vec![federation.request(1), federation.request(2)];
    let tx = transaction(&[], &requests);
    let txid = tx.txid(ID).to_string();
    let early = federation.call(0, "shares", &[("txid", &txid)], Value::Null).await.unwrap_err();
    assert_eq!((early.status, early.code.as_str()), (404, "unknown_output"));
    federation.round(std::slice::from_ref(&tx)).await;

    let mut shares: BTreeMap<PeerId, PointBytes> = BTreeMap::new();
    for guardian in [3, 0, 2] {
        let answer = federation.call(guardian, "shares", &[("txid", &txid)], Value::Null).await.unwrap();
        assert_eq!(answer["guardian"], guardian);
        let answer: SharesAnswer = serde_json::from_value(answer).unwrap();
        assert_eq!((answer.shares.len(), answer.outcomes.len()), (2, 0));
        shares.insert(PeerId(guardian as u16), answer.shares[&1]);
    }
    let early = finish_early(&[(&requests[1], &shares)], &federation.config).remove(0).note.unwrap();

    federation.round(&[]).await;
    let point = OutPoint { txid: tx.txid(ID), index: 1 };
    let signature = federation.outcome(point).await.unwrap();
    assert_eq!(federation.collect(tx.txid(ID), &requests).await[1], early);
    let query = [("txid", txid.as_str()), ("index", "1")];
    let answer = federation.call(0, "shares", &query, Value::Null).await.unwrap();
    assert_eq!(answer["outcomes"], json!({ "1": signature }));
}

#[tokio::test]
async fn a_wallet_finds_its_notes_again() {
    let mut federation = Federation::new(4, MintParams::default());
    let requests = vec![federation.request(1), federation.request(2)];
    let unused = federation.request(3);
    let tx = transaction(&[], &requests);
    federation.round(std::slice::from_ref(&tx)).await;
    federation.round(&[]).await;
    let notes = federation.collect(tx.txid(ID), &requests).await;
    let wanted = [requests[1].blinded_nonce(), unused.blinded_nonce(), requests[0].blinded_nonce()];
    let answer = federation.call(1, "issued", &[], json!({ "blinded_nonces": wanted })).await.unwrap();
    let outcome = federation.outcome(OutPoint { txid: tx.txid(ID), index: 1 }).await.unwrap();
    assert_eq!(
        answer["notes"][0],
        json!({ "txid": tx.txid(ID), "index": 1, "denomination": 2, "outcome": outcome })
    );
    assert_eq!(answer["notes"][1], Value::Null);
    assert_eq!(answer["notes"][2]["denomination"], 1);
    for bad in
        [json!({}), json!({ "blinded_nonces": ["00"] }), json!({ "blinded_nonces": vec![wanted[0]; 513] })]
    {
        assert_eq!(federation.call(1, "issued", &[], bad).await.unwrap_err().status, 400);
    }

    let nonce = notes[0].nonce().to_string();
    let prefix = [("prefix", &nonce[..4])];
    let answer = federation.call(2, "spent", &prefix, Value::Null).await.unwrap();
    assert_eq!(answer, json!({ "nonces": [], "more": false }));
    federation.round(&[transaction(&[&notes[0]], &[unused])]).await;
    let answer = federation.call(2, "spent", &prefix, Value::Null).await.unwrap();
    assert_eq!(answer, json!({ "nonces": [nonce], "more": false }));
    let after = [prefix[0], ("after", nonce.as_str())];
    assert_eq!(federation.call(2, "spent", &after, Value::Null).await.unwrap()["nonces"], json!([]));
    for bad in ["", "f", "zz", "0011223344"] {
        assert_eq!(
            federation.call(2, "spent", &[("prefix", bad)], Value::Null).await.unwrap_err().status,
            400
        );
    }
}

#[tokio::test]
async fn the_books_are_open() {
    let mut federation = Federation::new(4, MintParams::default());
    let notes = federation.issue(&[3, 3, 9]).await;
    let request = federation.request(2);
    federation.round(&[transaction(&[&notes[0]], &[request])]).await;
    let books = federation.call(3, "audit", &[], Value::Null).await.unwrap();
    assert_eq!((&books["issued_msat"], &books["spent_msat"]), (&json!(532), &json!(8)));
    assert_eq!(books["outstanding_msat"], 524);
    assert_eq!(
        books["denominations"][1],
        json!({ "denomination": 3, "amount_msat": 8, "issued": 2, "spent": 1 })
    );
}

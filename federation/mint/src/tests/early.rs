//! The way around the outcome: shares as soon as a transaction is accepted, and what a client makes of them.

use std::collections::BTreeMap;
use std::time::Duration;

use federation_core::{OutPoint, PeerId};
use federation_tbs::{SecretKeyShare, sign};
use proptest::prelude::*;
use serde_json::Value;

use super::federation::{Federation, ID, transaction};
use crate::client::{NoteRequest, SharesAnswer, finish_early};
use crate::{MintError, MintParams, PointBytes};

type Shares = BTreeMap<PeerId, PointBytes>;

/// Asks, and is known to wait.
async fn waiting(
    federation: &Federation,
    guardian: usize,
    txid: &str,
    seconds: &str,
) -> tokio::task::JoinHandle<Result<SharesAnswer, u16>> {
    let asking = federation.asking(guardian, "shares", &[("txid", txid), ("wait", seconds)], Value::Null);
    let asking = tokio::spawn(async move {
        let answer = asking.await.map_err(|error| error.status)?;
        Ok(serde_json::from_value(answer).unwrap())
    });
    // Long enough to have looked into a database in memory.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!asking.is_finished());
    asking
}

#[tokio::test]
async fn who_waits_is_answered_by_the_epoch_that_accepts() {
    let mut federation = Federation::new(4, MintParams::default());
    let requests: Vec<_> = (0..3).map(|exponent| federation.request(exponent)).collect();
    let tx = transaction(&[], &requests);
    let txid = tx.txid(ID).to_string();
    let mut waiters = Vec::new();
    for guardian in 0..4 {
        waiters.push(waiting(&federation, guardian, &txid, "600").await);
    }
    // An epoch for others.
    let other = [federation.request(1)];
    federation.round(&[transaction(&[], &other)]).await;
    assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
    federation.round(&[tx]).await;
    let mut shares = vec![Shares::new(); 3];
    for (guardian, waiter) in (0u16..).zip(waiters) {
        let answer = waiter.await.unwrap().unwrap();
        assert!(answer.outcomes.is_empty());
        assert_eq!(answer.shares.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
        // What it proposes is the same.
        let item = &federation.proposals().await[&PeerId(guardian)];
        for (index, share) in answer.shares {
            shares[usize::from(index)].insert(PeerId(guardian), share);
            let point = OutPoint { txid: txid.parse().unwrap(), index };
            assert_eq!(item.0.iter().find(|said| said.point == point).unwrap().share, share);
        }
    }
    let asked: Vec<_> = requests.iter().zip(&shares).collect();
    let early: Vec<_> =
        finish_early(&asked, &federation.config).into_iter().map(|early| early.note.unwrap()).collect();
    // Spent before they have an outcome anywhere.
    let change = [federation.request(2)];
    let spend = transaction(&early.iter().take(2).collect::<Vec<_>>(), &change);
    assert_eq!(federation.round(&[spend]).await, [Ok(())]);
    assert_eq!(federation.collect(txid.parse().unwrap(), &requests).await, early);
}

#[tokio::test]
async fn of_epochs_that_are_committed_together_those_who_wait_get_the_signature() {
    let mut federation = Federation::new(4, MintParams::default());
    let requests = [federation.request(3)];
    let tx = transaction(&[], &requests);
    let txid = tx.txid(ID);
    let waiter = waiting(&federation, 2, &txid.to_string(), "600").await;
    federation.tells = false;
    federation.round(&[tx]).await;
    federation.tells = true;
    federation.round(&[]).await;
    let answer = waiter.await.unwrap().unwrap();
    assert!(answer.shares.is_empty());
    let outcome = federation.outcome(OutPoint { txid, index: 0 }).await.unwrap();
    assert_eq!(answer.outcomes, BTreeMap::from([(0, PointBytes(outcome.to_bytes()))]));
}

#[tokio::test]
async fn waiting_has_an_end() {
    let federation = Federation::new(4, MintParams::default());
    let txid = "00".repeat(32);
    let waiter = waiting(&federation, 0, &txid, "1").await;
    assert_eq!(waiter.await.unwrap(), Err(404));
    for (name, value) in [("wait", "soon"), ("wait", "-1"), ("index", "70000"), ("txid", "00")] {
        let mut query = BTreeMap::from([("txid", txid.as_str()), ("wait", "0")]);
        query.insert(name, value);
        let query: Vec<_> = query.into_iter().collect();
        let error = federation.call(0, "shares", &query, Value::Null).await.unwrap_err();
        assert_eq!((error.status, error.code.as_str()), (400, "bad_parameter"), "{name}={value}");
    }
}

/// In each way that there is.
fn spoiled(way: usize, share: PointBytes, others: &Shares, request: &NoteRequest) -> PointBytes {
    match way % 5 {
        0 => PointBytes(
            sign(request.blinded_nonce(), &SecretKeyShare::from_bytes(&[5; 32]).unwrap()).to_bytes(),
        ),
        1 => PointBytes([0x55; 48]),
        2 => {
            let mut identity = [0; 48];
            identity[0] = 0xc0;
            PointBytes(identity)
        }
        // Another guardian's.
        3 => others.values().copied().find(|other| *other != share).unwrap(),
        // With another sign: so two that cancel out can be made.
        _ => {
            let mut bytes = share.0;
            bytes[0] ^= 0x20;
            PointBytes(bytes)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn whoever_lies_the_notes_are_those_of_the_outcomes(
        answering in proptest::collection::btree_set(0..4u16, 3..=4),
        lies in proptest::collection::vec((0..4u16, 0..3usize, 0..5usize), 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut federation = Federation::new(4, MintParams::default());
            let requests: Vec<_> = [4, 4, 0].iter().map(|exponent| federation.request(*exponent)).collect();
            let tx = transaction(&[], &requests);
            let txid = tx.txid(ID);
            federation.round(&[tx]).await;
            let items = federation.proposals().await;
            let right: Vec<Shares> = (0..3)
                .map(|index| {
                    let of = |peer: &u16| items[&PeerId(*peer)].0.iter().find(|said| said.point.index == index);
                    answering.iter().map(|peer| (PeerId(*peer), of(peer).unwrap().share)).collect()
                })
                .collect();
            let mut said = right.clone();
            for (peer, index, way) in lies {
                if let Some(share) = right[index].get(&PeerId(peer)) {
                    said[index].insert(PeerId(peer), spoiled(way, *share, &right[index], &requests[index]));
                }
            }
            federation.round(&[]).await;
            let notes = federation.collect(txid, &requests).await;
            let asked: Vec<_> = requests.iter().zip(&said).collect();
            for (place, early) in finish_early(&asked, &federation.config).into_iter().enumerate() {
                let liars: Vec<_> = answering
                    .iter()
                    .map(|peer| PeerId(*peer))
                    .filter(|peer| said[place][peer] != right[place][peer])
                    .collect();
                prop_assert!(early.wrong.iter().all(|wrong| liars.contains(wrong)));
                if answering.len() - liars.len() >= 3 {
                    prop_assert_eq!(&early.note.unwrap(), &notes[place]);
                } else {
                    let too_few = matches!(early.note, Err(MintError::NotEnoughShares { need: 3, .. }));
                    prop_assert!(too_few);
                    // Whoever had to be looked at has a name.
                    prop_assert!(!early.wrong.is_empty() || liars.is_empty());
                }
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn federations_of_other_sizes() {
    for n in [1, 7] {
        let mut federation = Federation::new(n, MintParams::default());
        let requests = [federation.request(0), federation.request(9)];
        let tx = transaction(&[], &requests);
        let txid = tx.txid(ID).to_string();
        federation.round(&[tx]).await;
        let mut shares = vec![Shares::new(); 2];
        // The last ones, so that Lagrange coefficients are not those of the first set.
        for guardian in (n - usize::from(federation.config.threshold))..n {
            let answer = federation.call(guardian, "shares", &[("txid", &txid)], Value::Null).await.unwrap();
            let answer: SharesAnswer = serde_json::from_value(answer).unwrap();
            for (index, share) in answer.shares {
                shares[usize::from(index)].insert(PeerId(guardian as u16), share);
            }
        }
        let asked: Vec<_> = requests.iter().zip(&shares).collect();
        let early: Vec<_> =
            finish_early(&asked, &federation.config).into_iter().map(|early| early.note.unwrap()).collect();
        federation.round(&[]).await;
        assert_eq!(federation.collect(txid.parse().unwrap(), &requests).await, early);
        // One too few.
        shares[0].pop_first();
        let early = finish_early(&[(&requests[0], &shares[0])], &federation.config).remove(0);
        assert!(matches!(early.note, Err(MintError::NotEnoughShares { .. })));
    }
}

//! The queue alone: who shares a batch, and what becomes of them.

use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use federation_core::db::DbError;
use federation_core::{FederationId, Input, ModuleId, Output, Transaction};
use tokio::sync::oneshot;

use super::entries::{MAX_BYTES, MAX_ENTRIES};
use super::submissions::{BATCH_BYTES, BATCH_PARTS, Batch, Submissions, TooMany};

type Verdict = Option<u32>;
type Receiver = oneshot::Receiver<Result<Verdict, DbError>>;

fn transaction(number: u32, inputs: usize) -> Transaction {
    let key = Keypair::from_secret_key(SECP256K1, &SecretKey::from_slice(&[1; 32]).unwrap());
    let body = number.to_be_bytes().to_vec();
    let input = Input { module: ModuleId(0), key: key.x_only_public_key().0, body };
    let output = Output { module: ModuleId(0), body: Vec::new() };
    Transaction::sign(FederationId([7; 32]), vec![input; inputs], vec![output], &vec![key; inputs])
}

fn number(transaction: &Transaction) -> u32 {
    u32::from_be_bytes(transaction.inputs[0].body.clone().try_into().unwrap())
}

fn hash(number: u32) -> [u8; 32] {
    std::array::from_fn(|place| number.to_be_bytes().get(place).copied().unwrap_or_default())
}

fn push(submissions: &Submissions<Verdict>, number: u32) -> (Receiver, bool) {
    submissions.push(hash(number), transaction(number, 1), 100).unwrap()
}

fn numbers(batch: &Batch<Verdict>) -> Vec<u32> {
    batch.transactions.iter().map(|(_, transaction)| number(transaction)).collect()
}

/// Everybody's own number, but for odd ones.
fn even(transactions: Vec<([u8; 32], Transaction)>) -> Vec<Verdict> {
    let number = |(_, transaction): ([u8; 32], Transaction)| Some(number(&transaction));
    transactions.into_iter().map(number).map(|number| number.filter(|number| number % 2 == 0)).collect()
}

#[test]
fn the_first_starts_at_once_and_who_comes_meanwhile_shares_a_batch() {
    let submissions = Submissions::default();
    let (mut first, takes) = push(&submissions, 0);
    assert!(takes);
    let alone = submissions.next().unwrap();
    assert_eq!(numbers(&alone), [0]);
    let mut others: Vec<_> = (1..6).map(|number| push(&submissions, number)).collect();
    assert!(others.iter().all(|(_, takes)| !takes), "somebody is at it already");
    alone.verify(even);
    assert_eq!(first.try_recv().unwrap().unwrap(), Some(0));
    let batch = submissions.next().unwrap();
    assert_eq!(numbers(&batch), [1, 2, 3, 4, 5]);
    batch.verify(even);
    for (number, (verdict, _)) in (1..6).zip(&mut others) {
        // Everybody has the verdict on the own one.
        assert_eq!(verdict.try_recv().unwrap().unwrap(), (number % 2 == 0).then_some(number));
    }
    assert!(submissions.next().is_none());
    assert!(push(&submissions, 7).1, "after a pause there is a first one again");
}

#[test]
fn the_same_one_is_verified_once_for_all_who_ask() {
    let submissions = Submissions::default();
    let mut verdicts: Vec<_> = [2, 4, 2, 2].into_iter().map(|number| push(&submissions, number).0).collect();
    let batch = submissions.next().unwrap();
    assert_eq!(numbers(&batch), [2, 4]);
    batch.verify(even);
    let verdicts: Vec<_> = verdicts.iter_mut().map(|verdict| verdict.try_recv().unwrap().unwrap()).collect();
    assert_eq!(verdicts, [Some(2), Some(4), Some(2), Some(2)]);
}

#[test]
fn who_hangs_up_costs_nothing_and_takes_nobody_along() {
    let submissions = Submissions::default();
    let mut verdicts: Vec<_> = (0..6).map(|number| Some(push(&submissions, number).0)).collect();
    verdicts[0] = None;
    verdicts[3] = None;
    let batch = submissions.next().unwrap();
    assert_eq!(numbers(&batch), [1, 2, 4, 5]);
    verdicts[4] = None;
    batch.verify(even);
    for (number, verdict) in (0..6).zip(verdicts) {
        let Some(mut verdict) = verdict else { continue };
        assert_eq!(verdict.try_recv().unwrap().unwrap(), (number % 2 == 0).then_some(number));
    }
    drop(push(&submissions, 8));
    assert!(submissions.next().is_none(), "nobody is left");
    assert!(push(&submissions, 9).1);
}

#[test]
fn a_panic_is_for_who_caused_it() {
    let submissions = Submissions::default();
    let mut verdicts: Vec<_> = [2, 4, 6].into_iter().map(|number| push(&submissions, number).0).collect();
    submissions.next().unwrap().verify(|transactions| {
        assert!(!transactions.iter().any(|(_, transaction)| number(transaction) == 4), "on purpose");
        even(transactions)
    });
    let verdicts: Vec<_> = verdicts.iter_mut().map(|verdict| verdict.try_recv().unwrap().ok()).collect();
    assert_eq!(verdicts, [Some(Some(2)), None, Some(Some(6))]);
}

#[test]
fn batches_are_bounded() {
    let submissions = Submissions::<Verdict>::default();
    let push =
        |number, inputs, size| submissions.push(hash(number), transaction(number, inputs), size).unwrap().0;
    let mut kept: Vec<_> = (0..BATCH_PARTS as u32).map(|number| push(number, 1, 100)).collect();
    // Larger than a batch: alone, and not together with what comes after it.
    kept.push(push(1000, BATCH_PARTS, 100));
    kept.push(push(1001, 1, 100));
    kept.push(push(1002, 1, BATCH_BYTES - 100));
    kept.push(push(1003, 1, 1));
    kept.push(push(1004, 1, BATCH_BYTES * 2));
    let mut sizes = Vec::new();
    while let Some(batch) = submissions.next() {
        sizes.push(batch.transactions.len());
    }
    assert_eq!(sizes, [BATCH_PARTS / 2, BATCH_PARTS / 2, 1, 2, 1, 1]);
}

#[test]
fn what_waits_is_bounded_and_has_room_again_later() {
    let submissions = Submissions::<Verdict>::default();
    let one = transaction(0, 1);
    let mut kept: Vec<_> = (0..MAX_ENTRIES as u32)
        .map(|number| submissions.push(hash(number), one.clone(), 1).unwrap())
        .collect();
    assert_eq!(submissions.push(hash(u32::MAX), one.clone(), 1).unwrap_err(), TooMany);
    assert_eq!(submissions.next().unwrap().transactions.len(), BATCH_PARTS / 2);
    kept.push(submissions.push(hash(u32::MAX), one.clone(), 1).unwrap());
    while submissions.next().is_some() {}
    kept.push(submissions.push(hash(1), one.clone(), MAX_BYTES).unwrap());
    assert_eq!(submissions.push(hash(2), one.clone(), 1).unwrap_err(), TooMany);
    // Those who hung up make room, too.
    kept.clear();
    assert!(submissions.next().is_none());
    assert!(submissions.push(hash(3), one, MAX_BYTES).is_ok());
}

//! The queue alone: who shares a batch, and what becomes of them.

use std::sync::Arc;

use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use federation_core::db::DbError;
use federation_core::{FederationId, Input, ModuleId, Output, Transaction};
use tokio::sync::oneshot;

use super::submissions::{
    BATCH_BYTES, BATCH_PARTS, Batch, LANE_BYTES, LANE_PARTS, SMALL_PARTS, Submissions, TooMany, Turn,
};

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

fn push(submissions: &Arc<Submissions<Verdict>>, number: u32) -> (Receiver, Option<Turn<Verdict>>) {
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
    let submissions = Arc::default();
    let (mut first, turn) = push(&submissions, 0);
    let mut turn = turn.unwrap();
    let alone = turn.next().unwrap();
    assert_eq!(numbers(&alone), [0]);
    let mut others: Vec<_> = (1..6).map(|number| push(&submissions, number)).collect();
    assert!(others.iter().all(|(_, turn)| turn.is_none()), "somebody is at it already");
    alone.verify(even);
    assert_eq!(first.try_recv().unwrap().unwrap(), Some(0));
    let batch = turn.next().unwrap();
    assert_eq!(numbers(&batch), [1, 2, 3, 4, 5]);
    batch.verify(even);
    for (number, (verdict, _)) in (1..6).zip(&mut others) {
        // Everybody has the verdict on the own one.
        assert_eq!(verdict.try_recv().unwrap().unwrap(), (number % 2 == 0).then_some(number));
    }
    assert!(turn.next().is_none());
    let (_verdict, again) = push(&submissions, 7);
    drop(turn);
    let mut again = again.expect("after a pause there is a first one again");
    assert_eq!(numbers(&again.next().unwrap()), [7]);
}

#[test]
fn the_same_one_is_verified_once_for_all_who_ask() {
    let submissions = Arc::default();
    let (mut verdicts, mut turn) = pushed(&submissions, &[2, 4, 2, 2]);
    let batch = turn.next().unwrap();
    assert_eq!(numbers(&batch), [2, 4]);
    batch.verify(even);
    let verdicts: Vec<_> = verdicts.iter_mut().map(|verdict| verdict.try_recv().unwrap().unwrap()).collect();
    assert_eq!(verdicts, [Some(2), Some(4), Some(2), Some(2)]);
}

#[test]
fn who_hangs_up_costs_nothing_and_takes_nobody_along() {
    let submissions = Arc::default();
    let (verdicts, mut turn) = pushed(&submissions, &[0, 1, 2, 3, 4, 5]);
    let mut verdicts: Vec<_> = verdicts.into_iter().map(Some).collect();
    verdicts[0] = None;
    verdicts[3] = None;
    let batch = turn.next().unwrap();
    assert_eq!(numbers(&batch), [1, 2, 4, 5]);
    verdicts[4] = None;
    batch.verify(even);
    for (number, verdict) in (0..6).zip(verdicts) {
        let Some(mut verdict) = verdict else { continue };
        assert_eq!(verdict.try_recv().unwrap().unwrap(), (number % 2 == 0).then_some(number));
    }
    drop(push(&submissions, 8));
    assert!(turn.next().is_none(), "nobody is left");
    assert!(push(&submissions, 9).1.is_some());
}

#[test]
fn a_panic_is_for_who_caused_it() {
    let submissions = Arc::default();
    let (mut verdicts, mut turn) = pushed(&submissions, &[2, 4, 6]);
    turn.next().unwrap().verify(|transactions| {
        assert!(!transactions.iter().any(|(_, transaction)| number(transaction) == 4), "on purpose");
        even(transactions)
    });
    let verdicts: Vec<_> = verdicts.iter_mut().map(|verdict| verdict.try_recv().unwrap().ok()).collect();
    assert_eq!(verdicts, [Some(Some(2)), None, Some(Some(6))]);
}

#[test]
fn who_cannot_take_the_batches_leaves_the_duty_to_the_next() {
    let submissions = Arc::default();
    let (mut verdicts, turn) = pushed(&submissions, &[2, 4]);
    drop(turn);
    assert!(verdicts.iter_mut().all(|verdict| verdict.try_recv().is_err()), "nobody waits for ever");
    let (_verdict, turn) = push(&submissions, 6);
    assert_eq!(numbers(&turn.unwrap().next().unwrap()), [6]);
}

/// Pushes transactions with so many inputs of this size.
fn push_all(
    submissions: &Arc<Submissions<Verdict>>,
    all: impl IntoIterator<Item = (u32, usize, usize)>,
) -> (Vec<Receiver>, Turn<Verdict>) {
    let push =
        |(number, inputs, size)| submissions.push(hash(number), transaction(number, inputs), size).unwrap();
    let (verdicts, turns): (Vec<_>, Vec<_>) = all.into_iter().map(push).unzip();
    (verdicts, turns.into_iter().flatten().next().unwrap())
}

fn pushed(submissions: &Arc<Submissions<Verdict>>, all: &[u32]) -> (Vec<Receiver>, Turn<Verdict>) {
    push_all(submissions, all.iter().map(|number| (*number, 1, 100)))
}

#[test]
fn batches_are_bounded() {
    let submissions = Arc::default();
    let small = |number| (number, 1, 100);
    let (_kept, mut turn) = push_all(
        &submissions,
        (0..BATCH_PARTS as u32).map(small).chain([
            small(1001),
            (1002, 1, BATCH_BYTES - 100),
            (1003, 1, 1),
            (1004, 1, BATCH_BYTES * 2),
        ]),
    );
    let mut sizes = Vec::new();
    while let Some(batch) = turn.next() {
        sizes.push(batch.transactions.len());
    }
    assert_eq!(sizes, [BATCH_PARTS / 2, BATCH_PARTS / 2, 2, 1, 1]);
}

#[test]
fn small_ones_and_large_ones_take_turns() {
    let submissions = Arc::default();
    let large = |number| (number, SMALL_PARTS, 100);
    let alone = |number| (number, BATCH_PARTS, 100);
    let (_kept, mut turn) = push_all(
        &submissions,
        (0..10).map(alone).chain((10..20).map(large)).chain((20..120).map(|number| (number, 1, 100))),
    );
    let mut batches = Vec::new();
    while let Some(batch) = turn.next() {
        let numbers = numbers(&batch);
        batches.push((numbers[0], numbers.len()));
    }
    // (0 has 129 parts, and the small ones 2 each.)
    assert_eq!(batches[..4], [(0, 1), (20, 64), (84, 36), (1, 1)]);
    assert_eq!(batches[4..12], [2, 3, 4, 5, 6, 7, 8, 9].map(|number| (number, 1)));
    assert_eq!(batches[12..], [(10, 7), (17, 3)]);
}

#[test]
fn small_ones_are_given_as_much_as_large_ones_take() {
    let submissions = Arc::default();
    let (_kept, mut turn) = push_all(
        &submissions,
        (0..3).map(|number| (number, 4 * BATCH_PARTS, 100)).chain((10..1000).map(|number| (number, 1, 100))),
    );
    let mut small = 0;
    let mut between = Vec::new();
    while let Some(batch) = turn.next() {
        if numbers(&batch)[0] < 10 {
            between.push(std::mem::take(&mut small));
        } else {
            small += batch.transactions.len() * 2;
        }
    }
    assert_eq!(between, [0, 5 * BATCH_PARTS, 5 * BATCH_PARTS]);
}

#[test]
fn what_waits_is_bounded_and_has_room_again_later() {
    let submissions = Arc::default();
    let count = LANE_PARTS as u32 / 2;
    let (mut kept, mut turn) = push_all(&submissions, (0..count).map(|number| (number, 1, 1)));
    let push = |number, inputs, size| submissions.push(hash(number), transaction(number, inputs), size);
    assert_eq!(push(count, 1, 1).err(), Some(TooMany));
    kept.push(push(count, SMALL_PARTS, 1).unwrap().0);
    assert_eq!(numbers(&turn.next().unwrap()), [count]);
    assert_eq!(turn.next().unwrap().transactions.len(), BATCH_PARTS / 2);
    kept.push(push(count, 1, 1).unwrap().0);
    while turn.next().is_some() {}
    // The first may be as large as it likes.
    let (first, turn) = push(1, 1, LANE_BYTES * 2).unwrap();
    let mut turn = turn.unwrap();
    assert_eq!(push(2, 1, 1).err(), Some(TooMany));
    // Those who hung up make room at once.
    drop(first);
    let (_kept, none) = push(3, 1, LANE_BYTES).unwrap();
    assert!(none.is_none());
    assert_eq!(numbers(&turn.next().unwrap()), [3]);
    assert!(turn.next().is_none());
}

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::request::tests::params;
use super::*;

const HASH: PaymentHash = [7; 32];
const SECRET: u8 = 9;

fn invoice(state: LiveState) -> LiveInvoice {
    LiveInvoice { payment_hash: HASH, amount_msat: 1000, payment_secret: [SECRET; 32], expires_at: 0, state }
}

fn request(id: u64, amount: u64, total: u64, left: i64) -> HtlcRequest {
    HtlcRequest::read(&params(7, SECRET, id, amount, total, left)).unwrap()
}

fn open() -> Resolver {
    let mut resolver = Resolver::default();
    resolver.put(invoice(LiveState::Open));
    resolver
}

fn hold(resolver: &mut Resolver) {
    let state = LiveState::Held { parts: resolver.parts(&HASH) };
    resolver.put(invoice(state));
}

fn settle(resolver: &mut Resolver) -> Answers {
    let state = LiveState::Settled { preimage: [3; 32], parts: resolver.parts(&HASH), at: 0 };
    resolver.put(invoice(state));
    resolver.claim(&HASH)
}

fn failed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Now(Answer::Fail(_)))
}

#[test]
fn one_part() {
    let now = Instant::now();
    let mut resolver = open();
    let outcome = resolver.htlc(HASH, request(0, 1000, 1000, 120), b"a".to_vec(), now);
    assert_eq!(outcome, Outcome::Complete(HASH));
    assert!(resolver.held().is_empty(), "reported before it is on disk");
    hold(&mut resolver);
    let held = HeldSet { payment_hash: HASH, amount_msat: 1000, claim_deadline: 1000 + 120 - 24 };
    assert_eq!(resolver.held(), [held]);
    assert_eq!(settle(&mut resolver), [(b"a".to_vec(), Answer::Resolve([3; 32]))]);
    assert!(resolver.held().is_empty());
    // lightningd asks again after a crash; a second payment is not taken.
    let again = resolver.htlc(HASH, request(0, 1000, 1000, 100), b"b".to_vec(), now);
    assert_eq!(again, Outcome::Now(Answer::Resolve([3; 32])));
    assert!(failed(&resolver.htlc(HASH, request(1, 1000, 1000, 120), b"c".to_vec(), now)));
}

#[test]
fn many_parts() {
    let now = Instant::now();
    let mut resolver = open();
    assert_eq!(resolver.htlc(HASH, request(0, 400, 1000, 120), b"a".to_vec(), now), Outcome::Held);
    assert_eq!(resolver.htlc(HASH, request(0, 400, 1000, 120), b"a2".to_vec(), now), Outcome::Held);
    assert!(failed(&resolver.htlc(HASH, request(1, 600, 1100, 120), b"b".to_vec(), now)));
    assert!(failed(&resolver.htlc(HASH, request(2, 600, 1000, 59), b"c".to_vec(), now)));
    assert_eq!(resolver.htlc(HASH, request(3, 600, 1000, 120), b"d".to_vec(), now), Outcome::Complete(HASH));
    assert!(failed(&resolver.htlc(HASH, request(4, 600, 1000, 120), b"e".to_vec(), now)));
    hold(&mut resolver);
    let ids: BTreeSet<_> = settle(&mut resolver).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [b"a".to_vec(), b"a2".to_vec(), b"d".to_vec()].into());
}

#[test]
fn an_incomplete_set_is_given_up() {
    let now = Instant::now();
    let mut resolver = open();
    resolver.htlc(HASH, request(0, 400, 1000, 120), b"a".to_vec(), now);
    assert!(resolver.tick(now + Duration::from_secs(59)).0.is_empty());
    let (answers, expired) = resolver.tick(now + SET_TIMEOUT);
    assert_eq!(answers, [(b"a".to_vec(), Answer::Fail(Failure::MppTimeout))]);
    assert!(expired.is_empty());
    // The payer tries again.
    let later = now + Duration::from_secs(100);
    assert_eq!(
        resolver.htlc(HASH, request(5, 1000, 1000, 120), b"b".to_vec(), later),
        Outcome::Complete(HASH)
    );
    assert!(resolver.tick(later + SET_TIMEOUT).0.is_empty());
}

#[test]
fn a_held_set_survives_a_restart_and_fails_at_its_deadline() {
    let now = Instant::now();
    let mut before = open();
    before.htlc(HASH, request(0, 1000, 1000, 120), b"a".to_vec(), now);
    let state = LiveState::Held { parts: before.parts(&HASH) };
    let mut resolver = Resolver::default();
    resolver.put(invoice(state));
    // Few blocks left, and the channel goes by another name: it may be funded, so it is held on.
    let mut params = params(7, SECRET, 0, 1000, 1000, 120);
    params["htlc"]["short_channel_id"] = "900x1x1".into();
    params["htlc"]["cltv_expiry_relative"] = 30.into();
    let again = HtlcRequest::read(&params).unwrap();
    assert_eq!(resolver.htlc(HASH, again, b"b".to_vec(), now), Outcome::Held);
    assert_eq!(resolver.held().len(), 1);
    assert!(failed(&resolver.htlc(HASH, request(1, 1000, 1000, 120), b"c".to_vec(), now)));
    resolver.set_height(1096);
    assert!(resolver.tick(now).0.is_empty());
    resolver.set_height(1097);
    let (answers, expired) = resolver.tick(now);
    assert!(matches!(answers[..], [(_, Answer::Fail(Failure::UnknownPayment { height: 1097, .. }))]));
    assert_eq!(expired, [HASH]);
    assert!(resolver.tick(now).0.is_empty());
}

#[test]
fn forwards_and_strangers_are_left_alone() {
    let now = Instant::now();
    let mut resolver = open();
    let mut params = params(7, SECRET, 0, 1000, 1000, 120);
    params["onion"]["short_channel_id"] = "1x1x1".into();
    let forward = HtlcRequest::read(&params).unwrap();
    assert_eq!(resolver.htlc(HASH, forward, b"a".to_vec(), now), Outcome::Now(Answer::Continue));
    let stranger = resolver.htlc([8; 32], request(0, 1000, 1000, 120), b"b".to_vec(), now);
    assert_eq!(stranger, Outcome::Now(Answer::Continue));
}

#[test]
fn stopping() {
    let now = Instant::now();
    let mut resolver = open();
    resolver.htlc(HASH, request(0, 400, 1000, 120), b"a".to_vec(), now);
    assert_eq!(resolver.stop(), [(b"a".to_vec(), Answer::Fail(Failure::Stopping))]);
    assert!(failed(&resolver.htlc(HASH, request(1, 400, 1000, 120), b"b".to_vec(), now)));
    let mut resolver = open();
    resolver.htlc(HASH, request(0, 1000, 1000, 120), b"a".to_vec(), now);
    hold(&mut resolver);
    assert!(resolver.stop().is_empty());
    assert_eq!(resolver.fail_all().len(), 1);
    assert!(matches!(resolver.get(&HASH).unwrap().state, LiveState::Held { .. }));
}

#[derive(Debug, Clone)]
enum Step {
    Htlc { htlc: u64, amount: u64, total: u64, left: i64, secret: u8 },
    Hold,
    Settle,
    Remove,
    Reopen,
    Tick(u64),
    Height(u32),
    Stop,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..6u64, 1..1200u64, prop_oneof![4 => Just(1000u64), 1 => 500..2500u64],
              prop_oneof![4 => 60..200i64, 1 => -20..60i64], prop_oneof![5 => Just(SECRET), 1 => Just(1)])
            .prop_map(|(htlc, amount, total, left, secret)| Step::Htlc { htlc, amount, total, left, secret }),
        2 => Just(Step::Hold),
        1 => Just(Step::Settle),
        1 => Just(Step::Remove),
        1 => Just(Step::Reopen),
        2 => (0..100u64).prop_map(Step::Tick),
        1 => (900..1300u32).prop_map(Step::Height),
        1 => Just(Step::Stop),
    ]
}

proptest! {
    /// Every request is answered exactly once, nothing is claimed for less than the invoice's amount,
    /// and never after a part of the set was failed.
    #[test]
    fn whatever_happens(steps in proptest::collection::vec(any_step(), 1..60)) {
        let mut now = Instant::now();
        let mut resolver = open();
        let mut asked = BTreeMap::new();
        let mut answered = BTreeMap::new();
        let mut claimed = 0u64;
        for (number, step) in steps.into_iter().enumerate() {
            let id = number.to_string().into_bytes();
            let mut answers = Vec::new();
            match step {
                Step::Htlc { htlc, amount, total, left, secret } => {
                    let read = HtlcRequest::read(&params(7, secret, htlc, amount, total, left)).unwrap();
                    asked.insert(id.clone(), (htlc, amount));
                    if let Outcome::Now(answer) = resolver.htlc(HASH, read, id.clone(), now) {
                        answers.push((id, answer));
                    }
                }
                Step::Hold if resolver.is_complete(&HASH) => hold(&mut resolver),
                Step::Settle if !resolver.held().is_empty() => {
                    let held = resolver.held()[0].amount_msat;
                    prop_assert!(held >= 1000);
                    claimed = held;
                    answers = settle(&mut resolver);
                }
                Step::Remove => answers = resolver.remove(&HASH),
                Step::Reopen if !resolver.knows(&HASH) => resolver.put(invoice(LiveState::Open)),
                Step::Tick(seconds) => {
                    now += Duration::from_secs(seconds);
                    let (given_up, expired) = resolver.tick(now);
                    answers = given_up;
                    for hash in expired {
                        answers.extend(resolver.remove(&hash));
                    }
                }
                Step::Height(height) => resolver.set_height(height),
                Step::Stop => answers = resolver.stop(),
                _ => {}
            }
            for (id, answer) in answers {
                if let Answer::Resolve(_) = answer {
                    prop_assert!(claimed >= 1000);
                }
                prop_assert!(asked.contains_key(&id));
                prop_assert!(answered.insert(id, answer).is_none(), "answered twice");
            }
        }
        for (id, answer) in resolver.fail_all() {
            prop_assert!(answered.insert(id, answer).is_none(), "answered twice");
        }
        prop_assert_eq!(answered.len(), asked.len(), "a request has no answer");
        prop_assert_eq!(resolver.waiting(), 0);
    }
}

//! What may wait in the pool, and that nobody starves there.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use federation_core::{Input, ModuleId, TxId};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::contribution::{MAX_TRANSACTION_COUNT, MAX_TRANSACTIONS};
use super::entries::{Candidate, Entries, MAX_BYTES, MAX_ENTRIES, MAX_SAME_KEY, NoRoom, Reserved};

fn hash(number: u64) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_be_bytes());
    hash
}

fn input(key: u8, body: u64) -> Input {
    let key = Keypair::from_secret_key(SECP256K1, &SecretKey::from_slice(&[key; 32]).unwrap());
    Input { module: ModuleId(0), key: key.x_only_public_key().0, body: body.to_be_bytes().to_vec() }
}

/// A transaction that is known by its first bytes and shares no input with others.
fn free(number: u64, size: usize) -> Candidate {
    let mut bytes = vec![0; size.max(8)];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Candidate::new(hash(number), TxId(hash(number)), bytes.into(), &[])
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(*bytes.first_chunk().unwrap())
}

fn add(entries: &mut Entries, candidate: Candidate) {
    let hash = candidate.hash;
    assert_eq!(entries.reserve(candidate), Ok(Reserved::New));
    assert!(entries.durable([hash]).is_empty());
}

fn draw(entries: &mut Entries, rng: &mut StdRng) -> Vec<u64> {
    entries.draw(rng, MAX_TRANSACTIONS, MAX_TRANSACTION_COUNT).iter().map(|bytes| number(bytes)).collect()
}

#[test]
fn one_entry_an_input() {
    let with = |number, inputs: &[Input]| {
        Candidate::new(hash(number), TxId(hash(number)), Arc::from(number.to_be_bytes()), inputs)
    };
    let mut entries = Entries::default();
    let first = || with(1, &[input(1, 1), input(2, 2)]);
    assert_eq!(entries.reserve(first()), Ok(Reserved::New));
    assert_eq!(entries.reserve(first()), Ok(Reserved::Soon), "the same again");
    assert!(!entries.contains(&TxId(hash(1))), "not durable yet, so not promised");
    assert!(entries.durable([hash(1)]).is_empty());
    assert_eq!(entries.reserve(first()), Ok(Reserved::Durable));
    assert!(entries.contains(&TxId(hash(1))));
    assert_eq!(entries.reserve(with(2, &[input(3, 3), input(2, 2)])), Err(NoRoom::InputInUse));
    // The same key with another body is another input: two deposits to one address.
    add(&mut entries, with(3, &[input(2, 3)]));
    entries.remove(&hash(1));
    add(&mut entries, with(2, &[input(3, 3), input(2, 2)]));
    assert_eq!(entries.len(), 2);
    // What went before it was durable is named, so that it leaves the disk, too.
    assert_eq!(entries.durable([hash(1), hash(2)]), vec![hash(1)]);
}

#[test]
fn entries_of_one_key_are_bounded_by_number_and_by_size() {
    let mut entries = Entries::default();
    let with = |number: u64, size: usize| {
        Candidate::new(hash(number), TxId(hash(number)), vec![0; size].into(), &[input(1, number)])
    };
    for number in 0..MAX_SAME_KEY as u64 {
        add(&mut entries, with(number, 10));
    }
    assert_eq!(entries.reserve(with(9999, 10)), Err(NoRoom::KeyInUse));
    entries.remove(&hash(0));
    add(&mut entries, with(9999, 10));
    let mut entries = Entries::default();
    for number in 0..4 {
        add(&mut entries, with(number, 450_000));
    }
    assert_eq!(entries.reserve(with(4, 450_000)), Err(NoRoom::KeyInUse));
    add(&mut entries, free(5, 450_000));
}

#[test]
fn the_pool_is_bounded() {
    let mut entries = Entries::default();
    for number in 0..MAX_ENTRIES as u64 {
        add(&mut entries, free(number, 10));
    }
    assert_eq!(entries.reserve(free(u64::MAX, 10)), Err(NoRoom::Full));
    let mut entries = Entries::default();
    let mut number = 0;
    while entries.reserve(free(number, 400_000)) == Ok(Reserved::New) {
        number += 1;
    }
    assert_eq!(number, MAX_BYTES as u64 / 400_000);
    assert!(entries.bytes() <= MAX_BYTES);
}

#[test]
fn all_that_fits_is_drawn_and_only_what_is_durable() {
    let mut entries = Entries::default();
    for number in 0..1000 {
        add(&mut entries, free(number, 300));
    }
    assert_eq!(entries.reserve(free(1000, 300)), Ok(Reserved::New));
    let drawn: BTreeSet<_> = draw(&mut entries, &mut StdRng::seed_from_u64(1)).into_iter().collect();
    assert_eq!(drawn, (0..1000).collect());
}

/// Somebody keeps the pool full, of entries of a size; how many decided draws until the newcomer is in?
fn draws_until_in(newcomer: usize, flood: usize, seed: u64) -> u32 {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut entries = Entries::default();
    let mut next = 1;
    let mut refill = |entries: &mut Entries| {
        while entries.reserve(free(next, flood)) == Ok(Reserved::New) {
            entries.durable([hash(next)]);
            next += 1;
        }
    };
    refill(&mut entries);
    entries.remove(&hash(1));
    // (Room for a large one.)
    for number in 2..=(newcomer / flood) as u64 + 2 {
        entries.remove(&hash(number));
    }
    add(&mut entries, free(0, newcomer));
    for draws in 1.. {
        refill(&mut entries);
        let drawn = draw(&mut entries, &mut rng);
        if drawn.contains(&0) {
            return draws;
        }
        for number in drawn {
            entries.remove(&hash(number));
        }
    }
    unreachable!()
}

#[test]
fn nobody_starves_behind_a_full_pool() {
    for (newcomer, flood) in
        [(300, 300), (450_000, 300), (450_000, 7_000), (300, 100_000), (300, 450_000), (450_000, 450_000)]
    {
        for seed in 0..2 {
            let draws = draws_until_in(newcomer, flood, seed);
            assert!(draws < 263, "{newcomer} bytes among {flood}: {draws} draws");
        }
    }
}

#[test]
fn a_newcomer_has_a_chance_at_once() {
    // A tenth of the pool fits into the random half of a contribution: so often a newcomer is drawn at once.
    let mut rng = StdRng::seed_from_u64(7);
    let mut entries = Entries::default();
    for number in 0..8_000 {
        add(&mut entries, free(number, 320));
    }
    let hits = (0..1000).filter(|_| draw(&mut entries, &mut rng).contains(&7_999)).count();
    assert!((70..160).contains(&hits), "{hits} of 1000");
}

#[derive(Clone, Debug)]
enum Step {
    Add(usize),
    Durable(prop::sample::Index),
    Remove(prop::sample::Index),
    Draw(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (8usize..3000).prop_map(Step::Add),
        4 => any::<prop::sample::Index>().prop_map(Step::Durable),
        2 => any::<prop::sample::Index>().prop_map(Step::Remove),
        2 => (3004usize..20_000, 1usize..50).prop_map(|(room, most)| Step::Draw(room, most)),
    ]
}

proptest! {
    #[test]
    fn draws_and_books_are_right_whatever_happens(steps in proptest::collection::vec(step(), 1..200)) {
        let mut rng = StdRng::seed_from_u64(3);
        let mut entries = Entries::default();
        // Number, size, durable; in order of age.
        let mut model: Vec<(u64, usize, bool)> = Vec::new();
        for (next, step) in (0..).zip(steps) {
            match step {
                Step::Add(size) => {
                    prop_assert_eq!(entries.reserve(free(next, size)), Ok(Reserved::New));
                    model.push((next, size, false));
                }
                Step::Durable(index) if !model.is_empty() => {
                    let entry = index.get(&model).0;
                    prop_assert!(entries.durable([hash(entry)]).is_empty());
                    model.iter_mut().filter(|(number, ..)| *number == entry).for_each(|entry| entry.2 = true);
                }
                Step::Remove(index) if !model.is_empty() => {
                    entries.remove(&hash(model.remove(index.index(model.len())).0));
                }
                Step::Draw(room, most) => {
                    let drawn = entries.draw(&mut rng, room, most);
                    prop_assert!(drawn.len() <= most);
                    prop_assert!(drawn.iter().map(|bytes| bytes.len() + 4).sum::<usize>() <= room);
                    let numbers: BTreeSet<_> = drawn.iter().map(|bytes| number(bytes)).collect();
                    prop_assert_eq!(numbers.len(), drawn.len());
                    let durable: Vec<_> = model.iter().filter(|entry| entry.2).collect();
                    prop_assert!(numbers.iter().all(|number| durable.iter().any(|entry| entry.0 == *number)));
                    prop_assert!(durable.first().is_none_or(|oldest| numbers.contains(&oldest.0)));
                    if durable.len() <= most && durable.iter().map(|entry| entry.1 + 4).sum::<usize>() <= room {
                        prop_assert_eq!(numbers.len(), durable.len());
                    }
                }
                Step::Durable(_) | Step::Remove(_) => {}
            }
            prop_assert_eq!(entries.len(), model.len());
            prop_assert_eq!(entries.ready(), model.iter().filter(|entry| entry.2).count());
            prop_assert_eq!(entries.bytes(), model.iter().map(|entry| entry.1).sum::<usize>());
        }
    }
}

//! Batches: the verdicts are those of single checks.

use crate::{
    BatchItem, BlindedMessage, BlindedSignature, PublicKey, SecretKeyShare, Signature, verify, verify_batch,
    verify_batch_on_pool, verify_blinded, verify_blinded_batch, verify_blinded_batch_on_pool,
};
use proptest::prelude::*;

/// Keys whose secret the test knows (a batch doesn't care how a key came to be).
fn secret(denomination: u8) -> SecretKeyShare {
    SecretKeyShare::from_bytes(&[denomination + 1; 32]).unwrap()
}

fn public(denomination: u8) -> PublicKey {
    PublicKey(secret(denomination).public().0)
}

struct Note {
    nonce: Vec<u8>,
    signature: Signature,
    key: PublicKey,
}

fn note(i: usize, denomination: u8) -> Note {
    let nonce = (i as u64).to_le_bytes().repeat(4);
    let signature = Signature(crate::Message::hash(&nonce).0.mul(&secret(denomination).0));
    Note { nonce, signature, key: public(denomination) }
}

fn notes(n: usize) -> Vec<Note> {
    (0..n).map(|i| note(i, (i % 8) as u8)).collect()
}

fn verdicts(notes: &[Note]) -> Vec<bool> {
    let items: Vec<_> =
        notes.iter().map(|n| BatchItem { message: &n.nonce, signature: &n.signature, key: &n.key }).collect();
    let valid = verify_batch(&items);
    assert_eq!(verify_batch_on_pool(&items), valid);
    valid
}

#[test]
fn good_batches_of_all_sizes() {
    assert!(verify_batch(&[]).is_empty());
    assert!(verify_blinded_batch(&[]).is_empty());
    for n in [1, 2, 3, 31, 64, 129, 256] {
        assert_eq!(verdicts(&notes(n)), vec![true; n]);
    }
}

#[test]
fn a_note_twice_is_valid_twice() {
    assert_eq!(verdicts(&[note(1, 1), note(1, 1), note(2, 1)]), [true; 3]);
}

#[test]
fn errors_that_cancel_out_are_found() {
    // Two signatures exchanged, and one moved by as much as another in the other direction: both keep the plain sum.
    let mut batch = notes(16);
    let (a, b) = (batch[0].signature.clone(), batch[8].signature.clone());
    (batch[0].signature, batch[8].signature) = (b, a);
    let expected: Vec<bool> = (0..16).map(|i| i % 8 != 0).collect();
    assert_eq!(verdicts(&batch), expected);
}

#[test]
fn one_bad_note_of_many_is_found_on_the_pool() {
    let mut batch = notes(200);
    batch[77].signature = batch[78].signature.clone();
    let expected: Vec<bool> = (0..200).map(|i| i != 77).collect();
    assert_eq!(verdicts(&batch), expected);
}

#[test]
fn bad_notes_cost_the_others_little() {
    let checks = |bad: &[usize]| {
        let mut batch = notes(64);
        for place in bad {
            batch[*place].nonce = b"other".to_vec();
        }
        let items: Vec<_> = batch
            .iter()
            .map(|n| BatchItem { message: &n.nonce, signature: &n.signature, key: &n.key })
            .collect();
        crate::batch::CHECKS.set(0);
        let valid = verify_batch(&items);
        assert_eq!(valid.iter().filter(|valid| !**valid).count(), bad.len());
        crate::batch::CHECKS.get()
    };
    assert_eq!(checks(&[]), 1);
    // Two halves of each of log₂ 64 parts at the most, and fewer where the bad half is known by the good one.
    for place in [0, 21, 42, 63] {
        assert!((7..=13).contains(&checks(&[place])), "{}", checks(&[place]));
    }
    assert!(checks(&[5, 40]) <= 25);
    // Whatever is in it: not twice what they cost one by one.
    assert_eq!(checks(&(0..64).collect::<Vec<_>>()), 2 * 64 - 1);
    assert!(checks(&(0..64).step_by(2).collect::<Vec<_>>()) < 2 * 64);
    assert!(checks(&(0..64).step_by(4).collect::<Vec<_>>()) < 2 * 64);
}

#[test]
fn a_note_of_another_denomination_is_bad() {
    let mut batch = notes(5);
    batch[3].key = public(7);
    assert_eq!(verdicts(&batch), [true, true, true, false, true]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn bad_ones_are_found_wherever_they_are(bad in prop::collection::vec(any::<bool>(), 1..24)) {
        let mut batch = notes(bad.len());
        for (i, (note, bad)) in batch.iter_mut().zip(&bad).enumerate() {
            if *bad {
                note.nonce = format!("other {i}").into_bytes();
            }
        }
        let expected: Vec<bool> = bad.iter().map(|bad| !bad).collect();
        prop_assert_eq!(verdicts(&batch), &expected[..]);
        let singly: Vec<bool> = batch.iter().map(|n| verify(&n.nonce, &n.signature, &n.key)).collect();
        prop_assert_eq!(singly, expected);

        let blinded: Vec<_> = batch
            .iter()
            .map(|n| {
                let message = BlindedMessage(crate::Message::hash(&n.nonce).0);
                (message, BlindedSignature(n.signature.0.clone()), n.key.clone())
            })
            .collect();
        let singly: Vec<bool> = blinded.iter().map(|(m, s, k)| verify_blinded(m, s, k)).collect();
        prop_assert_eq!(verify_blinded_batch_on_pool(&blinded), &singly[..]);
        prop_assert_eq!(verify_blinded_batch(&blinded), singly);
    }
}

//! Notes from blinding to verification, and plain signatures.

use std::collections::BTreeMap;

use super::{by_guardian, federation, subsets};
use crate::{
    BlindingKey, Message, TbsError, blind, combine, combine_message, sign, sign_message, threshold, unblind,
    verify, verify_blinded, verify_message, verify_message_share, verify_messages, verify_share,
};

#[test]
fn every_threshold_set_signs_and_no_smaller_one() {
    for n in 1..=10 {
        let (outputs, t) = (federation(n, 1), threshold(n));
        let keys = &outputs[0].keys[0];
        let key = BlindingKey::random(&mut rand::thread_rng());
        let blinded = blind(b"nonce", &key);
        let shares =
            by_guardian(&(0..n as u16).collect::<Vec<_>>(), |i| sign(&blinded, &outputs[i].keys[0].secret));
        for (i, share) in &shares {
            assert!(verify_share(&blinded, share, &keys.shares[usize::from(*i)]));
            assert_eq!(keys.shares[usize::from(*i)], outputs[usize::from(*i)].keys[0].secret.public());
        }
        let mut signatures = Vec::new();
        for set in subsets(n, t) {
            let combined = combine(&by_guardian(&set, |i| shares[&(i as u16)].clone()), t).unwrap();
            signatures.push(combined);
        }
        // BLS signatures are unique, so all sets must agree, and one check is enough.
        signatures.dedup();
        assert_eq!(signatures.len(), 1);
        assert!(verify_blinded(&blinded, &signatures[0], &keys.public));
        let signature = unblind(&signatures[0], &key);
        assert!(verify(b"nonce", &signature, &keys.public));
        assert!(!verify(b"other", &signature, &keys.public));

        let few = by_guardian(&(0..t as u16 - 1).collect::<Vec<_>>(), |i| shares[&(i as u16)].clone());
        assert_eq!(combine(&few, t), Err(TbsError::NotEnoughShares { have: t - 1, need: t }));
        // Pretending a smaller threshold gives something, but no signature.
        if t > 1
            && let Ok(wrong) = combine(&few, t - 1)
        {
            assert!(!verify_blinded(&blinded, &wrong, &keys.public));
        }
    }
}

#[test]
fn twenty_guardians_sign() {
    let outputs = federation(20, 1);
    let keys = &outputs[0].keys[0];
    let key = BlindingKey::random(&mut rand::thread_rng());
    let blinded = blind(b"nonce", &key);
    let set: Vec<u16> = (0..20).filter(|i| i % 3 != 1).collect();
    assert_eq!(set.len(), 13);
    let set = [set, vec![19]].concat().into_iter().chain([1]).collect::<Vec<_>>();
    let combined = combine(&by_guardian(&set, |i| sign(&blinded, &outputs[i].keys[0].secret)), 14).unwrap();
    assert!(verify(b"nonce", &unblind(&combined, &key), &keys.public));
}

#[test]
fn a_note_verifies_under_another_library() {
    let outputs = federation(4, 1);
    let keys = &outputs[0].keys[0];
    let key = BlindingKey::random(&mut rand::thread_rng());
    let nonce = [7; 32];
    let blinded = blind(&nonce, &key);
    let shares = by_guardian(&[0, 1, 3], |i| sign(&blinded, &outputs[i].keys[0].secret));
    let signature = unblind(&combine(&shares, 3).unwrap(), &key);

    use blst::min_sig;
    let public = min_sig::PublicKey::key_validate(&keys.public.to_bytes()).unwrap();
    let theirs = min_sig::Signature::sig_validate(&signature.to_bytes(), true).unwrap();
    let verdict = |message: &[u8]| theirs.verify(true, message, Message::DST, &[], &public, true);
    assert_eq!(verdict(&nonce), blst::BLST_ERROR::BLST_SUCCESS);
    assert_eq!(verdict(&[8; 32]), blst::BLST_ERROR::BLST_VERIFY_FAIL);

    // And the other way round: what another library signs is a signature here.
    let secret = min_sig::SecretKey::key_gen(&[1; 32], &[]).unwrap();
    let public = crate::PublicKey::from_bytes(&secret.sk_to_pk().compress()).unwrap();
    let theirs = crate::Signature::from_bytes(&secret.sign(&nonce, Message::DST, &[]).compress()).unwrap();
    assert!(verify(&nonce, &theirs, &public));
}

#[test]
fn a_wrong_share_is_found() {
    let outputs = federation(4, 2);
    let key = BlindingKey::random(&mut rand::thread_rng());
    let blinded = blind(b"nonce", &key);
    let keys = &outputs[0].keys[0];
    let mut shares = by_guardian(&[0, 1, 2], |i| sign(&blinded, &outputs[i].keys[0].secret));
    // Guardian 1 signs with the key of another denomination.
    shares.insert(1, sign(&blinded, &outputs[1].keys[1].secret));
    let combined = combine(&shares, 3).unwrap();
    assert!(!verify_blinded(&blinded, &combined, &keys.public));
    assert!(!verify(b"nonce", &unblind(&combined, &key), &keys.public));
    let verdicts: Vec<bool> =
        shares.iter().map(|(i, s)| verify_share(&blinded, s, &keys.shares[usize::from(*i)])).collect();
    assert_eq!(verdicts, [true, false, true]);
    // The right share under another guardian's name is wrong too.
    assert!(!verify_share(&blinded, &shares[&0], &keys.shares[1]));
    // Without it, another set works.
    shares.remove(&1);
    shares.insert(3, sign(&blinded, &outputs[3].keys[0].secret));
    assert!(verify_blinded(&blinded, &combine(&shares, 3).unwrap(), &keys.public));
}

#[test]
fn impossible_thresholds_and_guardians_are_errors() {
    let outputs = federation(4, 1);
    let blinded = blind(b"nonce", &BlindingKey::random(&mut rand::thread_rng()));
    let share = |i: usize| sign(&blinded, &outputs[i].keys[0].secret);
    let shares = by_guardian(&[0, 1, 2], share);
    for threshold in [0, 15, usize::MAX] {
        assert_eq!(combine(&shares, threshold), Err(TbsError::Threshold(threshold)));
        assert_eq!(combine(&BTreeMap::new(), threshold), Err(TbsError::Threshold(threshold)));
    }
    let stranger: BTreeMap<_, _> = [(0, share(0)), (1, share(1)), (4, share(2))].into();
    assert_eq!(combine(&stranger, 3), Err(TbsError::Guardian(4)));
    let stranger: BTreeMap<_, _> = [(0, share(0)), (1, share(1)), (u16::MAX, share(2))].into();
    assert_eq!(combine(&stranger, 3), Err(TbsError::Guardian(u16::MAX)));
}

#[test]
fn blinding_hides() {
    let (one, two) = (BlindingKey::from_bytes_wide([1; 64]), BlindingKey::from_bytes_wide([2; 64]));
    assert_ne!(blind(b"nonce", &one), blind(b"nonce", &two));
    assert_eq!(blind(b"nonce", &one), blind(b"nonce", &one));
    assert_ne!(blind(b"nonce", &one).to_bytes(), Message::hash(b"nonce").to_bytes());
}

#[test]
fn plain_signatures() {
    for n in [1, 4] {
        let (outputs, t) = (federation(n, 1), threshold(n));
        let keys = &outputs[0].keys[0];
        let mut beacons = Vec::new();
        for set in subsets(n, t) {
            let shares = by_guardian(&set, |i| sign_message(b"epoch 1", &outputs[i].keys[0].secret));
            for (i, share) in &shares {
                let public = &keys.shares[usize::from(*i)];
                assert!(verify_message_share(b"epoch 1", share, public));
                assert!(!verify_message_share(b"epoch 2", share, public));
            }
            beacons.push(combine_message(&shares, t).unwrap());
        }
        beacons.dedup();
        assert_eq!(beacons.len(), 1);
        assert!(verify_message(b"epoch 1", &beacons[0], &keys.public));
        assert!(!verify_message(b"epoch 2", &beacons[0], &keys.public));
        let epochs: [&[u8]; 4] = [b"epoch 1", b"epoch 2", b"epoch 1", b"epoch 3"];
        let items = epochs.map(|epoch| (epoch, &beacons[0]));
        assert_eq!(verify_messages(&items, &keys.public), [true, false, true, false]);
        assert_eq!(verify_messages(&[items[0], items[2]], &keys.public), [true, true]);
        assert!(verify_messages(&[], &keys.public).is_empty());
        // A plain signature is no note of the same message.
        let note = crate::Signature::from_bytes(&beacons[0].to_bytes()).unwrap();
        assert!(!verify(b"epoch 1", &note, &keys.public));
    }
}

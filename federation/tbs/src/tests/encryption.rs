//! Threshold encryption: who may decrypt what.

use proptest::prelude::*;

use super::{by_guardian, federation, subsets};
use crate::encryption::{
    Ciphertext, EncryptionKey, MAX_PLAINTEXT, decrypt, decrypt_checked, decryption_share, encrypt,
    verify_decryption_share,
};
use crate::{TbsError, threshold};

const LABEL: &[u8] = b"federation, contract, user, amount, hash";

#[test]
fn every_threshold_set_decrypts_and_no_smaller_one() {
    for n in 1..=5 {
        let (outputs, t) = (federation(n, 1), threshold(n));
        let keys = &outputs[0].keys[0];
        let key = EncryptionKey::from(&keys.public);
        let ciphertext = encrypt(&key, &[9; 32], LABEL, &mut rand::thread_rng()).unwrap();
        assert!(ciphertext.verify(LABEL));
        for set in subsets(n, t) {
            let shares = by_guardian(&set, |i| {
                decryption_share(&ciphertext, LABEL, &outputs[i].keys[0].secret).unwrap()
            });
            for (i, share) in &shares {
                assert!(verify_decryption_share(&ciphertext, LABEL, share, &keys.shares[usize::from(*i)]));
            }
            assert_eq!(decrypt(&ciphertext, LABEL, &shares, t).unwrap(), [9; 32]);
            assert_eq!(decrypt_checked(&ciphertext, LABEL, &shares, t, &key).unwrap(), [9; 32]);

            let mut few = shares;
            few.pop_last();
            let error = TbsError::NotEnoughShares { have: t - 1, need: t };
            assert_eq!(decrypt(&ciphertext, LABEL, &few, t), Err(error));
            if t > 1 && decrypt(&ciphertext, LABEL, &few, t - 1).is_ok_and(|plaintext| plaintext == [9; 32]) {
                panic!("{} of {n} decrypted", t - 1);
            }
        }
    }
}

#[test]
fn the_label_binds() {
    let outputs = federation(4, 1);
    let keys = &outputs[0].keys[0];
    let key = EncryptionKey::from(&keys.public);
    let ciphertext = encrypt(&key, b"preimage", LABEL, &mut rand::thread_rng()).unwrap();
    for other in [b"another label".as_slice(), b"", &LABEL[..LABEL.len() - 1]] {
        assert!(!ciphertext.verify(other));
        let refused = decryption_share(&ciphertext, other, &outputs[0].keys[0].secret);
        assert_eq!(refused, Err(TbsError::InvalidCiphertext));
        let share = decryption_share(&ciphertext, LABEL, &outputs[0].keys[0].secret).unwrap();
        assert!(!verify_decryption_share(&ciphertext, other, &share, &keys.shares[0]));
        let shares = by_guardian(&[0, 1, 2], |i| {
            decryption_share(&ciphertext, LABEL, &outputs[i].keys[0].secret).unwrap()
        });
        assert_eq!(decrypt(&ciphertext, other, &shares, 3), Err(TbsError::InvalidCiphertext));
    }
}

#[test]
fn wrong_shares_are_found() {
    let outputs = federation(4, 2);
    let keys = &outputs[0].keys[0];
    let key = EncryptionKey::from(&keys.public);
    let ciphertext = encrypt(&key, b"preimage", LABEL, &mut rand::thread_rng()).unwrap();
    let other = encrypt(&key, b"preimage", LABEL, &mut rand::thread_rng()).unwrap();
    let good = |i: usize| decryption_share(&ciphertext, LABEL, &outputs[i].keys[0].secret).unwrap();
    let wrong = [
        decryption_share(&ciphertext, LABEL, &outputs[1].keys[1].secret).unwrap(), // of another key
        decryption_share(&other, LABEL, &outputs[1].keys[0].secret).unwrap(),      // of another ciphertext
        good(2),                                                                   // of another guardian
    ];
    for wrong in wrong {
        assert!(!verify_decryption_share(&ciphertext, LABEL, &wrong, &keys.shares[1]));
        let mut shares = by_guardian(&[0, 1, 2], good);
        shares.insert(1, wrong);
        assert_ne!(decrypt(&ciphertext, LABEL, &shares, 3), Ok(b"preimage".to_vec()));
        let verdict = decrypt_checked(&ciphertext, LABEL, &shares, 3, &key);
        assert!(matches!(verdict, Err(TbsError::WrongDecryptionShare | TbsError::Degenerate)));
    }
}

#[test]
fn tampering_is_found() {
    let key = EncryptionKey::from(&federation(1, 1)[0].keys[0].public);
    let rng = &mut rand::thread_rng();
    let one = borsh::to_vec(&encrypt(&key, &[1; 32], LABEL, rng).unwrap()).unwrap();
    let two = borsh::to_vec(&encrypt(&key, &[1; 32], LABEL, rng).unwrap()).unwrap();
    // Each part replaced by that of another ciphertext under the same label, and each bit of the masked text flipped.
    for part in [0..96, 100..132, 132..180] {
        let mut bytes = one.clone();
        bytes[part.clone()].copy_from_slice(&two[part]);
        assert!(!borsh::from_slice::<Ciphertext>(&bytes).unwrap().verify(LABEL));
    }
    for bit in (0..32 * 8).step_by(7) {
        let mut bytes = one.clone();
        bytes[100 + bit / 8] ^= 1 << (bit % 8);
        assert!(!borsh::from_slice::<Ciphertext>(&bytes).unwrap().verify(LABEL));
    }
    // Bytes moved from the masked text's end to the label's front.
    let ciphertext: Ciphertext = borsh::from_slice(&one).unwrap();
    assert!(ciphertext.verify(LABEL));
    let mut shorter = one[..131].to_vec();
    shorter[96] = 31;
    shorter.extend_from_slice(&one[132..]);
    let label = [&one[131..132], LABEL].concat();
    assert!(!borsh::from_slice::<Ciphertext>(&shorter).unwrap().verify(&label));
}

#[test]
fn long_plaintexts_and_ciphertexts_are_refused() {
    let key = EncryptionKey::from(&federation(1, 1)[0].keys[0].public);
    let rng = &mut rand::thread_rng();
    let error = TbsError::PlaintextTooLong(MAX_PLAINTEXT + 1);
    assert_eq!(encrypt(&key, &[0; MAX_PLAINTEXT + 1], LABEL, rng), Err(error));
    let mut bytes = borsh::to_vec(&encrypt(&key, &[0; MAX_PLAINTEXT], LABEL, rng).unwrap()).unwrap();
    assert_eq!(bytes.len(), 96 + 4 + 64 + 48);
    for length in [65_u32, u32::MAX] {
        bytes[96..100].copy_from_slice(&length.to_le_bytes());
        assert!(borsh::from_slice::<Ciphertext>(&bytes).is_err());
    }
    let ciphertext = encrypt(&key, &[0; 64], LABEL, rng).unwrap();
    let json = serde_json::to_value(&ciphertext).unwrap();
    assert_eq!(serde_json::from_value::<Ciphertext>(json.clone()).unwrap(), ciphertext);
    for bad in ["00".repeat(65), "0".into(), "AB".into(), "zz".into()] {
        let mut json = json.clone();
        json["v"] = bad.into();
        assert!(serde_json::from_value::<Ciphertext>(json).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_plaintext_and_label(
        plaintext in prop::collection::vec(any::<u8>(), 0..=MAX_PLAINTEXT),
        label in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let outputs = federation(1, 1);
        let key = EncryptionKey::from(&outputs[0].keys[0].public);
        let ciphertext = encrypt(&key, &plaintext, &label, &mut rand::thread_rng()).unwrap();
        let ciphertext: Ciphertext = borsh::from_slice(&borsh::to_vec(&ciphertext).unwrap()).unwrap();
        prop_assert_eq!(ciphertext.plaintext_len(), plaintext.len());
        let share = decryption_share(&ciphertext, &label, &outputs[0].keys[0].secret).unwrap();
        prop_assert_eq!(decrypt(&ciphertext, &label, &[(0, share)].into(), 1).unwrap(), plaintext);
    }

    #[test]
    fn garbage_is_no_ciphertext(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(borsh::from_slice::<Ciphertext>(&bytes).is_err());
    }
}

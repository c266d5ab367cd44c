//! Combining without checks.

use super::encoding::{infinity, outside_g1};
use super::{by_guardian, federation, subsets};
use crate::{BlindingKey, TbsError, blind, combine, combine_presumed, sign, threshold};

#[test]
fn right_shares_give_the_same_bytes_and_wrong_ones_others() {
    for n in [1, 4, 7] {
        let (outputs, t) = (federation(n, 1), threshold(n));
        let blinded = blind(b"nonce", &BlindingKey::random(&mut rand::thread_rng()));
        for set in subsets(n, t) {
            let shares = by_guardian(&set, |i| sign(&blinded, &outputs[i].keys[0].secret));
            let expected = combine(&shares, t).unwrap().to_bytes();
            let mut bytes = by_guardian(&set, |i| shares[&(i as u16)].to_bytes());
            assert_eq!(combine_presumed(&bytes, t), Ok(expected));
            // More than are needed are left alone, as ever.
            bytes.insert(n as u16 + 1, [0; 48]);
            assert_eq!(combine_presumed(&bytes, t), Ok(expected));
            bytes.insert(set[0], outside_g1());
            assert_ne!(combine_presumed(&bytes, t), Ok(expected));
            for nonsense in [[0xff; 48], infinity()] {
                bytes.insert(set[0], nonsense);
                assert_eq!(combine_presumed(&bytes, t), Err(TbsError::Degenerate));
            }
            bytes.remove(&set[0]);
            bytes.remove(&(n as u16 + 1));
            assert_eq!(combine_presumed(&bytes, t), Err(TbsError::NotEnoughShares { have: t - 1, need: t }));
        }
    }
}

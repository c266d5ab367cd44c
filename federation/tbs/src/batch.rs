//! Checking many signatures at the price of a few pairings.
//!
//! Each signature Sᵢ of Mᵢ under key Kᵢ satisfies e(Sᵢ, g2) = e(Mᵢ, Kᵢ). With random 128-bit rᵢ all hold (up to 2^-128) if
//!
//! ```text
//! e(−Σ rᵢ·Sᵢ, g2) · Π_K e(Σ_{i: Kᵢ = K} rᵢ·Mᵢ, K) = 1
//! ```
//!
//! which takes one pairing a distinct key plus one. The rᵢ come from a hash of the whole batch, so whoever chose the
//! signatures could not know them before, and every guardian gets the same. A batch that fails is halved until the
//! bad ones are found. All points are in the subgroup, each by its own check: a batch must not be the first to look.

use sha2::{Digest, Sha256};

use crate::blinding::{BlindedMessage, BlindedSignature, DST, Signature};
use crate::curve::{Curve, Engine, G1, G2};
use crate::keys::PublicKey;
use crate::pool;

/// Each piece on the pool pays a final exponentiation: fewer notes are not worth a thread.
const MIN_PIECE: usize = 64;

/// One signature to be checked.
#[derive(Clone, Copy, Debug)]
pub struct BatchItem<'a> {
    /// What was signed: for a note, its 32-byte nonce key.
    pub message: &'a [u8],
    /// The unblinded signature.
    pub signature: &'a Signature,
    /// The key of its denomination.
    pub key: &'a PublicKey,
}

/// Whether each of these is the federation's signature of its message, in the order given.
pub fn verify_batch(items: &[BatchItem<'_>]) -> Vec<bool> {
    let messages = Curve::hash_all_to_g1(items.iter().map(|item| item.message), DST);
    verify_all(items.iter().zip(&messages).map(|(item, message)| (message, &item.signature.0, &item.key.0)))
}

/// As [`verify_batch`], on the [`pool`]. The notes of a key stay together, so that the cores share the pairings, too.
pub fn verify_batch_on_pool(items: &[BatchItem<'_>]) -> Vec<bool> {
    let mut keys: Vec<&G2> = Vec::new();
    let mut order: Vec<(usize, usize, BatchItem<'_>)> = items
        .iter()
        .enumerate()
        .map(|(place, item)| (key_number(&mut keys, &item.key.0), place, *item))
        .collect();
    order.sort_unstable_by_key(|(key, place, _)| (*key, *place));
    let verdicts = pool::map_pieces(order, MIN_PIECE, |piece| {
        let items: Vec<BatchItem<'_>> = piece.iter().map(|(_, _, item)| *item).collect();
        piece.iter().map(|(_, place, _)| *place).zip(verify_batch(&items)).collect()
    });
    let mut valid = vec![false; items.len()];
    for (place, verdict) in verdicts {
        if let Some(valid) = valid.get_mut(place) {
            *valid = verdict;
        }
    }
    valid
}

/// The number of a key among those seen so far. (A few dozen denominations: comparing beats hashing.)
fn key_number<'a>(keys: &mut Vec<&'a G2>, key: &'a G2) -> usize {
    keys.iter().position(|known| *known == key).unwrap_or_else(|| {
        keys.push(key);
        keys.len() - 1
    })
}

/// Whether each of these is the federation's signature of its blinded message, in the order given.
pub fn verify_blinded_batch(items: &[(BlindedMessage, BlindedSignature, PublicKey)]) -> Vec<bool> {
    verify_all(items.iter().map(|(message, signature, key)| (&message.0, &signature.0, &key.0)))
}

/// An equation e(signature, g2) = e(message, key) with its random coefficient.
struct Equation<'a> {
    coefficient: u128,
    message: &'a G1,
    signature: &'a G1,
    /// Number of the key in the list of distinct keys.
    key: usize,
}

fn verify_all<'a>(items: impl Iterator<Item = (&'a G1, &'a G1, &'a G2)>) -> Vec<bool> {
    let mut hash = Sha256::new();
    hash.update(b"cln-federation/tbs/batch/v1");
    let mut keys: Vec<&G2> = Vec::new();
    let mut equations: Vec<Equation<'_>> = Vec::new();
    for (message, signature, key) in items {
        // A key is in the hash in full once, then by its number.
        let known = keys.len();
        let number = key_number(&mut keys, key);
        hash.update((number as u64).to_le_bytes());
        if number == known {
            hash.update(key.to_bytes());
        }
        hash.update(message.to_bytes());
        hash.update(signature.to_bytes());
        equations.push(Equation { coefficient: 1, message, signature, key: number });
    }
    let seed = hash.finalize();
    for (i, equation) in equations.iter_mut().enumerate() {
        equation.coefficient = coefficient(&seed, i);
    }
    let mut valid = Vec::with_capacity(equations.len());
    search(&equations, &keys, false, &mut valid);
    valid
}

fn coefficient(seed: &[u8], i: usize) -> u128 {
    let hash = Sha256::new().chain_update(seed).chain_update((i as u64).to_le_bytes()).finalize();
    hash.iter().take(16).fold(0, |number, byte| (number << 8) | u128::from(*byte))
}

/// Appends one verdict an equation. `known_bad`: that not all of them hold is known already.
fn search(equations: &[Equation<'_>], keys: &[&G2], known_bad: bool, valid: &mut Vec<bool>) {
    if !known_bad && holds(equations, keys) {
        valid.extend(equations.iter().map(|_| true));
    } else if equations.len() == 1 {
        valid.push(false);
    } else {
        let (left, right) = equations.split_at(equations.len() / 2);
        let start = valid.len();
        search(left, keys, false, valid);
        // The product over the whole isn't one; if that over the left is, that over the right can't be.
        let left_is_good = valid.iter().skip(start).all(|valid| *valid);
        search(right, keys, left_is_good, valid);
    }
}

fn holds(equations: &[Equation<'_>], keys: &[&G2]) -> bool {
    let signatures: Vec<_> = equations.iter().map(|e| (e.coefficient, e.signature)).collect();
    let signatures = Curve::msm_128(&signatures).neg();
    let mut messages: Vec<Vec<(u128, &G1)>> = vec![Vec::new(); keys.len()];
    for equation in equations {
        if let Some(of_key) = messages.get_mut(equation.key) {
            of_key.push((equation.coefficient, equation.message));
        }
    }
    // (A part of a batch that is searched has not all of its keys.)
    let messages: Vec<(G1, &G2)> = messages
        .iter()
        .zip(keys)
        .filter(|(of_key, _)| !of_key.is_empty())
        .map(|(of_key, key)| (Curve::msm_128(of_key), *key))
        .collect();
    let pairs = messages.iter().map(|(message, key)| (message, *key));
    Curve::pairing_product_is_one(&pairs.chain([(&signatures, G2::generator())]).collect::<Vec<_>>())
}

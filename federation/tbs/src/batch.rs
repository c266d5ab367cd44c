//! Checking many signatures at the price of a few pairings.
//!
//! Each signature Sᵢ of Mᵢ under key Kᵢ satisfies e(Sᵢ, g2) = e(Mᵢ, Kᵢ). With random 128-bit rᵢ all hold (up to 2^-128) if
//!
//! ```text
//! e(Σ rᵢ·Sᵢ, −g2) · Π_K e(Σ_{i: Kᵢ = K} rᵢ·Mᵢ, K) = 1
//! ```
//!
//! which takes one pairing a distinct key plus one. The rᵢ come from a hash of the whole batch, so whoever chose the
//! signatures could not know them before, and every guardian gets the same. A batch that fails is halved until the
//! bad ones are found. All points are in the subgroup, each by its own check: a batch must not be the first to look.

use sha2::{Digest, Sha256};

use crate::blinding::{BlindedMessage, BlindedSignature, DST, Signature};
use crate::curve::{G1, G2, hash_all_to_g1, msm_128, pairing_product_is_one};
use crate::keys::PublicKey;

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
    let messages = hash_all_to_g1(items.iter().map(|item| item.message), DST);
    verify_all(items.iter().zip(&messages).map(|(item, message)| (message, &item.signature.0, &item.key.0)))
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

pub(crate) fn verify_all<'a>(items: impl Iterator<Item = (&'a G1, &'a G1, &'a G2)>) -> Vec<bool> {
    let mut hash = Sha256::new();
    hash.update(b"cln-federation/tbs/batch/v1");
    let mut keys: Vec<&G2> = Vec::new();
    let mut equations: Vec<Equation<'_>> = Vec::new();
    for (message, signature, key) in items {
        // A few dozen denominations: comparing beats hashing. A key is in the hash in full once, then by its number.
        let number = keys.iter().position(|known| *known == key).unwrap_or(keys.len());
        hash.update((number as u64).to_le_bytes());
        if number == keys.len() {
            hash.update(key.to_bytes());
            keys.push(key);
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
    let minus_generator = G2::generator().neg();
    let signatures = msm_128(equations.iter().map(|e| (e.coefficient, e.signature)));
    let messages: Vec<G1> = (0..keys.len())
        .map(|key| msm_128(equations.iter().filter(|e| e.key == key).map(|e| (e.coefficient, e.message))))
        .collect();
    pairing_product_is_one(messages.iter().zip(keys.iter().copied()).chain([(&signatures, &minus_generator)]))
}

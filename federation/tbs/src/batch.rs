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

/// Fewer messages than this are not worth a thread to hash them.
const MIN_HASHES: usize = 8;
/// Fewer notes than this are not worth a thread to find the bad ones.
const MIN_SEARCHED: usize = 16;

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
    verify_messages(items, Hands::Own)
}

/// As [`verify_batch`], on the [`pool`].
pub fn verify_batch_on_pool(items: &[BatchItem<'_>]) -> Vec<bool> {
    verify_messages(items, Hands::Pool)
}

/// Whether each of these is the federation's signature of its blinded message, in the order given.
pub fn verify_blinded_batch(items: &[(BlindedMessage, BlindedSignature, PublicKey)]) -> Vec<bool> {
    verify_blinded(items, Hands::Own)
}

/// As [`verify_blinded_batch`], on the [`pool`].
pub fn verify_blinded_batch_on_pool(items: &[(BlindedMessage, BlindedSignature, PublicKey)]) -> Vec<bool> {
    verify_blinded(items, Hands::Pool)
}

/// Who computes.
#[derive(Clone, Copy)]
pub(crate) enum Hands {
    /// The calling thread.
    Own,
    /// All cores.
    Pool,
}

impl Hands {
    fn map<T: Send, R: Send>(
        self,
        items: Vec<T>,
        min: usize,
        map: impl Fn(Vec<T>) -> Vec<R> + Sync,
    ) -> Vec<R> {
        match self {
            Self::Own => map(items),
            Self::Pool => pool::map_pieces(items, min, map),
        }
    }
}

fn verify_messages(items: &[BatchItem<'_>], hands: Hands) -> Vec<bool> {
    let messages: Vec<&[u8]> = items.iter().map(|item| item.message).collect();
    let messages = hands.map(messages, MIN_HASHES, |piece| Curve::hash_all_to_g1(piece.into_iter(), DST));
    let parts = items.iter().zip(&messages).map(|(item, message)| (message, &item.signature.0, &item.key.0));
    verify_all(parts, hands)
}

fn verify_blinded(items: &[(BlindedMessage, BlindedSignature, PublicKey)], hands: Hands) -> Vec<bool> {
    verify_all(items.iter().map(|(message, signature, key)| (&message.0, &signature.0, &key.0)), hands)
}

/// An equation e(signature, g2) = e(message, key) with its random coefficient.
#[derive(Clone, Copy)]
struct Equation<'a> {
    coefficient: u128,
    message: &'a G1,
    signature: &'a G1,
    /// Number of the key in the list of distinct keys.
    key: usize,
}

pub(crate) fn verify_all<'a>(
    items: impl Iterator<Item = (&'a G1, &'a G1, &'a G2)>,
    hands: Hands,
) -> Vec<bool> {
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
    if equations.is_empty() || hold(&equations, &keys, hands) {
        return vec![true; equations.len()];
    }
    let alone = equations.len() == 1;
    hands.map(equations, MIN_SEARCHED, |piece| {
        let mut valid = Vec::with_capacity(piece.len());
        // (On the pool a piece may well be without a bad one.)
        search(&piece, &keys, alone || matches!(hands, Hands::Own), &mut valid);
        valid
    })
}

fn coefficient(seed: &[u8], i: usize) -> u128 {
    let hash = Sha256::new().chain_update(seed).chain_update((i as u64).to_le_bytes()).finalize();
    hash.iter().take(16).fold(0, |number, byte| (number << 8) | u128::from(*byte))
}

/// Appends one verdict an equation. `known_bad`: that not all of them hold is known already.
fn search(equations: &[Equation<'_>], keys: &[&G2], known_bad: bool, valid: &mut Vec<bool>) {
    if !known_bad && hold(equations, keys, Hands::Own) {
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

/// A pairing of the product: ±Σ rᵢ·Pᵢ with a key.
struct Pairing<'a> {
    terms: Vec<(u128, &'a G1)>,
    key: &'a G2,
    negative: bool,
}

#[cfg(test)]
thread_local! {
    /// How many products of pairings this thread has looked at.
    pub(crate) static CHECKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Whether all of them do (up to 2^-128).
fn hold(equations: &[Equation<'_>], keys: &[&G2], hands: Hands) -> bool {
    #[cfg(test)]
    CHECKS.set(CHECKS.get() + 1);
    let signatures = equations.iter().map(|e| (e.coefficient, e.signature)).collect();
    // The long one first, so that it isn't what all others wait for.
    let mut pairings = vec![Pairing { terms: signatures, key: G2::generator(), negative: true }];
    let mut messages: Vec<Vec<(u128, &G1)>> = vec![Vec::new(); keys.len()];
    for equation in equations {
        if let Some(of_key) = messages.get_mut(equation.key) {
            of_key.push((equation.coefficient, equation.message));
        }
    }
    let of_keys = messages.into_iter().zip(keys).map(|(terms, key)| Pairing { terms, key, negative: false });
    // (A part of a batch that is searched has not all of its keys.)
    pairings.extend(of_keys.filter(|pairing| !pairing.terms.is_empty()));
    Curve::multiply_to_one(hands.map(pairings, 1, |piece| vec![multiply(&piece)]))
}

/// The product of these pairings, but for the final exponentiation.
fn multiply(pairings: &[Pairing<'_>]) -> <Curve as Engine>::Loop {
    let sums: Vec<G1> = pairings
        .iter()
        .map(|pairing| {
            let sum = Curve::msm_128(&pairing.terms);
            if pairing.negative { sum.neg() } else { sum }
        })
        .collect();
    Curve::miller_loop(&sums.iter().zip(pairings).map(|(sum, p)| (sum, p.key)).collect::<Vec<_>>())
}

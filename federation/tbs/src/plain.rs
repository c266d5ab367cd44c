//! Plain threshold signatures of a message that the guardians see: the randomness beacon.
//!
//! A federation's signature of a message is unique, whoever takes part, and unknown until T guardians have signed: so its
//! hash is a random number that nobody could choose. Hashed under a tag of its own; keys are not shared with notes.

use std::collections::BTreeMap;

use crate::batch::{Hands, verify_all};
use crate::curve::{Curve, Engine, G2};
use crate::error::TbsError;
use crate::keys::{PublicKey, PublicKeyShare, SecretKeyShare};
use crate::lagrange;
use crate::wire::point_type;

const DST: &[u8] = b"CLN-FEDERATION-V1-MESSAGE-BLS12381G1_XMD:SHA-256_SSWU_RO_";

point_type! {
    /// One guardian's partial signature of a plain message.
    SignatureShare(G1)
}

point_type! {
    /// The federation's signature of a plain message.
    MessageSignature(G1)
}

/// Guardian: signs a plain message.
pub fn sign_message(message: &[u8], share: &SecretKeyShare) -> SignatureShare {
    SignatureShare(Curve::hash_to_g1(message, DST).mul(&share.0))
}

/// Whether a partial signature is the one that belongs to this guardian's public share.
pub fn verify_message_share(message: &[u8], signature: &SignatureShare, key: &PublicKeyShare) -> bool {
    Curve::pairings_equal(&signature.0, G2::generator(), &Curve::hash_to_g1(message, DST), &key.0)
}

/// Combines the first `threshold` shares, keyed by the guardians' 0-based indices. Checks no share: check the result
/// with [`verify_message`].
///
/// # Errors
/// Too few shares, a threshold or index that no federation has, or shares that cancel out.
pub fn combine_message(
    shares: &BTreeMap<u16, SignatureShare>,
    threshold: usize,
) -> Result<MessageSignature, TbsError> {
    let point = lagrange::combine(shares.iter().map(|(i, share)| (*i, &share.0)), threshold)?;
    if point.is_identity() { Err(TbsError::Degenerate) } else { Ok(MessageSignature(point)) }
}

/// Whether this is the federation's signature of the message.
pub fn verify_message(message: &[u8], signature: &MessageSignature, key: &PublicKey) -> bool {
    Curve::pairings_equal(&signature.0, G2::generator(), &Curve::hash_to_g1(message, DST), &key.0)
}

/// Whether each of these is the federation's signature of its message, in the order given: two pairings for all of them, if
/// they are.
pub fn verify_messages(items: &[(&[u8], &MessageSignature)], key: &PublicKey) -> Vec<bool> {
    let messages = Curve::hash_all_to_g1(items.iter().map(|(message, _)| *message), DST);
    let equations = items.iter().zip(&messages);
    verify_all(equations.map(|((_, signature), message)| (message, &signature.0, &key.0)), Hands::Own)
}

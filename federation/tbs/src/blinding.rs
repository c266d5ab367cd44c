//! Blind signatures: the user's and the guardian's side of issuing a note.

use std::collections::BTreeMap;

use rand::{CryptoRng, RngCore};

use crate::curve::{Curve, Engine, G2, Scalar};
use crate::error::TbsError;
use crate::keys::{PublicKey, PublicKeyShare, SecretKeyShare};
use crate::lagrange;
use crate::wire::{point_type, secret_type};

/// The domain tag of notes; whoever checks a note with another library passes it as DST.
pub(crate) const DST: &[u8] = b"CLN-FEDERATION-V1-MINT-BLS12381G1_XMD:SHA-256_SSWU_RO_";

point_type! {
    /// A message, hashed to the curve: what a signature is a multiple of.
    Message(G1)
}

impl Message {
    /// The DST of RFC 9380 under which notes are hashed and verified.
    pub const DST: &'static [u8] = DST;

    /// Hashes a message: for a note, its 32-byte nonce key.
    pub fn hash(message: &[u8]) -> Self {
        Self(Curve::hash_to_g1(message, DST))
    }
}

point_type! {
    /// A message times the user's [`BlindingKey`]: uniformly random to everybody else.
    BlindedMessage(G1)
}

point_type! {
    /// One guardian's partial signature of a [`BlindedMessage`].
    BlindedSignatureShare(G1)
}

point_type! {
    /// The federation's signature of a [`BlindedMessage`].
    BlindedSignature(G1)
}

point_type! {
    /// The federation's signature of a message: an ordinary BLS signature under [`Message::DST`].
    Signature(G1)
}

secret_type! {
    /// The user's secret factor. With it a note can be linked to its issue, so it is wiped when dropped.
    BlindingKey
}

impl BlindingKey {
    /// From 64 uniform bytes (as derived from a wallet's seed), read as a little-endian number and reduced.
    pub fn from_bytes_wide(bytes: [u8; 64]) -> Self {
        let bytes = zeroize::Zeroizing::new(bytes);
        Self::non_zero(Scalar::from_bytes_wide(&bytes))
    }

    /// A fresh one.
    pub fn random(rng: &mut (impl RngCore + CryptoRng)) -> Self {
        Self::non_zero(Scalar::random(rng))
    }

    /// Zero can't be undone. Uniform bytes give it with probability 2^-255, so any other value does instead.
    fn non_zero(scalar: Scalar) -> Self {
        Self(if scalar.is_zero() { Scalar::one() } else { scalar })
    }
}

/// User: hides a message. One [`BlindingKey`] a message, never reused.
pub fn blind(message: &[u8], key: &BlindingKey) -> BlindedMessage {
    BlindedMessage(Curve::hash_to_g1(message, DST).mul(&key.0))
}

/// Guardian: signs what it can't see.
pub fn sign(msg: &BlindedMessage, share: &SecretKeyShare) -> BlindedSignatureShare {
    BlindedSignatureShare(msg.0.mul(&share.0))
}

/// Whether a partial signature is the one that belongs to this guardian's public share. Costs two pairings: only needed
/// to find the guilty one when a combined signature fails.
pub fn verify_share(msg: &BlindedMessage, signature: &BlindedSignatureShare, key: &PublicKeyShare) -> bool {
    Curve::pairings_equal(&signature.0, G2::generator(), &msg.0, &key.0)
}

/// Combines the first `threshold` shares, keyed by the guardians' 0-based indices. Checks no share: check the result
/// with [`verify_blinded`] or [`verify_blinded_batch`](crate::verify_blinded_batch).
///
/// # Errors
/// Too few shares, a threshold or index that no federation has, or shares that cancel out.
pub fn combine(
    shares: &BTreeMap<u16, BlindedSignatureShare>,
    threshold: usize,
) -> Result<BlindedSignature, TbsError> {
    let point = lagrange::combine(shares.iter().map(|(i, share)| (*i, &share.0)), threshold)?;
    if point.is_identity() { Err(TbsError::Degenerate) } else { Ok(BlindedSignature(point)) }
}

/// Whether a combined signature belongs to the blinded message and key.
pub fn verify_blinded(msg: &BlindedMessage, signature: &BlindedSignature, key: &PublicKey) -> bool {
    Curve::pairings_equal(&signature.0, G2::generator(), &msg.0, &key.0)
}

/// User: takes the blinding off. Right only if [`verify_blinded`] holds; check that first.
pub fn unblind(signature: &BlindedSignature, key: &BlindingKey) -> Signature {
    Signature(signature.0.mul(&key.0.invert()))
}

/// Whether this is the federation's signature of the message. Many at once: [`verify_batch`](crate::verify_batch).
pub fn verify(message: &[u8], signature: &Signature, key: &PublicKey) -> bool {
    Curve::pairings_equal(&signature.0, G2::generator(), &Curve::hash_to_g1(message, DST), &key.0)
}

//! Threshold blind BLS signatures, threshold encryption with labels, and the key generation of both.
//!
//! A note of the mint is a BLS signature on BLS12-381: signature in G1, key in G2, hash to curve by RFC 9380, so that
//! any standard BLS library can check an unblinded one. No guardian holds a whole key: [`dkg`] gives each a share, and
//! any [`threshold`] of them sign (or decrypt) together, fewer cannot.
//!
//! ```text
//! user      M = hash(nonce)          B = b·M                                   S = S'/b     e(S, g2) = e(M, K)
//!                                     │                                         ▲
//!                              blind  ▼                                         │ unblind
//! guardian i                     S'ᵢ = xᵢ·B ──── combine (any T of them) ──▶ S' = x·B
//! ```
//!
//! | part | what it is for |
//! |---|---|
//! | [`blind`], [`sign`], [`combine`], [`unblind`], [`verify`] | e-cash notes |
//! | [`verify_batch`], [`verify_blinded_batch`] | an epoch's notes at once |
//! | [`sign_message`] and its companions | plain threshold signatures (the randomness beacon) |
//! | [`encryption`] | preimages of incoming payments, decrypted only together and only under their label |
//! | [`dkg`] | keys without a dealer |
//!
//! **One key, one purpose.** Whoever signs blindly signs anything: a key of a denomination must never be used for plain
//! signatures or encryption as well.
//!
//! Every point that is decoded is checked by itself: on the curve, in the subgroup, not the identity, one encoding only.
//! A blinded nonce outside the subgroup would make a guardian leak its share, so no type here can hold one. (The one
//! exception computes with bytes and gives bytes: [`combine_presumed`].)
//!
//! All functions compute on the calling thread (tens of microseconds to milliseconds): keep them off async threads. For
//! many values at once [`pool`] spreads them over the cores.
//!
//! The curve is computed by `blst`, or without the feature of that name by `bls12_381`, in pure Rust: three times slower,
//! and the same to the last bit.

mod batch;
mod blinding;
#[cfg(not(feature = "testing"))]
mod curve;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod curve;
pub mod dkg;
pub mod encryption;
mod error;
mod keys;
mod lagrange;
mod plain;
pub mod pool;
mod presumed;
mod wire;

#[cfg(test)]
mod tests;

pub use batch::{
    BatchItem, verify_batch, verify_batch_on_pool, verify_blinded_batch, verify_blinded_batch_on_pool,
};
pub use blinding::{
    BlindedMessage, BlindedSignature, BlindedSignatureShare, BlindingKey, Message, Signature, blind, combine,
    sign, unblind, verify, verify_blinded, verify_share,
};
pub use error::{EncodingError, TbsError};
pub use keys::{PublicKey, PublicKeyShare, SecretKeyShare};
pub use lagrange::{MAX_GUARDIANS, threshold};
pub use plain::{
    MessageSignature, SignatureShare, combine_message, sign_message, verify_message, verify_message_share,
    verify_messages,
};
pub use presumed::combine_presumed;

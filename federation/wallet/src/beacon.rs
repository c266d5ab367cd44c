//! The randomness beacon: for each epoch a number that nobody could choose or foresee.
//!
//! It is a hash of the federation's threshold signature of (federation, epoch). Such a signature is unique, whoever took
//! part in it, and guardians release their shares only when the epoch's content is fixed. With the signature anybody can
//! verify the number.

use federation_core::FederationId;
use federation_core::encoding::tagged_hash;
use federation_tbs::{MessageSignature, PublicKey, verify_message};

/// What guardians sign for an epoch.
pub fn message(federation: FederationId, epoch: u64) -> [u8; 32] {
    tagged_hash("cln-federation/beacon", &[&federation.0, &epoch.to_be_bytes()])
}

/// The random number that a signature stands for.
pub fn randomness(signature: &MessageSignature) -> [u8; 32] {
    tagged_hash("cln-federation/beacon-value", &[&signature.to_bytes()])
}

/// The random number of an epoch, if the signature is the federation's.
pub fn verified(
    federation: FederationId,
    epoch: u64,
    signature: &MessageSignature,
    key: &PublicKey,
) -> Option<[u8; 32]> {
    verify_message(&message(federation, epoch), signature, key).then(|| randomness(signature))
}

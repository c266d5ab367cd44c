//! What a key generation ends with, and the last round, in which all compare it.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};

use super::message::{Context, tagged_hash};
use super::{DkgError, DkgFault, complete, fault};
use crate::curve::{G2, Scalar};
use crate::keys::{PublicKey, PublicKeyShare, SecretKeyShare};
use crate::lagrange::common_denominator;

/// One key: public, its public shares, and this guardian's secret share.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct KeySet {
    /// The key of the federation.
    pub public: PublicKey,
    /// The public shares of all guardians, by index.
    pub shares: Vec<PublicKeyShare>,
    /// This guardian's own share.
    pub secret: SecretKeyShare,
}

/// The keys that a run made. Holds secrets: its borsh encoding is to be stored encrypted.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DkgOutput {
    /// The keys, in the order agreed on.
    pub keys: Vec<KeySet>,
    me: u16,
    n: u16,
    session: [u8; 32],
    /// By dealer: hash of all that it broadcast to us.
    digests: Vec<[u8; 32]>,
}

/// Sums the dealers' parts and scales the shares (see [`crate::lagrange`]).
pub(super) fn key_sets(
    context: &Context,
    coefficients: &[Vec<Vec<G2>>],
    secrets: &[Scalar],
) -> Result<Vec<KeySet>, DkgError> {
    let degenerate = |key| fault(context.me, DkgFault::Degenerate { key });
    // (A federation size that was accepted has a threshold.)
    let denominator = common_denominator(context.threshold).map_err(|_| degenerate(0))?.unsigned_abs();
    let scale = Scalar::from_u128(denominator).invert();
    let mut keys = Vec::with_capacity(secrets.len());
    for (key, secret) in secrets.iter().enumerate() {
        let mut sum = vec![G2::identity(); context.threshold];
        for dealer in coefficients {
            for (sum, coefficient) in sum.iter_mut().zip(dealer.get(key).into_iter().flatten()) {
                *sum = sum.add(coefficient);
            }
        }
        let public = sum.first().filter(|point| !point.is_identity()).ok_or_else(|| degenerate(key))?;
        let public = PublicKey(public.clone());
        // Scaling T coefficients is cheaper than scaling n shares.
        let scaled: Vec<G2> = sum.iter().map(|coefficient| coefficient.mul(&scale)).collect();
        let shares: Vec<PublicKeyShare> =
            (1..=u64::from(context.n)).map(|x| PublicKeyShare(G2::horner(&scaled, x))).collect();
        let secret = secret.mul(&scale);
        if secret.is_zero() || shares.iter().any(|share| share.0.is_identity()) {
            return Err(degenerate(key));
        }
        keys.push(KeySet { public, shares, secret: SecretKeyShare(secret) });
    }
    Ok(keys)
}

impl DkgOutput {
    pub(super) fn new(context: &Context, keys: Vec<KeySet>, digests: Vec<[u8; 32]>) -> Self {
        Self { keys, me: context.me, n: context.n, session: context.session, digests }
    }

    /// Hash of the public result.
    fn result_hash(&self) -> [u8; 32] {
        let mut bytes = Vec::new();
        for key in &self.keys {
            bytes.extend_from_slice(&key.public.to_bytes());
            for share in &key.shares {
                bytes.extend_from_slice(&share.to_bytes());
            }
        }
        tagged_hash("cln-federation/dkg/v1/result", &[&self.session, &bytes])
    }

    /// Hash of all broadcast messages and of the public result: equal at all guardians, or something went wrong.
    pub fn transcript_hash(&self) -> [u8; 32] {
        tagged_hash("cln-federation/dkg/v1/transcript", &[self.digests.as_flattened(), &self.result_hash()])
    }

    /// Round 4, to all: 32 bytes a dealer and 32 of the result, so that a difference tells where it comes from.
    pub fn confirmation(&self) -> Vec<u8> {
        let mut bytes = self.digests.as_flattened().to_vec();
        bytes.extend_from_slice(&self.result_hash());
        bytes
    }

    /// Compares round 4 of all others. Only after this may the keys be used.
    ///
    /// # Errors
    /// The guardian that is missing, or the dealer whose messages differed. (Or whose reporter lies: without signatures
    /// nobody can tell, so the error names both.)
    pub fn confirm(&self, received: BTreeMap<u16, Vec<u8>>) -> Result<(), DkgError> {
        let own = self.confirmation();
        let mut received = received;
        received.insert(self.me, own.clone());
        let received = complete(received, self.n)?;
        if let Some((reporter, _)) = received.iter().find(|(_, bytes)| bytes.len() != own.len()) {
            return Err(fault(*reporter, DkgFault::Undecodable));
        }
        let hash = |bytes: &[u8], dealer: u16| bytes.chunks_exact(32).nth(dealer.into()).map(<[u8]>::to_vec);
        let differs = |dealer: u16, bytes: &[u8]| hash(bytes, dealer) != hash(&own, dealer);
        // Who itself says that it sent something else is certainly at fault.
        for (reporter, bytes) in &received {
            if differs(*reporter, bytes) {
                return Err(fault(*reporter, DkgFault::Equivocation { reporter: *reporter }));
            }
        }
        for (reporter, bytes) in &received {
            if let Some(dealer) = (0..self.n).find(|dealer| differs(*dealer, bytes)) {
                return Err(fault(dealer, DkgFault::Equivocation { reporter: *reporter }));
            }
            if *bytes != own {
                return Err(fault(*reporter, DkgFault::OtherResult));
            }
        }
        Ok(())
    }
}

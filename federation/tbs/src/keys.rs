//! The keys of a federation: one public key a purpose, a secret and a public share of it for each guardian.

use crate::curve::G2;
use crate::wire::{point_type, secret_type};

point_type! {
    /// The public key of a whole federation for one purpose, such as one denomination: g2 times a secret that nobody
    /// holds.
    PublicKey(G2)
}

point_type! {
    /// The public side of one guardian's share: g2 times its [`SecretKeyShare`].
    PublicKeyShare(G2)
}

secret_type! {
    /// One guardian's share of a secret key.
    ///
    /// What [`dkg`](crate::dkg) hands out is the value of the key's polynomial at (guardian's index + 1), divided by the
    /// common denominator of the federation's size, so that every set of guardians combines by integers.
    /// Encoded only to be stored encrypted.
    SecretKeyShare
}

impl SecretKeyShare {
    /// The public side of this share.
    pub fn public(&self) -> PublicKeyShare {
        PublicKeyShare(G2::generator().mul(&self.0))
    }
}

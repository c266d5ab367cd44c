//! What an engine offers beyond the traits that both libraries implement already (`ff`, `group`, `pairing`).

use ff::PrimeField;
use pairing::MultiMillerLoop;

use super::{Affine, Point};

/// A point of an engine's first group.
pub type G1Of<E> = Point<<E as pairing::Engine>::G1Affine>;
/// A point of an engine's second group.
pub type G2Of<E> = Point<<E as pairing::Engine>::G2Affine>;

/// An implementation of the curve.
pub trait Engine:
    MultiMillerLoop<Fr: PrimeField<Repr = [u8; 32]>, G1Affine: Affine, G2Affine: Affine>
{
    /// A product of pairings before its final exponentiation.
    type Loop: Send;

    /// Hash to curve, suite `BLS12381G1_XMD:SHA-256_SSWU_RO_` of RFC 9380, under the domain tag `dst`.
    fn hash_to_curve(message: &[u8], dst: &[u8]) -> Self::G1;

    /// Affine points, with one inversion for all of them.
    fn normalize(points: &[Self::G1]) -> Vec<G1Of<Self>>;

    /// Σ cᵢ·Pᵢ for 128-bit numbers. Not constant-time: public values only. No point may be the identity.
    fn msm_128(terms: &[(u128, &G1Of<Self>)]) -> G1Of<Self>;

    /// Π e(Pᵢ, Qᵢ) but for the final exponentiation. A pair with an identity counts as one.
    fn miller_loop(terms: &[(&G1Of<Self>, &G2Of<Self>)]) -> Self::Loop;

    /// Whether these multiply to one, after one final exponentiation for all.
    fn multiply_to_one(loops: Vec<Self::Loop>) -> bool;

    /// [`Engine::hash_to_curve`] as an affine point.
    fn hash_to_g1(message: &[u8], dst: &[u8]) -> G1Of<Self> {
        Point::from_curve(Self::hash_to_curve(message, dst))
    }

    /// As [`Engine::hash_to_g1`] for many messages, with one inversion for all of them.
    fn hash_all_to_g1<'a>(messages: impl Iterator<Item = &'a [u8]>, dst: &[u8]) -> Vec<G1Of<Self>> {
        let points: Vec<Self::G1> = messages.map(|message| Self::hash_to_curve(message, dst)).collect();
        if points.is_empty() { Vec::new() } else { Self::normalize(&points) }
    }

    /// Whether Π e(Pᵢ, Qᵢ) = 1.
    fn pairing_product_is_one(terms: &[(&G1Of<Self>, &G2Of<Self>)]) -> bool {
        Self::multiply_to_one(vec![Self::miller_loop(terms)])
    }

    /// Whether e(a, b) = e(c, d).
    fn pairings_equal(a: &G1Of<Self>, b: &G2Of<Self>, c: &G1Of<Self>, d: &G2Of<Self>) -> bool {
        Self::pairing_product_is_one(&[(&a.neg(), b), (c, d)])
    }
}

//! Points of both groups, hashing to the curve, pairings.

use blst::{MultiPoint, blst_fp12, blst_p1, blst_p1_affine, blst_p2_affine, p1_affines};
use blstrs::{G1Affine, G1Projective, G2Affine, G2Projective};
use group::prime::PrimeCurveAffine;
use group::{Curve, Group};

use super::Scalar;
use crate::error::EncodingError;

/// What combination by small integers needs of a group.
pub(crate) trait Point: Clone {
    /// Σ cᵢ·Pᵢ for signed integers, at a cost that grows with their bits. Not constant-time: public points only.
    fn small_sum(terms: &[(i128, &Self)]) -> Self;
}

/// Σ cᵢ·Pᵢ by one shared run of doublings.
fn straus<P>(terms: &[(i128, P)]) -> P
where
    P: Group,
{
    let terms: Vec<(u128, P)> =
        terms.iter().map(|(c, p)| (c.unsigned_abs(), if *c < 0 { -*p } else { *p })).collect();
    let bits = terms.iter().map(|(c, _)| u128::BITS - c.leading_zeros()).max().unwrap_or(0);
    let mut sum = P::identity();
    for bit in (0..bits).rev() {
        sum = sum.double();
        for (c, p) in &terms {
            if (c >> bit) & 1 == 1 {
                sum += p;
            }
        }
    }
    sum
}

macro_rules! group {
    ($name:ident, $affine:ident, $projective:ident, $size:literal, $doc:literal) => {
        #[doc = $doc]
        ///
        /// A decoded one is never the identity; a computed one can be, so that whoever computes checks.
        #[derive(Clone, PartialEq, Eq)]
        pub(crate) struct $name($affine);

        impl $name {
            /// Bytes of the compressed encoding.
            pub(crate) const SIZE: usize = $size;

            pub(crate) fn is_identity(&self) -> bool {
                self.0.is_identity().into()
            }

            /// Decodes the canonical compressed form of a point in the subgroup that isn't the identity.
            pub(crate) fn from_bytes(bytes: &[u8; $size]) -> Result<Self, EncodingError> {
                let point = Option::<$affine>::from($affine::from_compressed_unchecked(bytes))
                    .ok_or(EncodingError::NotOnCurve)?;
                if bool::from(point.is_identity()) {
                    return Err(EncodingError::Identity);
                }
                if !bool::from(point.is_on_curve()) {
                    return Err(EncodingError::NotOnCurve);
                }
                if !bool::from(point.is_torsion_free()) {
                    return Err(EncodingError::NotInSubgroup);
                }
                Ok(Self(point))
            }

            pub(crate) fn to_bytes(&self) -> [u8; $size] {
                self.0.to_compressed()
            }

            /// Constant-time in the scalar.
            pub(crate) fn mul(&self, scalar: &Scalar) -> Self {
                Self((self.0 * scalar.engine()).to_affine())
            }
        }

        impl Point for $name {
            fn small_sum(terms: &[(i128, &Self)]) -> Self {
                let terms: Vec<_> = terms.iter().map(|(c, p)| (*c, $projective::from(p.0))).collect();
                Self(straus(&terms).to_affine())
            }
        }
    };
}

group!(G1, G1Affine, G1Projective, 48, "A point of the first group: messages and signatures.");
group!(G2, G2Affine, G2Projective, 96, "A point of the second group: keys.");

impl G2 {
    pub(crate) fn generator() -> Self {
        Self(G2Affine::generator())
    }

    pub(crate) fn identity() -> Self {
        Self(G2Affine::identity())
    }

    pub(crate) fn neg(&self) -> Self {
        Self(-self.0)
    }

    pub(crate) fn add(&self, other: &Self) -> Self {
        Self((G2Projective::from(self.0) + other.0).to_affine())
    }

    /// The polynomial with these coefficients (constant first) at the small number `x`.
    pub(crate) fn horner(coefficients: &[Self], x: u64) -> Self {
        let mut sum = G2Projective::identity();
        for coefficient in coefficients.iter().rev() {
            sum = straus(&[(i128::from(x), sum)]) + coefficient.0;
        }
        Self(sum.to_affine())
    }
}

/// Hash to curve, suite `BLS12381G1_XMD:SHA-256_SSWU_RO_` of RFC 9380, under the domain tag `dst` (at most 255 bytes).
pub(crate) fn hash_to_g1(message: &[u8], dst: &[u8]) -> G1 {
    G1(G1Projective::hash_to_curve(message, dst, &[]).to_affine())
}

/// As [`hash_to_g1`] for many messages, with one inversion for all of them.
pub(crate) fn hash_all_to_g1<'a>(messages: impl Iterator<Item = &'a [u8]>, dst: &[u8]) -> Vec<G1> {
    let points: Vec<blst_p1> =
        messages.map(|message| *G1Projective::hash_to_curve(message, dst, &[]).as_ref()).collect();
    if points.is_empty() {
        return Vec::new();
    }
    p1_affines::from(&points).as_slice().iter().map(|point| G1(affine(point))).collect()
}

fn affine(point: &blst_p1_affine) -> G1Affine {
    let mut affine = G1Affine::default();
    *affine.as_mut() = *point;
    affine
}

/// Σ cᵢ·Pᵢ for 128-bit numbers. Not constant-time: public values only. No point may be the identity.
pub(crate) fn msm_128<'a>(terms: impl Iterator<Item = (u128, &'a G1)>) -> G1 {
    let mut points: Vec<blst_p1_affine> = Vec::new();
    let mut scalars: Vec<u8> = Vec::new();
    for (scalar, point) in terms {
        points.push(*point.0.as_ref());
        scalars.extend_from_slice(&scalar.to_le_bytes());
    }
    if points.is_empty() {
        return G1(G1Affine::identity());
    }
    let mut sum = G1Projective::identity();
    *sum.as_mut() = points.as_slice().mult(&scalars, 128);
    G1(sum.to_affine())
}

/// Whether Π e(Pᵢ, Qᵢ) = 1: one shared Miller loop and one final exponentiation.
pub(crate) fn pairing_product_is_one<'a>(terms: impl Iterator<Item = (&'a G1, &'a G2)>) -> bool {
    // A pair with an identity contributes one; the engine's shared loop would get it wrong.
    let (ps, qs): (Vec<blst_p1_affine>, Vec<blst_p2_affine>) = terms
        .filter(|(p, q)| !p.is_identity() && !q.is_identity())
        .map(|(p, q)| (*p.0.as_ref(), *q.0.as_ref()))
        .unzip();
    if ps.is_empty() {
        return true;
    }
    // (`blst_fp12`'s default is one.)
    blst_fp12::miller_loop_n(&qs, &ps).final_exp() == blst_fp12::default()
}

/// Whether e(a, b) = e(c, d).
pub(crate) fn pairings_equal(a: &G1, b: &G2, c: &G1, d: &G2) -> bool {
    let minus_b = b.neg();
    pairing_product_is_one([(a, &minus_b), (c, d)].into_iter())
}

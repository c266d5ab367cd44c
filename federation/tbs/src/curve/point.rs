//! Points of both groups, on either engine.

use std::sync::{Arc, LazyLock, OnceLock};

use ff::PrimeField;
use group::prime::{PrimeCurve, PrimeCurveAffine};
use group::{Curve as _, Group};

use super::scalar::Scalar;
use crate::error::EncodingError;

/// A library's affine point, with what its traits leave out.
pub trait Affine: PrimeCurveAffine<Scalar: PrimeField<Repr = [u8; 32]>, Curve: From<Self>> {
    /// The compressed encoding.
    type Bytes: Copy + AsRef<[u8]>;
    /// What is computed once for pairings with this point, and kept with it.
    type Lines: Clone + Default + Send + Sync;
    /// Bytes of the compressed encoding.
    const SIZE: usize;

    /// Decodes without looking at the subgroup.
    fn decompress(bytes: &Self::Bytes) -> Option<Self>;
    /// Encodes.
    fn compress(&self) -> Self::Bytes;
    /// Whether it satisfies the curve's equation.
    fn on_curve(&self) -> bool;
    /// Whether its order divides the group order.
    fn in_subgroup(&self) -> bool;
    /// The standard generator.
    fn shared_generator() -> &'static Point<Self>;
}

/// Both libraries give their methods the same names.
macro_rules! affine {
    ($affine:ty, $size:literal, $lines:ty) => {
        impl Affine for $affine {
            type Bytes = [u8; $size];
            type Lines = $lines;
            const SIZE: usize = $size;

            fn decompress(bytes: &[u8; $size]) -> Option<Self> {
                Self::from_compressed_unchecked(bytes).into()
            }

            fn compress(&self) -> [u8; $size] {
                self.to_compressed()
            }

            fn on_curve(&self) -> bool {
                self.is_on_curve().into()
            }

            fn in_subgroup(&self) -> bool {
                self.is_torsion_free().into()
            }

            fn shared_generator() -> &'static Point<Self> {
                static GENERATOR: LazyLock<Point<$affine>> =
                    LazyLock::new(|| Point::new(<$affine as PrimeCurveAffine>::generator()));
                &GENERATOR
            }
        }
    };
}

affine!(bls12_381::G1Affine, 48, ());
affine!(bls12_381::G2Affine, 96, Arc<OnceLock<bls12_381::G2Prepared>>);
#[cfg(any(test, feature = "blst"))]
affine!(blstrs::G1Affine, 48, ());
// blst's shared loop on plain points is faster than separate ones on prepared ones: see `blst.rs`.
#[cfg(any(test, feature = "blst"))]
affine!(blstrs::G2Affine, 96, ());

/// A point of one of the groups.
///
/// A decoded one is never the identity; a computed one can be, so that whoever computes checks.
#[derive(Clone)]
pub struct Point<A: Affine> {
    pub(super) affine: A,
    /// Shared by clones, so that they are computed once for each key.
    pub(crate) lines: A::Lines,
}

impl<A: Affine> PartialEq for Point<A> {
    fn eq(&self, other: &Self) -> bool {
        self.affine == other.affine
    }
}

impl<A: Affine> Eq for Point<A> {}

impl<A: Affine> Point<A> {
    /// Bytes of the compressed encoding.
    pub const SIZE: usize = A::SIZE;

    pub(super) fn new(affine: A) -> Self {
        Self { affine, lines: A::Lines::default() }
    }

    pub(super) fn from_curve(point: A::Curve) -> Self {
        Self::new(point.to_affine())
    }

    /// The standard generator.
    pub fn generator() -> &'static Self {
        A::shared_generator()
    }

    /// The point at infinity.
    pub fn identity() -> Self {
        Self::new(A::identity())
    }

    /// Whether it is the point at infinity.
    pub fn is_identity(&self) -> bool {
        self.affine.is_identity().into()
    }

    /// Decodes the canonical compressed form of a point in the subgroup that isn't the identity.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn from_bytes(bytes: &A::Bytes) -> Result<Self, EncodingError> {
        let point = Self::from_bytes_unchecked(bytes)?;
        if point.affine.in_subgroup() { Ok(point) } else { Err(EncodingError::NotInSubgroup) }
    }

    /// The same of a point that may be outside the subgroup.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn from_bytes_unchecked(bytes: &A::Bytes) -> Result<Self, EncodingError> {
        let point = A::decompress(bytes).ok_or_else(|| undecodable(bytes.as_ref()))?;
        if bool::from(point.is_identity()) {
            return Err(EncodingError::Identity);
        }
        if !point.on_curve() {
            return Err(EncodingError::NotOnCurve);
        }
        Ok(Self::new(point))
    }

    /// The compressed encoding.
    pub fn to_bytes(&self) -> A::Bytes {
        self.affine.compress()
    }

    /// Constant-time in the scalar.
    pub fn mul(&self, scalar: &Scalar<A::Scalar>) -> Self {
        Self::from_curve(self.affine * scalar.engine())
    }

    /// The sum.
    pub fn add(&self, other: &Self) -> Self {
        Self::from_curve(self.affine.to_curve() + other.affine)
    }

    /// The negative.
    pub fn neg(&self) -> Self {
        Self::new(-self.affine)
    }

    /// Σ cᵢ·Pᵢ for signed integers, at a cost that grows with their bits. Not constant-time: public points only.
    pub fn small_sum(terms: &[(i128, &Self)]) -> Self {
        let terms: Vec<_> = terms.iter().map(|(c, p)| (*c, p.affine)).collect();
        Self::from_curve(straus(&terms))
    }

    /// The polynomial with these coefficients (constant first) at the small number `x`.
    pub fn horner(coefficients: &[Self], x: u64) -> Self {
        let mut sum = A::Curve::identity();
        for coefficient in coefficients.iter().rev() {
            sum = times(sum, x) + coefficient.affine;
        }
        Self::from_curve(sum)
    }
}

/// Why bytes could not be decompressed. blst refuses already here the two points of order 3 of the first group, x = 0.
fn undecodable(bytes: &[u8]) -> EncodingError {
    match bytes {
        [0x80 | 0xa0, x @ ..] if x.len() == 47 && x.iter().all(|byte| *byte == 0) => {
            EncodingError::NotInSubgroup
        }
        _ => EncodingError::NotOnCurve,
    }
}

/// Σ cᵢ·Pᵢ by one shared run of doublings.
fn straus<A: Affine>(terms: &[(i128, A)]) -> A::Curve {
    let terms: Vec<(u128, A)> =
        terms.iter().map(|(c, p)| (c.unsigned_abs(), if *c < 0 { -*p } else { *p })).collect();
    let bits = terms.iter().map(|(c, _)| u128::BITS - c.leading_zeros()).max().unwrap_or(0);
    let mut sum = A::Curve::identity();
    for bit in (0..bits).rev() {
        sum = sum.double();
        for (c, p) in &terms {
            if (c >> bit) & 1 == 1 {
                sum += *p;
            }
        }
    }
    sum
}

/// A point times a small number. Not constant-time.
fn times<C: PrimeCurve>(point: C, number: u64) -> C {
    let mut product = C::identity();
    for bit in (0..u64::BITS - number.leading_zeros()).rev() {
        product = product.double();
        if (number >> bit) & 1 == 1 {
            product += point;
        }
    }
    product
}

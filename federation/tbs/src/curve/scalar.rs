//! Numbers modulo the group order. Nearly all of them are secret here, so all are wiped when dropped.

use std::marker::PhantomData;

use ff::PrimeField;
use rand::{CryptoRng, RngCore};
use subtle::{Choice, ConstantTimeEq};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::EncodingError;

/// The group order minus two, in little-endian limbs: the exponent that inverts.
const ORDER_MINUS_TWO: [u64; 4] =
    [0xffff_fffe_ffff_ffff, 0x53bd_a402_fffe_5bfe, 0x3339_d808_09a1_d805, 0x73ed_a753_299d_7d48];

/// A number modulo the group order, of an engine whose own type is `F`.
///
/// Kept as canonical bytes (little-endian), because the engines' own types are `Copy`, and one can't be wiped.
#[derive(Clone)]
pub struct Scalar<F> {
    bytes: [u8; 32],
    engine: PhantomData<fn() -> F>,
}

impl<F> Zeroize for Scalar<F> {
    fn zeroize(&mut self) {
        self.bytes.zeroize();
    }
}

impl<F> Drop for Scalar<F> {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl<F> ZeroizeOnDrop for Scalar<F> {}

impl<F: PrimeField<Repr = [u8; 32]>> Scalar<F> {
    /// Bytes of an encoding: big-endian, as in the standard encoding of BLS secret keys.
    pub const SIZE: usize = 32;

    fn new(scalar: F) -> Self {
        Self { bytes: scalar.to_repr(), engine: PhantomData }
    }

    /// (The bytes are canonical, so that this always gives the number.)
    pub(super) fn engine(&self) -> F {
        F::from_repr(self.bytes).unwrap_or(F::ZERO)
    }

    /// 0.
    pub fn zero() -> Self {
        Self::new(F::ZERO)
    }

    /// 1.
    pub fn one() -> Self {
        Self::new(F::ONE)
    }

    /// From 128 bits.
    pub fn from_u128(value: u128) -> Self {
        let mut wide = [0; 64];
        for (to, from) in wide.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
        Self::from_bytes_wide(&wide)
    }

    /// Reduces 512 bits, little-endian: from uniform bytes a uniform scalar (up to 2^-256).
    pub fn from_bytes_wide(bytes: &[u8; 64]) -> Self {
        let two_to_32 = F::from(1 << 32);
        let two_to_64 = two_to_32 * two_to_32;
        let mut sum = F::ZERO;
        for limb in bytes.rchunks_exact(8) {
            let limb = limb.iter().rev().fold(0_u64, |acc, byte| (acc << 8) | u64::from(*byte));
            sum = sum * two_to_64 + F::from(limb);
        }
        Self::new(sum)
    }

    /// A uniform one.
    pub fn random(rng: &mut (impl RngCore + CryptoRng)) -> Self {
        let mut bytes = Zeroizing::new([0; 64]);
        rng.fill_bytes(bytes.as_mut());
        Self::from_bytes_wide(&bytes)
    }

    /// Decodes 32 big-endian bytes. Zero is accepted.
    ///
    /// # Errors
    /// [`EncodingError::Scalar`] for a value not below the group order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, EncodingError> {
        let mut bytes = Zeroizing::new(*bytes);
        bytes.reverse();
        Option::<F>::from(F::from_repr(*bytes)).map(Self::new).ok_or(EncodingError::Scalar)
    }

    /// 32 big-endian bytes.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        let mut bytes = Zeroizing::new(self.bytes);
        bytes.reverse();
        bytes
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.bytes.ct_eq(&[0; 32]).into()
    }

    /// The sum.
    pub fn add(&self, other: &Self) -> Self {
        Self::new(self.engine() + other.engine())
    }

    /// The product.
    pub fn mul(&self, other: &Self) -> Self {
        Self::new(self.engine() * other.engine())
    }

    /// The inverse; zero gives zero. By a fixed exponent, so that its time tells nothing of the value, unlike
    /// Euclid's algorithm.
    pub fn invert(&self) -> Self {
        Self::new(self.engine().pow_vartime(ORDER_MINUS_TWO))
    }

    /// The polynomial with these coefficients (constant first) at `x`.
    pub fn horner(coefficients: &[Self], x: u64) -> Self {
        let x = F::from(x);
        Self::new(coefficients.iter().rev().fold(F::ZERO, |sum, c| sum * x + c.engine()))
    }
}

impl<F> ConstantTimeEq for Scalar<F> {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.bytes.ct_eq(&other.bytes)
    }
}

//! Numbers modulo the group order. Nearly all of them are secret here, so all are wiped when dropped.

use blstrs::Scalar as Engine;
use ff::Field;
use rand::{CryptoRng, RngCore};
use subtle::{Choice, ConstantTimeEq};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::EncodingError;

/// The group order minus two, in little-endian limbs: the exponent that inverts.
const ORDER_MINUS_TWO: [u64; 4] =
    [0xffff_fffe_ffff_ffff, 0x53bd_a402_fffe_5bfe, 0x3339_d808_09a1_d805, 0x73ed_a753_299d_7d48];

/// A number modulo the group order.
///
/// Kept as limbs (Montgomery form, fully reduced), because the engine's own type is `Copy` and can't be wiped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Scalar {
    limbs: [u64; 4],
}

impl Scalar {
    /// Bytes of an encoding: big-endian, as in the standard encoding of BLS secret keys.
    pub(crate) const SIZE: usize = 32;

    fn new(scalar: Engine) -> Self {
        Self { limbs: blst::blst_fr::from(scalar).l }
    }

    pub(super) fn engine(&self) -> Engine {
        Engine::from(blst::blst_fr { l: self.limbs })
    }

    pub(crate) fn zero() -> Self {
        Self::new(Engine::ZERO)
    }

    pub(crate) fn one() -> Self {
        Self::new(Engine::ONE)
    }

    /// From 128 bits.
    pub(crate) fn from_u128(value: u128) -> Self {
        let mut wide = [0; 64];
        for (to, from) in wide.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
        Self::from_bytes_wide(&wide)
    }

    /// Reduces 512 bits, little-endian: from uniform bytes a uniform scalar (up to 2^-256).
    pub(crate) fn from_bytes_wide(bytes: &[u8; 64]) -> Self {
        let two_to_32 = Engine::from(1 << 32);
        let two_to_64 = two_to_32 * two_to_32;
        let mut sum = Engine::ZERO;
        for limb in bytes.rchunks_exact(8) {
            let limb = limb.iter().rev().fold(0_u64, |acc, byte| (acc << 8) | u64::from(*byte));
            sum = sum * two_to_64 + Engine::from(limb);
        }
        Self::new(sum)
    }

    pub(crate) fn random(rng: &mut (impl RngCore + CryptoRng)) -> Self {
        let mut bytes = Zeroizing::new([0; 64]);
        rng.fill_bytes(bytes.as_mut());
        Self::from_bytes_wide(&bytes)
    }

    /// Decodes 32 big-endian bytes; a value not below the group order is refused. Zero is accepted.
    pub(crate) fn from_bytes(bytes: &[u8; Self::SIZE]) -> Result<Self, EncodingError> {
        Option::<Engine>::from(Engine::from_bytes_be(bytes)).map(Self::new).ok_or(EncodingError::Scalar)
    }

    pub(crate) fn to_bytes(&self) -> Zeroizing<[u8; Self::SIZE]> {
        Zeroizing::new(self.engine().to_bytes_be())
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.engine().is_zero().into()
    }

    pub(crate) fn add(&self, other: &Self) -> Self {
        Self::new(self.engine() + other.engine())
    }

    pub(crate) fn mul(&self, other: &Self) -> Self {
        Self::new(self.engine() * other.engine())
    }

    /// The inverse; zero gives zero. By a fixed exponent, so that its time tells nothing of the value, unlike
    /// Euclid's algorithm.
    pub(crate) fn invert(&self) -> Self {
        Self::new(self.engine().pow_vartime(ORDER_MINUS_TWO))
    }

    /// The polynomial with these coefficients (constant first) at `x`.
    pub(crate) fn horner(coefficients: &[Self], x: u64) -> Self {
        let x = Engine::from(x);
        Self::new(coefficients.iter().rev().fold(Engine::ZERO, |sum, c| sum * x + c.engine()))
    }
}

impl ConstantTimeEq for Scalar {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.limbs.ct_eq(&other.limbs)
    }
}

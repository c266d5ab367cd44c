//! The curve BLS12-381, in the few operations that this crate needs, on two engines.
//!
//! | engine | library | where |
//! |---|---|---|
//! | [`blst`] | `blst` through `blstrs`: C and assembler | feature `blst`, on by default: guardians |
//! | [`portable`] | `bls12_381`: pure Rust, no C compiler needed | without it, and as the reference |
//!
//! Both are one [`Engine`], with the same encodings, bit for bit; the tests compare them. Everything above this module
//! speaks [`Curve`] (the engine that was chosen), [`G1`], [`G2`] and [`Scalar`] only.

#[cfg(any(test, feature = "blst"))]
mod blst;
mod engine;
mod expand;
mod point;
mod portable;
pub mod scalar;

pub use engine::{Engine, G1Of, G2Of};
pub use expand::ExpandXmd;
pub use point::{Affine, Point};
#[cfg(feature = "blst")]
/// The engine that the crate runs on.
pub type Curve = blstrs::Bls12;
#[cfg(not(feature = "blst"))]
/// The engine that the crate runs on.
pub type Curve = bls12_381::Bls12;

/// A point of the first group: messages and signatures.
pub type G1 = G1Of<Curve>;
/// A point of the second group: keys.
pub type G2 = G2Of<Curve>;
/// A number modulo the group order.
pub type Scalar = scalar::Scalar<<Curve as pairing::Engine>::Fr>;

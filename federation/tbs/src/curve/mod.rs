//! The curve BLS12-381, in the few operations that this crate needs.
//!
//! Everything above speaks [`G1`], [`G2`], [`Scalar`], [`hash_to_g1`], [`pairing_product_is_one`] and [`msm_128`] only,
//! so that another engine takes the place of this one (`blst` through `blstrs`) by offering the same names.

mod point;
mod scalar;

pub(crate) use point::{
    G1, G2, Point, hash_all_to_g1, hash_to_g1, msm_128, pairing_product_is_one, pairings_equal,
};
pub(crate) use scalar::Scalar;

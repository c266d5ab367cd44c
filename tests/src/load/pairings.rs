//! One signature check as others do it: two pairings with `bls12_381`, keys prepared.

use anyhow::{Result, ensure};
use bls12_381::{G1Affine, G1Projective, G2Affine, G2Prepared, G2Projective, Gt, Scalar, multi_miller_loop};

/// A right signature.
pub struct Check {
    signature: G1Affine,
    message: G1Affine,
    key: G2Prepared,
    minus_generator: G2Prepared,
}

impl Check {
    /// Some message, some key.
    pub fn new() -> Result<Self> {
        let (secret, message) =
            (Scalar::from(0x5eed_5eed), G1Projective::generator() * Scalar::from(0x1234_5678));
        let check = Self {
            signature: (message * secret).into(),
            message: message.into(),
            key: G2Prepared::from(G2Affine::from(G2Projective::generator() * secret)),
            minus_generator: G2Prepared::from(-G2Affine::generator()),
        };
        check.run()?;
        Ok(check)
    }

    /// Checks it.
    pub fn run(&self) -> Result<()> {
        let product =
            multi_miller_loop(&[(&self.signature, &self.minus_generator), (&self.message, &self.key)]);
        ensure!(product.final_exponentiation() == Gt::identity(), "the signature is wrong");
        Ok(())
    }
}

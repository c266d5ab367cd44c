//! What dealers send: the bytes of the rounds, and the tagged hashes and proofs over them.

use borsh::{BorshDeserialize, BorshSerialize};
use rand::{CryptoRng, RngCore};
use sha2::{Digest, Sha256, Sha512};

use crate::curve::{G2, Scalar};

/// The parameters that every hash of a key generation covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    /// Hash of the session and of the parameters below.
    pub(super) session: [u8; 32],
    pub(super) me: u16,
    pub(super) n: u16,
    pub(super) keys: usize,
    pub(super) threshold: usize,
}

/// SHA-256 over the parts, each preceded by its length, the first being the tag.
pub(super) fn tagged_hash(tag: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in std::iter::once(&tag.as_bytes()).chain(parts) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Round 2: everything that round 1's hash committed to. Points as bytes: each is checked where its key is known.
#[derive(BorshSerialize, BorshDeserialize)]
pub(super) struct Reveal {
    pub(super) keys: Vec<KeyReveal>,
    /// Makes the commitment of round 1 hiding.
    pub(super) salt: [u8; 32],
}

/// One key's polynomial, committed coefficient by coefficient, and the proof of knowledge of the constant one.
#[derive(BorshSerialize, BorshDeserialize)]
pub(super) struct KeyReveal {
    pub(super) coefficients: Vec<[u8; G2::SIZE]>,
    pub(super) challenge: [u8; Scalar::SIZE],
    pub(super) response: [u8; Scalar::SIZE],
}

impl Context {
    /// Round 1: the hash of a dealer's round 2.
    pub(crate) fn commitment(&self, dealer: u16, reveal: &[u8]) -> [u8; 32] {
        tagged_hash("cln-federation/dkg/v1/commitment", &[&self.session, &dealer.to_le_bytes(), reveal])
    }

    /// The challenge of a proof of knowledge.
    fn challenge(&self, dealer: u16, key: usize, public: &G2, nonce: &G2) -> Scalar {
        let seed = tagged_hash(
            "cln-federation/dkg/v1/proof",
            &[
                &self.session,
                &dealer.to_le_bytes(),
                &(key as u64).to_le_bytes(),
                &public.to_bytes(),
                &nonce.to_bytes(),
            ],
        );
        let mut wide = [0; 64];
        wide.copy_from_slice(&Sha512::digest(seed));
        Scalar::from_bytes_wide(&wide)
    }

    /// Schnorr's proof of knowledge of `secret`, bound to session, dealer and key: (challenge, response).
    pub(super) fn prove(
        &self,
        key: usize,
        secret: &Scalar,
        public: &G2,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> (Scalar, Scalar) {
        let nonce = Scalar::random(rng);
        let challenge = self.challenge(self.me, key, public, &G2::generator().mul(&nonce));
        let response = nonce.add(&challenge.mul(secret));
        (challenge, response)
    }

    /// Checks a proof by computing its nonce's point again.
    pub(super) fn proves(
        &self,
        dealer: u16,
        key: usize,
        public: &G2,
        challenge: &Scalar,
        response: &Scalar,
    ) -> bool {
        let nonce = G2::generator().mul(response).add(&public.mul(challenge).neg());
        self.challenge(dealer, key, public, &nonce).to_bytes() == challenge.to_bytes()
    }
}

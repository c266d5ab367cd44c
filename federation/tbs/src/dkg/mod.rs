//! Key generation without a dealer: each guardian deals a part of each key, and the keys are the sums of the parts.
//!
//! Joint Feldman, for many keys at once, in which everybody takes part and nobody can pick a key by speaking last:
//!
//! | round | to | what | found here |
//! |---|---|---|---|
//! | 1 | all | hash of round 2 | |
//! | 2 | all | T coefficient commitments a key, proofs of knowledge of the constants, salt | a reveal that doesn't match its hash, wrong degree, identity or invalid point, bad proof |
//! | 3 | each | the receiver's secret shares | a share that doesn't fit the commitments |
//! | 4 | all | hash of all that each dealer broadcast, hash of the result | different messages to different guardians |
//!
//! No I/O: each state offers its own message, takes the others' by guardian index (an own one among them is ignored), and
//! becomes the next state or a [`DkgError`] that names the guardian at fault. Silence is a fault too: a guardian that is
//! not in the map is [`DkgFault::Missing`]. An aborted run leaves nothing; the next one needs a fresh `session`.
//!
//! ```text
//! Dkg ──round_1──▶ Committed ──round_2──▶ Revealed ──round_3──▶ DkgOutput ──confirm──▶ done
//! commitment()     reveal()               share_for(peer)       confirmation()
//! ```
//!
//! The links must authenticate, and for round 3 encrypt. [`DkgOutput`] has a borsh encoding: store it (encrypted) before
//! sending round 4, so that a crash after that resumes there.
//!
//! Messages come from outside: nothing here panics on them, and their size is bounded by [`MAX_MESSAGE`].

mod error;
mod message;
mod output;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

use std::collections::BTreeMap;

use rand::{CryptoRng, RngCore};
use zeroize::{Zeroize, Zeroizing};

use crate::curve::{G2, Scalar};
use crate::error::EncodingError;
use crate::lagrange::{MAX_GUARDIANS, threshold};
use message::{Context, KeyReveal, Reveal, tagged_hash};

pub use error::{DkgError, DkgFault, DkgSetupError};
pub use output::{DkgOutput, KeySet};

/// The most keys that one run makes.
pub const MAX_KEYS: usize = 256;

/// No message of any round is longer than this many bytes.
pub const MAX_MESSAGE: usize = MAX_KEYS * (MAX_GUARDIANS * G2::SIZE + 4 + 2 * Scalar::SIZE) + 64;

/// Before round 1: own polynomials are chosen.
pub struct Dkg {
    context: Context,
    polynomials: Vec<Vec<Scalar>>,
    /// Own round 2, kept back until everybody has committed.
    reveal: Vec<u8>,
}

/// After round 1: everybody is bound to a part that nobody else knows.
pub struct Committed {
    dkg: Dkg,
    commitments: Vec<[u8; 32]>,
}

/// After round 2: everybody's commitments to polynomials are known and proved.
pub struct Revealed {
    dkg: Dkg,
    /// By dealer: hash of all that it broadcast.
    digests: Vec<[u8; 32]>,
    /// By dealer, key, coefficient.
    coefficients: Vec<Vec<Vec<G2>>>,
}

/// The states hold secrets: they print who and where, nothing else.
macro_rules! debug_state {
    ($state:ident, $($context:ident).+) => {
        impl std::fmt::Debug for $state {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let context = &self.$($context).+;
                let mut f = f.debug_struct(stringify!($state));
                f.field("me", &context.me).field("n", &context.n).field("keys", &context.keys).finish_non_exhaustive()
            }
        }
    };
}

debug_state!(Dkg, context);
debug_state!(Committed, dkg.context);
debug_state!(Revealed, dkg.context);

fn fault(dealer: u16, kind: DkgFault) -> DkgError {
    DkgError { dealer, kind }
}

impl Dkg {
    /// Starts a run of guardian `me` (0-based) of `n` for that many keys, each with threshold [`threshold`]`(n)`.
    /// `session` is the same for all, never used before, and binds everything.
    ///
    /// # Errors
    /// Parameters out of range.
    pub fn new(
        session: &[u8],
        me: u16,
        n: usize,
        keys: usize,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<Self, DkgSetupError> {
        let size = u16::try_from(n).ok().filter(|n| (1..=MAX_GUARDIANS).contains(&usize::from(*n)));
        let size = size.ok_or(DkgSetupError::Guardians(n))?;
        if me >= size {
            return Err(DkgSetupError::Index(me));
        }
        if !(1..=MAX_KEYS).contains(&keys) {
            return Err(DkgSetupError::Keys(keys));
        }
        let threshold = threshold(n);
        let parameters = [n as u64, threshold as u64, keys as u64].map(u64::to_le_bytes);
        let session = tagged_hash("cln-federation/dkg/v1/session", &[session, parameters.as_flattened()]);
        let context = Context { session, me, n: size, keys, threshold };

        let polynomials: Vec<Vec<Scalar>> =
            (0..keys).map(|_| (0..threshold).map(|_| non_zero(rng)).collect()).collect();
        let mut reveals = Vec::with_capacity(keys);
        for (key, polynomial) in polynomials.iter().enumerate() {
            let points: Vec<G2> = polynomial.iter().map(|c| G2::generator().mul(c)).collect();
            if let (Some(constant), Some(public)) = (polynomial.first(), points.first()) {
                let (challenge, response) = context.prove(key, constant, public, rng);
                reveals.push(KeyReveal {
                    coefficients: points.iter().map(G2::to_bytes).collect(),
                    challenge: *challenge.to_bytes(),
                    response: *response.to_bytes(),
                });
            }
        }
        let mut salt = [0; 32];
        rng.fill_bytes(&mut salt);
        let reveal = encode(&Reveal { keys: reveals, salt });
        Ok(Self { context, polynomials, reveal })
    }

    /// How many guardians will have to act together.
    pub fn threshold(&self) -> usize {
        self.context.threshold
    }

    /// Round 1, to all: 32 bytes.
    pub fn commitment(&self) -> Vec<u8> {
        self.context.commitment(self.context.me, &self.reveal).to_vec()
    }

    /// Takes round 1 of all others.
    ///
    /// # Errors
    /// The guardian that is missing or sent something else than a hash.
    pub fn round_1(self, received: BTreeMap<u16, Vec<u8>>) -> Result<Committed, DkgError> {
        let received = self.complete(received, self.commitment())?;
        let commitments = received
            .iter()
            .map(|(dealer, bytes)| {
                bytes.as_slice().try_into().map_err(|_| fault(*dealer, DkgFault::Undecodable))
            })
            .collect::<Result<_, _>>()?;
        Ok(Committed { dkg: self, commitments })
    }

    /// For tests that play a bad dealer.
    #[cfg(test)]
    pub(crate) fn context(&self) -> message::Context {
        self.context.clone()
    }

    /// For tests that play a bad dealer: round 2, before round 1 is over.
    #[cfg(test)]
    pub(crate) fn own_reveal(&self) -> &[u8] {
        &self.reveal
    }

    /// The messages of a round by dealer, the own one included; exactly one of each.
    fn complete(
        &self,
        mut received: BTreeMap<u16, Vec<u8>>,
        own: Vec<u8>,
    ) -> Result<BTreeMap<u16, Vec<u8>>, DkgError> {
        received.insert(self.context.me, own);
        complete(received, self.context.n)
    }
}

/// Refuses a round in which a guardian is missing, or one takes part that doesn't exist, or says too much.
fn complete(received: BTreeMap<u16, Vec<u8>>, n: u16) -> Result<BTreeMap<u16, Vec<u8>>, DkgError> {
    if let Some(unknown) = received.keys().find(|dealer| **dealer >= n) {
        return Err(fault(*unknown, DkgFault::Unknown));
    }
    if let Some(missing) = (0..n).find(|dealer| !received.contains_key(dealer)) {
        return Err(fault(missing, DkgFault::Missing));
    }
    match received.iter().find(|(_, bytes)| bytes.len() > MAX_MESSAGE) {
        Some((dealer, _)) => Err(fault(*dealer, DkgFault::Undecodable)),
        None => Ok(received),
    }
}

impl Committed {
    /// Round 2, to all.
    pub fn reveal(&self) -> Vec<u8> {
        self.dkg.reveal.clone()
    }

    /// Takes round 2 of all others. The expensive round: keep it off async threads.
    ///
    /// # Errors
    /// The guardian that is missing, or whose reveal isn't what it committed to or isn't sound.
    pub fn round_2(self, received: BTreeMap<u16, Vec<u8>>) -> Result<Revealed, DkgError> {
        let received = self.dkg.complete(received, self.reveal())?;
        let context = &self.dkg.context;
        // First all hashes, so that a key chosen late is called that, whatever else is wrong with it.
        for ((dealer, bytes), commitment) in received.iter().zip(&self.commitments) {
            if context.commitment(*dealer, bytes) != *commitment {
                return Err(fault(*dealer, DkgFault::CommitmentMismatch));
            }
        }
        let mut coefficients = Vec::with_capacity(received.len());
        for (dealer, bytes) in &received {
            let reveal: Reveal =
                borsh::from_slice(bytes).map_err(|_| fault(*dealer, DkgFault::Undecodable))?;
            coefficients.push(check(context, *dealer, &reveal).map_err(|kind| fault(*dealer, kind))?);
        }
        // The commitment is a hash of everything that the dealer broadcast in round 2, and all of round 1.
        Ok(Revealed { digests: self.commitments, coefficients, dkg: self.dkg })
    }
}

/// The points of a dealer's polynomials, by key and coefficient, all checked.
fn check(context: &Context, dealer: u16, reveal: &Reveal) -> Result<Vec<Vec<G2>>, DkgFault> {
    if reveal.keys.len() != context.keys {
        return Err(DkgFault::KeyCount { expected: context.keys, got: reveal.keys.len() });
    }
    let mut polynomials = Vec::with_capacity(context.keys);
    for (key, revealed) in reveal.keys.iter().enumerate() {
        let got = revealed.coefficients.len();
        if got != context.threshold {
            return Err(DkgFault::WrongDegree { key, expected: context.threshold, got });
        }
        let points: Vec<G2> = revealed
            .coefficients
            .iter()
            .map(|bytes| {
                G2::from_bytes(bytes).map_err(|error| match error {
                    EncodingError::Identity => DkgFault::IdentityPoint { key },
                    _ => DkgFault::InvalidPoint { key },
                })
            })
            .collect::<Result<_, _>>()?;
        let bad_proof = |_| DkgFault::BadProof { key };
        let challenge = Scalar::from_bytes(&revealed.challenge).map_err(bad_proof)?;
        let response = Scalar::from_bytes(&revealed.response).map_err(bad_proof)?;
        if !points.first().is_some_and(|public| context.proves(dealer, key, public, &challenge, &response)) {
            return Err(DkgFault::BadProof { key });
        }
        polynomials.push(points);
    }
    Ok(polynomials)
}

impl Revealed {
    /// Round 3, to that guardian alone, secret: its shares of this guardian's polynomials, 32 bytes a key.
    /// `None` for a guardian that doesn't exist.
    pub fn share_for(&self, peer: u16) -> Option<Zeroizing<Vec<u8>>> {
        if peer >= self.dkg.context.n {
            return None;
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.dkg.polynomials.len() * Scalar::SIZE));
        for polynomial in &self.dkg.polynomials {
            bytes.extend_from_slice(Scalar::horner(polynomial, u64::from(peer) + 1).to_bytes().as_ref());
        }
        Some(bytes)
    }

    /// Takes round 3 of all others (wiped afterwards) and computes the keys.
    ///
    /// # Errors
    /// The guardian that is missing, or whose share doesn't fit its commitments.
    pub fn round_3(self, received: BTreeMap<u16, Vec<u8>>) -> Result<DkgOutput, DkgError> {
        let context = &self.dkg.context;
        let own = self.share_for(context.me).map(|bytes| bytes.to_vec()).unwrap_or_default();
        let mut received = self.dkg.complete(received, own)?;
        let secrets = self.sum_shares(&received);
        received.values_mut().for_each(Zeroize::zeroize);
        let keys = output::key_sets(context, &self.coefficients, &secrets?)?;
        Ok(DkgOutput::new(context, keys, self.digests))
    }

    /// By key: the sum of what the dealers sent to this guardian, each checked against its dealer's commitments.
    fn sum_shares(&self, received: &BTreeMap<u16, Vec<u8>>) -> Result<Vec<Scalar>, DkgError> {
        let context = &self.dkg.context;
        let x = u64::from(context.me) + 1;
        let mut sums = vec![Scalar::zero(); context.keys];
        for ((dealer, bytes), polynomials) in received.iter().zip(&self.coefficients) {
            let (shares, rest) = bytes.as_chunks::<{ Scalar::SIZE }>();
            if shares.len() != context.keys || !rest.is_empty() {
                return Err(fault(*dealer, DkgFault::Undecodable));
            }
            for (key, ((sum, bytes), polynomial)) in sums.iter_mut().zip(shares).zip(polynomials).enumerate()
            {
                let share =
                    Scalar::from_bytes(bytes).map_err(|_| fault(*dealer, DkgFault::WrongShare { key }))?;
                if G2::generator().mul(&share) != G2::horner(polynomial, x) {
                    return Err(fault(*dealer, DkgFault::WrongShare { key }));
                }
                *sum = sum.add(&share);
            }
        }
        Ok(sums)
    }
}

/// A random scalar but zero: a zero coefficient would be refused by the others.
fn non_zero(rng: &mut (impl RngCore + CryptoRng)) -> Scalar {
    loop {
        let scalar = Scalar::random(rng);
        if !scalar.is_zero() {
            return scalar;
        }
    }
}

/// Encodes into memory, which can't fail for lengths below 2^32.
fn encode(reveal: &Reveal) -> Vec<u8> {
    borsh::to_vec(reveal).unwrap_or_default()
}

//! The coin's keys, made by all guardians together: hbbft's `SyncKeyGen` as four rounds without I/O.
//!
//! | round | each guardian sends | and has handled before |
//! |---|---|---|
//! | 0 | a public encryption key | – |
//! | 1 | its part: a committed polynomial, a row for each guardian encrypted | all keys |
//! | 2 | its acknowledgements of all n parts | all parts, in order of their dealers |
//! | – | (nothing: the keys) | all acknowledgements, in order of senders |
//!
//! Every guardian takes part, and any fault ends it with the name of the one at fault: a federation
//! starts with all of its members or not at all. `SyncKeyGen` accepts a dealer of a wrong degree in
//! silence (its coin would never come up), so a part's degree is checked before it is handled, and
//! the result's again, with the own share against the public ones.
//!
//! The rounds are to be exchanged over channels on which everyone gets the same bytes from a
//! sender, or the results compared at the end: [`CoinKeys::public_bytes`] belongs in a hash that all confirm.

use std::collections::BTreeMap;
use std::sync::Arc;

use bincode::Options;
use bytes::Bytes;
use hbbft::NetworkInfo;
use hbbft::crypto::serde_impl::SerdeSecret;
use hbbft::crypto::{PublicKey, PublicKeySet, SecretKey, SecretKeyShare};
use hbbft::sync_key_gen::{Ack, AckOutcome, Part, PartOutcome, SyncKeyGen};
use rand06::{Rng as _, RngCore, SeedableRng as _};
use zeroize::Zeroizing;

use crate::wire::{Reader, put_bytes};
use crate::{MAX_NODES, NodeId, max_faulty};

/// The largest message of any round: n acknowledgements of n encrypted values for n = 20 are some 100 kB.
pub const MAX_MESSAGE: usize = 512 * 1024;

/// Why key generation ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeygenError {
    /// An impossible federation.
    #[error("guardian {me} of {n} is impossible: 1 to {MAX_NODES} guardians, numbered from 0")]
    BadSize {
        /// The own number.
        me: NodeId,
        /// The number of guardians.
        n: u16,
    },
    /// A message is missing, or there is one too many.
    #[error("guardian {0} did not send its message of this round")]
    Missing(NodeId),
    /// A message doesn't decode.
    #[error("guardian {0} sent a key generation message that does not decode")]
    Malformed(NodeId),
    /// A dealer's part is wrong.
    #[error("guardian {dealer} dealt a wrong part of the coin keys: {reason}")]
    BadPart {
        /// Who dealt it.
        dealer: NodeId,
        /// What is wrong.
        reason: String,
    },
    /// An acknowledgement is wrong.
    #[error("guardian {sender} sent a wrong acknowledgement for dealer {dealer}: {reason}")]
    BadAck {
        /// Who sent it.
        sender: NodeId,
        /// About whose part.
        dealer: NodeId,
        /// What is wrong.
        reason: String,
    },
    /// The result doesn't fit together, though every message was right.
    #[error("the coin keys do not fit together: {0}")]
    BadResult(&'static str),
    /// No randomness from the operating system.
    #[error("the operating system gave no randomness: {0}")]
    NoRandomness(String),
    /// hbbft returned an error.
    #[error("key generation failed: {0}")]
    Library(String),
}

impl KeygenError {
    /// The guardian at fault, if one is.
    #[must_use]
    pub const fn culprit(&self) -> Option<NodeId> {
        match self {
            Self::Missing(node) | Self::Malformed(node) => Some(*node),
            Self::BadPart { dealer, .. } => Some(*dealer),
            Self::BadAck { sender, .. } => Some(*sender),
            _ => None,
        }
    }
}

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(MAX_MESSAGE as u64)
}

fn library(error: impl ToString) -> KeygenError {
    KeygenError::Library(error.to_string())
}

/// Round 0: a fresh encryption key.
#[derive(Debug)]
pub struct KeyRound {
    me: NodeId,
    n: u16,
    secret: SecretKey,
    rng: Randomness,
}

/// Round 1: the own part is dealt.
#[derive(Debug)]
pub struct PartRound {
    me: NodeId,
    n: u16,
    keygen: SyncKeyGen<NodeId>,
    rng: Randomness,
}

/// Round 2: all parts are acknowledged.
#[derive(Debug)]
pub struct AckRound {
    me: NodeId,
    n: u16,
    keygen: SyncKeyGen<NodeId>,
}

/// The operating system's randomness; a seeded one only where runs must repeat.
#[derive(Debug)]
enum Randomness {
    System(rand06::rngs::OsRng),
    Seeded(Box<rand06::rngs::StdRng>),
}

impl Randomness {
    fn system() -> Result<Self, KeygenError> {
        let system = rand06::rngs::OsRng::new();
        system.map(Self::System).map_err(|e| KeygenError::NoRandomness(e.to_string()))
    }

    fn inner(&mut self) -> &mut dyn RngCore {
        match self {
            Self::System(rng) => rng,
            Self::Seeded(rng) => rng,
        }
    }
}

impl RngCore for Randomness {
    fn next_u32(&mut self) -> u32 {
        self.inner().next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.inner().next_u64()
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.inner().fill_bytes(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand06::Error> {
        self.inner().try_fill_bytes(bytes)
    }
}

/// Starts: returns the message of round 0.
///
/// # Errors
/// [`KeygenError::BadSize`], or no randomness.
pub fn start(me: NodeId, n: u16) -> Result<(KeyRound, Bytes), KeygenError> {
    start_with(me, n, Randomness::system()?)
}

fn start_with(me: NodeId, n: u16, mut rng: Randomness) -> Result<(KeyRound, Bytes), KeygenError> {
    if n == 0 || n > MAX_NODES || me >= n {
        return Err(KeygenError::BadSize { me, n });
    }
    let secret: SecretKey = rng.r#gen();
    let message = secret.public_key().to_bytes().to_vec().into();
    Ok((KeyRound { me, n, secret, rng }, message))
}

/// Exactly one message from each guardian, in order.
fn in_order(n: u16, messages: &BTreeMap<NodeId, Bytes>) -> Result<Vec<(NodeId, &Bytes)>, KeygenError> {
    if let Some((extra, _)) = messages.range(n..).next() {
        return Err(KeygenError::Malformed(*extra));
    }
    (0..n).map(|node| messages.get(&node).map(|m| (node, m)).ok_or(KeygenError::Missing(node))).collect()
}

impl KeyRound {
    /// Takes everyone's message of round 0, the own included; returns the own of round 1.
    ///
    /// # Errors
    /// [`KeygenError`], naming the guardian at fault.
    pub fn next(mut self, messages: &BTreeMap<NodeId, Bytes>) -> Result<(PartRound, Bytes), KeygenError> {
        let mut keys = BTreeMap::new();
        for (node, message) in in_order(self.n, messages)? {
            let bytes: [u8; 48] = message.as_ref().try_into().map_err(|_| KeygenError::Malformed(node))?;
            let key = PublicKey::from_bytes(bytes).map_err(|_| KeygenError::Malformed(node))?;
            // The identity would have its rows encrypted to nobody in particular.
            if key == SecretKey::default().public_key() {
                return Err(KeygenError::Malformed(node));
            }
            keys.insert(node, key);
        }
        let threshold = max_faulty(self.n) as usize;
        let (keygen, part) =
            SyncKeyGen::new(self.me, self.secret, keys, threshold, &mut self.rng).map_err(library)?;
        let part = part.ok_or(KeygenError::BadResult("no part was dealt"))?;
        let message = options().serialize(&part).map_err(library)?.into();
        Ok((PartRound { me: self.me, n: self.n, keygen, rng: self.rng }, message))
    }
}

impl PartRound {
    /// Takes everyone's part, the own included; returns the own acknowledgements.
    ///
    /// # Errors
    /// [`KeygenError`], naming the dealer at fault.
    pub fn next(mut self, messages: &BTreeMap<NodeId, Bytes>) -> Result<(AckRound, Bytes), KeygenError> {
        let mut acks = Vec::new();
        for (dealer, message) in in_order(self.n, messages)? {
            check_degree(dealer, message, max_faulty(self.n))?;
            let part: Part = options()
                .reject_trailing_bytes()
                .deserialize(message)
                .map_err(|_| KeygenError::Malformed(dealer))?;
            let outcome = self.keygen.handle_part(&dealer, part, &mut self.rng).map_err(library)?;
            match outcome {
                PartOutcome::Valid(Some(ack)) => {
                    put_bytes(&mut acks, &options().serialize(&ack).map_err(library)?)
                }
                PartOutcome::Valid(None) => return Err(KeygenError::Malformed(dealer)),
                PartOutcome::Invalid(fault) => {
                    return Err(KeygenError::BadPart { dealer, reason: fault.to_string() });
                }
            }
        }
        Ok((AckRound { me: self.me, n: self.n, keygen: self.keygen }, acks.into()))
    }
}

/// A part begins with its commitment's degree (u64, little-endian, see hbbft's `BivarCommitment`).
fn check_degree(dealer: NodeId, part: &[u8], degree: u16) -> Result<(), KeygenError> {
    let dealt =
        part.first_chunk::<8>().map(|b| u64::from_le_bytes(*b)).ok_or(KeygenError::Malformed(dealer))?;
    if dealt != u64::from(degree) {
        return Err(KeygenError::BadPart {
            dealer,
            reason: format!("its degree is {dealt} instead of {degree}"),
        });
    }
    Ok(())
}

impl AckRound {
    /// Takes everyone's acknowledgements, the own included; returns the keys.
    ///
    /// # Errors
    /// [`KeygenError`], naming the guardian at fault.
    pub fn finish(mut self, messages: &BTreeMap<NodeId, Bytes>) -> Result<CoinKeys, KeygenError> {
        for (sender, message) in in_order(self.n, messages)? {
            let mut reader = Reader::new(message.clone());
            for dealer in 0..self.n {
                let bytes = reader.bytes().map_err(|_| KeygenError::Malformed(sender))?;
                // An acknowledgement begins with its dealer's index; each comes in its place.
                if bytes.first_chunk::<8>().map(|b| u64::from_le_bytes(*b)) != Some(u64::from(dealer)) {
                    return Err(KeygenError::Malformed(sender));
                }
                let ack: Ack = options()
                    .reject_trailing_bytes()
                    .deserialize(&bytes)
                    .map_err(|_| KeygenError::Malformed(sender))?;
                let outcome = self.keygen.handle_ack(&sender, ack).map_err(library)?;
                if let AckOutcome::Invalid(fault) = outcome {
                    return Err(KeygenError::BadAck { sender, dealer, reason: fault.to_string() });
                }
            }
            reader.end().map_err(|_| KeygenError::Malformed(sender))?;
        }
        if self.keygen.count_complete() != self.n as usize {
            return Err(KeygenError::BadResult("not every dealer's part is complete"));
        }
        let (public, share) = self.keygen.generate().map_err(library)?;
        let share = share.ok_or(KeygenError::BadResult("no share for this guardian"))?;
        let keys = CoinKeys { public, share };
        keys.check(self.me, self.n)?;
        Ok(keys)
    }
}

/// One guardian's keys to the common coin: the public key set and its own share.
#[derive(Clone)]
pub struct CoinKeys {
    public: PublicKeySet,
    share: SecretKeyShare,
}

impl std::fmt::Debug for CoinKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CoinKeys").field("public", &self.public.public_key()).finish_non_exhaustive()
    }
}

impl CoinKeys {
    /// The public half: the same on every guardian, to be covered by the federation's configuration hash.
    #[must_use]
    pub fn public_bytes(&self) -> Bytes {
        // A key set in memory always encodes.
        options().serialize(&self.public).unwrap_or_default().into()
    }

    /// Both halves. Secret: to be encrypted at rest.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(4096));
        put_bytes(&mut out, &self.public_bytes());
        let secret = Zeroizing::new(options().serialize(&SerdeSecret(&self.share)).unwrap_or_default());
        out.extend_from_slice(&secret);
        out
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote for guardian `me` of `n`, and checks it.
    ///
    /// # Errors
    /// [`KeygenError::BadResult`] if it doesn't decode or isn't that guardian's.
    pub fn from_bytes(bytes: &[u8], me: NodeId, n: u16) -> Result<Self, KeygenError> {
        let bad = KeygenError::BadResult("the stored keys do not decode");
        let (len, rest) = bytes.split_first_chunk::<4>().ok_or_else(|| bad.clone())?;
        let (public, secret) =
            rest.split_at_checked(u32::from_be_bytes(*len) as usize).ok_or_else(|| bad.clone())?;
        let public: PublicKeySet =
            options().reject_trailing_bytes().deserialize(public).map_err(|_| bad.clone())?;
        let share: SerdeSecret<SecretKeyShare> =
            options().reject_trailing_bytes().deserialize(secret).map_err(|_| bad)?;
        let keys = Self { public, share: share.into_inner() };
        keys.check(me, n)?;
        Ok(keys)
    }

    fn check(&self, me: NodeId, n: u16) -> Result<(), KeygenError> {
        if self.public.threshold() != max_faulty(n) as usize {
            return Err(KeygenError::BadResult("the threshold is not f"));
        }
        if self.share.public_key_share() != self.public.public_key_share(me as usize) {
            return Err(KeygenError::BadResult("the own share does not match the public keys"));
        }
        Ok(())
    }

    /// The keys in the form that hbbft's agreement takes; `None` if they are another guardian's.
    pub(crate) fn network(&self, me: NodeId, n: u16) -> Option<Arc<NetworkInfo<NodeId>>> {
        self.check(me, n).ok()?;
        // The agreement uses the shares only; the keys of each guardian are placeholders.
        let placeholder = SecretKey::default();
        let publics = (0..n).map(|node| (node, placeholder.public_key())).collect();
        Some(Arc::new(NetworkInfo::new(me, self.share.clone(), self.public.clone(), placeholder, publics)))
    }
}

/// Runs the whole key generation for `n` guardians in one process, as tests and simulators need it. With a
/// seed the keys repeat, and with them the coin: never for real money.
///
/// # Errors
/// [`KeygenError`] for an impossible `n`.
pub fn run_locally(n: u16, seed: Option<u64>) -> Result<Vec<CoinKeys>, KeygenError> {
    let mut rounds = Vec::new();
    let mut messages = BTreeMap::new();
    for me in 0..n {
        let rng = match seed {
            None => Randomness::system()?,
            Some(seed) => {
                let seed = seed.wrapping_mul(1000).wrapping_add(u64::from(me));
                Randomness::Seeded(Box::new(rand06::rngs::StdRng::seed_from_u64(seed)))
            }
        };
        let (round, message) = start_with(me, n, rng)?;
        messages.insert(me, message);
        rounds.push(round);
    }
    let (rounds, messages) = advance(rounds, &messages, KeyRound::next)?;
    let (rounds, messages) = advance(rounds, &messages, PartRound::next)?;
    rounds.into_iter().map(|round| round.finish(&messages)).collect()
}

type Advanced<B> = (Vec<B>, BTreeMap<NodeId, Bytes>);

fn advance<A, B>(
    rounds: Vec<A>,
    messages: &BTreeMap<NodeId, Bytes>,
    next: impl Fn(A, &BTreeMap<NodeId, Bytes>) -> Result<(B, Bytes), KeygenError>,
) -> Result<Advanced<B>, KeygenError> {
    let mut rounds_out = Vec::new();
    let mut messages_out = BTreeMap::new();
    for (me, round) in (0..).zip(rounds) {
        let (round, message) = next(round, messages)?;
        rounds_out.push(round);
        messages_out.insert(me, message);
    }
    Ok((rounds_out, messages_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_gets_matching_keys() {
        for n in [1, 2, 4, 7] {
            let keys = run_locally(n, None).unwrap();
            for (me, key) in (0..).zip(&keys) {
                assert_eq!(key.public_bytes(), keys[0].public_bytes());
                let again = CoinKeys::from_bytes(&key.to_bytes(), me, n).unwrap();
                assert_eq!(again.public_bytes(), key.public_bytes());
                assert!(CoinKeys::from_bytes(&key.to_bytes(), (me + 1) % n, n).is_err() || n < 4);
            }
        }
    }

    #[test]
    fn a_dealer_of_another_degree_is_named() {
        let n = 4;
        let (mut rounds, mut keys) = (Vec::new(), BTreeMap::new());
        for me in 0..n {
            let (round, key) = start(me, n).unwrap();
            rounds.push(round);
            keys.insert(me, key);
        }
        let secret = rounds[3].secret.clone();
        let (rounds, mut parts) = advance(rounds, &keys, KeyRound::next).unwrap();
        let publics: BTreeMap<_, _> = (0..n).map(|i| (i, rounds[0].keygen.public_keys()[&i])).collect();
        let (_, wrong) = SyncKeyGen::new(3, secret, publics, 2, &mut Randomness::system().unwrap()).unwrap();
        parts.insert(3, options().serialize(&wrong.unwrap()).unwrap().into());
        let error = rounds.into_iter().next().unwrap().next(&parts).unwrap_err();
        assert_eq!(error.culprit(), Some(3));
        assert!(matches!(error, KeygenError::BadPart { .. }), "{error}");
    }

    #[test]
    fn a_missing_or_broken_message_names_its_sender() {
        let n = 4;
        let (round, own) = start(0, n).unwrap();
        let mut messages: BTreeMap<_, _> = (0..n).map(|i| (i, start(i, n).unwrap().1)).collect();
        messages.insert(0, own);
        messages.insert(2, Bytes::from_static(b"nonsense"));
        assert_eq!(round.next(&messages).unwrap_err(), KeygenError::Malformed(2));
        let (round, _) = start(0, n).unwrap();
        messages.remove(&1);
        assert_eq!(round.next(&messages).unwrap_err(), KeygenError::Missing(1));
    }
}

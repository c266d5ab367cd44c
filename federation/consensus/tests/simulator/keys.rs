//! Keys: real ones for the coin, cheap ones for headers.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

use bincode::Options;
use federation_consensus::header::{HeaderKeys, Signature};
use federation_consensus::keygen::CoinKeys;
use federation_consensus::{NodeId, max_faulty};
use hbbft::crypto::SecretKeySet;
use hbbft::crypto::serde_impl::SerdeSecret;
use rand06::SeedableRng;
use sha2::{Digest, Sha256};

/// The coin keys of a federation of `n`, the same at every call. They are dealt by one hand: the key generation without a dealer has tests of
/// its own, and among ten takes as long as many seeds.
pub fn coin(n: u16) -> Vec<CoinKeys> {
    static KEYS: OnceLock<Mutex<BTreeMap<u16, Vec<CoinKeys>>>> = OnceLock::new();
    let mut keys = KEYS.get_or_init(Default::default).lock().unwrap();
    keys.entry(n).or_insert_with(|| deal(n)).clone()
}

fn deal(n: u16) -> Vec<CoinKeys> {
    let mut rng = rand06::rngs::StdRng::seed_from_u64(n.into());
    let secret = SecretKeySet::random(max_faulty(n).into(), &mut rng);
    let options = || bincode::DefaultOptions::new().with_fixint_encoding();
    let public = options().serialize(&secret.public_keys()).unwrap();
    (0..n)
        .map(|me| {
            // As `CoinKeys::to_bytes` has it.
            let mut bytes = (public.len() as u32).to_be_bytes().to_vec();
            bytes.extend_from_slice(&public);
            let share = secret.secret_key_share(me as usize);
            bytes.extend(options().serialize(&SerdeSecret(&share)).unwrap());
            CoinKeys::from_bytes(&bytes, me, n).unwrap()
        })
        .collect()
}

/// A keyed hash that everyone can verify and only its owner makes: whoever lies is given no other's. Real signatures are
/// tested where they are.
#[derive(Debug, Clone, Copy)]
pub struct FakeKeys {
    me: NodeId,
    n: u16,
}

impl FakeKeys {
    pub const fn new(me: NodeId, n: u16) -> Self {
        Self { me, n }
    }
}

fn mac(node: NodeId, hash: &[u8; 32]) -> Signature {
    let half =
        |tag: u8| Sha256::new().chain_update([tag]).chain_update(node.to_be_bytes()).chain_update(hash);
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&half(0).finalize());
    signature[32..].copy_from_slice(&half(1).finalize());
    signature
}

impl HeaderKeys for FakeKeys {
    fn sign(&self, hash: &[u8; 32]) -> Signature {
        mac(self.me, hash)
    }

    fn verify(&self, node: NodeId, hash: &[u8; 32], signature: &Signature) -> bool {
        node < self.n && mac(node, hash) == *signature
    }
}

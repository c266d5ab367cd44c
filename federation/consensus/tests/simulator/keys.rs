//! Keys: real ones for the coin, cheap ones for headers.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

use federation_consensus::NodeId;
use federation_consensus::header::{HeaderKeys, Signature};
use federation_consensus::keygen::{self, CoinKeys};
use sha2::{Digest, Sha256};

/// The coin keys of a federation of `n`, the same at every call.
pub fn coin(n: u16) -> Vec<CoinKeys> {
    static KEYS: OnceLock<Mutex<BTreeMap<u16, Vec<CoinKeys>>>> = OnceLock::new();
    let mut keys = KEYS.get_or_init(Default::default).lock().unwrap();
    keys.entry(n).or_insert_with(|| keygen::run_locally(n, Some(n.into())).unwrap()).clone()
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

//! The state machines with a node and federations in memory. [`Stage`] is what outlives a crash of the gateway.

mod bomb;
mod crash;
mod federation;
mod incoming;
mod inside;
mod node;
mod outgoing;

use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use federation_core::db::Database;
use federation_core::{Amount, FederationId};
use federation_lightning::client::invoice_hash;
use federation_lightning::contract::verify_cancellation;
use federation_lightning::{
    Contract, ContractId, ContractState, IncomingContract, IncomingTerms, OutgoingContract, Preimage,
};
use federation_tbs::encryption::{EncryptionKey, encrypt};
use lightning_invoice::Bolt11Invoice;

use super::Swaps;
use super::incoming::{Incoming, IncomingState};
use super::invoice::InvoiceOrder;
use super::outgoing::{Outgoing, OutgoingState};
use super::pay::PayOrder;
use crate::config::{Fees, Limits};
use bomb::{Bomb, BombDb};
use federation::{FakeFederation, Held};
use node::FakeNode;

const HOUR: Duration = Duration::from_secs(3600);
/// What every test invoice is for.
const PRICE: u64 = 100_000;
/// Covers fees of any direction.
const FEE: u64 = 3_000;

fn fees() -> Fees {
    Fees {
        send_base: Amount::from_msat(FEE),
        send_ppm: 0,
        receive_base: Amount::from_msat(FEE),
        receive_ppm: 0,
    }
}

fn key(byte: u8) -> Keypair {
    Keypair::from_secret_key(SECP256K1, &SecretKey::from_slice(&[byte; 32]).unwrap())
}

fn encryption_key() -> EncryptionKey {
    let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(1);
    let mut outputs = federation_tbs::dkg::testing::run(1, 1, &mut rng).unwrap();
    EncryptionKey::from(&outputs.remove(0).keys.remove(0).public)
}

/// What is left when the gateway's process dies.
struct Stage {
    db: Arc<dyn Database>,
    node: Arc<node::World>,
    federations: Vec<Arc<federation::World>>,
    limits: Limits,
}

impl Stage {
    fn new() -> Self {
        Self {
            db: federation_store::memory(),
            node: node::World::new(),
            federations: vec![federation::World::new(1), federation::World::new(2)],
            limits: Limits { min: Amount::from_msat(1000), ..Limits::default() },
        }
    }

    /// A process of the gateway; `None` if it died while it started.
    async fn start_with(&self, bomb: &Bomb) -> Option<Arc<Swaps>> {
        let db = Arc::new(BombDb { db: Arc::clone(&self.db), bomb: bomb.clone() });
        let node = Arc::new(FakeNode { world: Arc::clone(&self.node), bomb: bomb.clone() });
        let swaps = tokio::select! {
            swaps = Swaps::open(db, node, key(9), fees(), self.limits) => swaps.unwrap(),
            () = bomb.died() => return None,
        };
        for world in &self.federations {
            swaps.add_federation(Arc::new(FakeFederation { world: Arc::clone(world), bomb: bomb.clone() }));
        }
        swaps.resume().await.unwrap();
        Some(swaps)
    }

    async fn start(&self) -> Arc<Swaps> {
        self.start_with(&Bomb::dud()).await.unwrap()
    }

    /// A funded contract for an invoice of somebody elsewhere.
    fn order(&self, federation: usize, user: u8, preimage: u8) -> PayOrder {
        let invoice = node::invoice([preimage; 32], PRICE, HOUR);
        let hash = invoice.payment_hash().to_byte_array();
        self.node.lock().preimages.insert(hash, [preimage; 32]);
        self.order_for(federation, user, invoice, PRICE + FEE)
    }

    fn order_for(&self, federation: usize, user: u8, invoice: Bolt11Invoice, amount: u64) -> PayOrder {
        let world = &self.federations[federation];
        let contract = OutgoingContract {
            payment_hash: federation_lightning::PaymentHash(invoice.payment_hash().to_byte_array()),
            amount: Amount::from_msat(amount),
            gateway_key: key(9).x_only_public_key().0,
            user_key: key(user).x_only_public_key().0,
            expiry_height: 1504,
            invoice_hash: invoice_hash(&invoice),
        };
        let held = Held {
            contract: Contract::Outgoing(contract.clone()),
            state: ContractState::Funded,
            preimage: None,
        };
        world.lock().contracts.insert(contract.id(world.id), held);
        PayOrder { federation: world.id, contract, invoice }
    }

    /// A user's contract to be paid; `right`: the preimage that is encrypted is the one.
    fn offer(&self, federation: usize, preimage: u8, right: bool) -> InvoiceOrder {
        let world = &self.federations[federation];
        let preimage = Preimage([preimage; 32]);
        let plaintext = if right { preimage } else { Preimage([0xff; 32]) };
        let terms = IncomingTerms {
            payment_hash: preimage.payment_hash(),
            amount: Amount::from_msat(PRICE - FEE),
            user_key: key(7).x_only_public_key().0,
            gateway_key: key(9).x_only_public_key().0,
            fund_before_height: 1050,
        };
        let label = terms.label(world.id);
        let ciphertext = encrypt(&encryption_key(), &plaintext.0, &label, &mut rand::thread_rng()).unwrap();
        world.lock().plaintexts.insert(terms.payment_hash.0, plaintext);
        let contract = IncomingContract { terms, ciphertext };
        InvoiceOrder {
            federation: world.id,
            contract,
            amount: Amount::from_msat(PRICE),
            description: "tea".into(),
        }
    }

    /// All that the gateway has, relative to the start: e-cash and Lightning.
    fn wealth(&self) -> i64 {
        let node = self.node.lock();
        let lightning = node.settled.values().sum::<u64>() as i64 - node.paid_msat as i64;
        let ecash: i64 = self.federations.iter().map(|world| world.lock().balance as i64 - 1_000_000).sum();
        lightning + ecash
    }

    fn contract_state(&self, federation: FederationId, id: ContractId) -> Option<ContractState> {
        let world = self.federations.iter().find(|world| world.id == federation).unwrap();
        world.lock().contracts.get(&id).map(|held| held.state)
    }
}

fn hash(preimage: u8) -> [u8; 32] {
    sha256::Hash::hash(&[preimage; 32]).to_byte_array()
}

/// Waits for an outgoing swap to be closed, or for long.
async fn closed_outgoing(swaps: &Arc<Swaps>, id: ContractId) -> Outgoing {
    for _ in 0..10_000 {
        let swap = swaps.store.outgoing(&id).await.unwrap();
        if let Some(swap) = swap
            && (swap.state.is_closed() || matches!(swap.state, OutgoingState::Lost { .. }))
        {
            return swap;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("still open: {:?}", swaps.store.outgoing(&id).await);
}

/// Waits for an incoming swap to be closed, or for long.
async fn closed_incoming(swaps: &Arc<Swaps>, hash: [u8; 32]) -> Incoming {
    for _ in 0..10_000 {
        let swap = swaps.store.incoming(&hash).await.unwrap().unwrap();
        if swap.state.is_closed() || matches!(swap.state, IncomingState::Lost { .. }) {
            return swap;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("still open: {:?}", swaps.store.incoming(&hash).await);
}

/// The code of a cancelled swap whose cancellation is good.
fn cancelled(swap: &Outgoing) -> &str {
    let OutgoingState::Cancelled { code, cancellation, .. } = &swap.state else {
        panic!("not cancelled: {:?}", swap.state)
    };
    let gateway = key(9).x_only_public_key().0;
    assert!(verify_cancellation(swap.federation, swap.id(), &gateway, &cancellation.0));
    code
}

/// A node for tests of what is around swaps.
pub(crate) fn a_node() -> Arc<dyn crate::node::LightningNode> {
    Arc::new(FakeNode { world: node::World::new(), bomb: Bomb::dud() })
}

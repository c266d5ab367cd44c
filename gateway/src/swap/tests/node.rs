//! A Lightning node that keeps to the trait's promises, and does as it is told otherwise.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::secp256k1::{PublicKey, SECP256K1, SecretKey};
use bitcoin::{Address, Network, Txid};
use lightning_invoice::{Bolt11Invoice, Currency, InvoiceBuilder, PaymentSecret};
use tokio::sync::watch;

use super::bomb::Bomb;
use crate::node::*;
use crate::store::now;

/// What becomes of payments that the node is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Succeeds,
    Fails,
    /// Until the test says otherwise.
    Hangs,
    /// Says that it has no record, although it was asked.
    Forgets,
    /// Says that it won't.
    Refuses,
    /// Does it, and can't say so.
    Unavailable,
}

pub struct State {
    pub fate: Fate,
    pub fee_msat: u64,
    pub height: u32,
    /// Preimages that payees know.
    pub preimages: HashMap<[u8; 32], [u8; 32]>,
    pub payments: HashMap<[u8; 32], PaymentStatus>,
    /// How often HTLCs were really sent, by hash.
    pub sent: HashMap<[u8; 32], u32>,
    /// How often it was asked to pay.
    pub asked: u32,
    pub paid_msat: u64,
    pub hold: HashMap<[u8; 32], HoldInvoiceRequest>,
    pub held: HashMap<[u8; 32], HeldPayment>,
    pub settled: HashMap<[u8; 32], u64>,
    pub cancelled: HashSet<[u8; 32]>,
    /// How many times `settle` still says that nothing is held.
    pub late: u32,
}

/// The node's lasting part.
pub struct World {
    pub state: Mutex<State>,
    pub changed: watch::Sender<u64>,
}

/// The node as one process of the gateway sees it.
pub struct FakeNode {
    pub world: Arc<World>,
    pub bomb: Bomb,
}

pub fn secret() -> SecretKey {
    SecretKey::from_slice(&[41; 32]).unwrap()
}

impl World {
    pub fn new() -> Arc<Self> {
        let state = State {
            fate: Fate::Succeeds,
            fee_msat: 100,
            height: 1000,
            preimages: HashMap::new(),
            payments: HashMap::new(),
            sent: HashMap::new(),
            asked: 0,
            paid_msat: 0,
            hold: HashMap::new(),
            held: HashMap::new(),
            settled: HashMap::new(),
            cancelled: HashSet::new(),
            late: 0,
        };
        Arc::new(Self { state: Mutex::new(state), changed: watch::Sender::new(0) })
    }

    pub fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn touch(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// A payer's HTLCs arrive.
    pub fn arrive(&self, payment_hash: [u8; 32], amount_msat: u64, blocks: u32) {
        let mut state = self.lock();
        // A cancelled invoice fails its payers.
        if state.hold.contains_key(&payment_hash) && !state.cancelled.contains(&payment_hash) {
            let claim_deadline_height = state.height + blocks;
            state.held.insert(payment_hash, HeldPayment { payment_hash, amount_msat, claim_deadline_height });
        }
        drop(state);
        self.touch();
    }

    /// Decides a payment that hangs.
    pub fn decide(&self, hash: [u8; 32], succeeds: bool, amount_msat: u64) {
        let mut state = self.lock();
        state.decide(hash, succeeds, amount_msat);
    }
}

impl State {
    fn decide(&mut self, hash: [u8; 32], succeeds: bool, amount_msat: u64) {
        let status = match self.preimages.get(&hash) {
            Some(preimage) if succeeds => {
                self.paid_msat += amount_msat + self.fee_msat;
                PaymentStatus::Succeeded { preimage: *preimage, fee_msat: self.fee_msat }
            }
            _ => PaymentStatus::Failed { reason: "no route".into() },
        };
        self.payments.insert(hash, status);
    }
}

/// An invoice of a payee elsewhere, whose preimage the node can learn by paying.
pub fn invoice(preimage: [u8; 32], amount_msat: u64, expiry: Duration) -> Bolt11Invoice {
    let hash = sha256::Hash::hash(&preimage);
    signed(hash.to_byte_array(), amount_msat, expiry, &SecretKey::from_slice(&[42; 32]).unwrap())
}

pub fn signed(hash: [u8; 32], amount_msat: u64, expiry: Duration, key: &SecretKey) -> Bolt11Invoice {
    InvoiceBuilder::new(Currency::Regtest)
        .description("test".into())
        .payment_hash(sha256::Hash::from_byte_array(hash))
        .payment_secret(PaymentSecret([7; 32]))
        .amount_milli_satoshis(amount_msat)
        .duration_since_epoch(Duration::from_secs(now().as_secs()))
        .expiry_time(expiry)
        .min_final_cltv_expiry_delta(18)
        .build_signed(|message| SECP256K1.sign_ecdsa_recoverable(message, key))
        .unwrap()
}

#[async_trait]
impl LightningNode for FakeNode {
    async fn info(&self) -> Result<NodeInfo, NodeError> {
        self.bomb.alive().await;
        Ok(NodeInfo {
            alias: "fake".into(),
            node_id: PublicKey::from_secret_key(SECP256K1, &secret()),
            network: Network::Regtest,
            block_height: self.world.lock().height,
            route_hints: Vec::new(),
        })
    }

    async fn pay(&self, request: PayRequest) -> Result<PaymentStatus, NodeError> {
        let hash = request.invoice.payment_hash().to_byte_array();
        self.bomb
            .around(async {
                let mut state = self.world.lock();
                state.asked += 1;
                match state.fate {
                    Fate::Refuses => return Err(NodeError::Refused("senseless".into())),
                    Fate::Forgets => return Ok(PaymentStatus::Unknown),
                    _ => {}
                }
                if !state.payments.contains_key(&hash) {
                    *state.sent.entry(hash).or_default() += 1;
                    assert!(state.fee_msat <= request.max_fee_msat);
                    match state.fate {
                        Fate::Succeeds | Fate::Unavailable => state.decide(hash, true, request.amount_msat),
                        Fate::Fails => state.decide(hash, false, request.amount_msat),
                        _ => {
                            state.payments.insert(hash, PaymentStatus::Pending);
                        }
                    }
                    if state.fate == Fate::Unavailable {
                        return Err(NodeError::Unavailable("connection lost".into()));
                    }
                }
                Ok(state.payments[&hash].clone())
            })
            .await
    }

    async fn payment(&self, payment_hash: [u8; 32]) -> Result<PaymentStatus, NodeError> {
        self.bomb.alive().await;
        let state = self.world.lock();
        Ok(state.payments.get(&payment_hash).cloned().unwrap_or(PaymentStatus::Unknown))
    }

    async fn hold_invoice(&self, request: HoldInvoiceRequest) -> Result<Bolt11Invoice, NodeError> {
        self.bomb
            .around(async {
                let mut state = self.world.lock();
                let known = state.hold.entry(request.payment_hash).or_insert_with(|| request.clone());
                if *known != request {
                    return Err(NodeError::Refused("used".into()));
                }
                Ok(signed(request.payment_hash, request.amount_msat, request.expiry, &secret()))
            })
            .await
    }

    async fn held_payments(&self) -> Result<Vec<HeldPayment>, NodeError> {
        self.bomb.alive().await;
        Ok(self.world.lock().held.values().cloned().collect())
    }

    async fn held_changed(&self, seen: u64) -> u64 {
        let mut changed = self.world.changed.subscribe();
        let counter = changed.wait_for(|count| *count > seen).await.unwrap();
        *counter
    }

    async fn settle(&self, payment_hash: [u8; 32], preimage: [u8; 32]) -> Result<(), NodeError> {
        self.bomb
            .around(async {
                let mut state = self.world.lock();
                if state.settled.contains_key(&payment_hash) {
                    return Ok(());
                }
                if state.late > 0 {
                    state.late -= 1;
                    return Err(NodeError::NotHeld(payment_hash));
                }
                assert_eq!(sha256::Hash::hash(&preimage).to_byte_array(), payment_hash);
                let held = state.held.remove(&payment_hash).ok_or(NodeError::NotHeld(payment_hash))?;
                state.settled.insert(payment_hash, held.amount_msat);
                Ok(())
            })
            .await
    }

    async fn cancel(&self, payment_hash: [u8; 32]) -> Result<(), NodeError> {
        self.bomb
            .around(async {
                let mut state = self.world.lock();
                if state.settled.contains_key(&payment_hash) {
                    return Err(NodeError::AlreadySettled(payment_hash));
                }
                state.held.remove(&payment_hash);
                state.cancelled.insert(payment_hash);
                Ok(())
            })
            .await
    }

    async fn onchain_address(&self) -> Result<Address, NodeError> {
        Err(NodeError::Refused("not here".into()))
    }

    async fn onchain_send(&self, _: OnchainSendRequest) -> Result<Txid, NodeError> {
        Err(NodeError::Refused("not here".into()))
    }

    async fn balances(&self) -> Result<Balances, NodeError> {
        Ok(Balances::default())
    }
}

//! Swaps: one persisted state machine each.
//!
//! ```text
//! API ──▶ pay / invoice: check, write the first state
//!              │
//!              ▼
//!        drive (one task an open swap): state ─▶ the one action it names ─▶ next state, committed ─▶ …
//!              ▲
//! start ───────┤ every open swap is driven on
//! watch ───────┘ what the node holds, and what has expired
//! ```
//!
//! An action is repeated until it is known to be done, under a name of its own, and its result is committed before the next
//! one begins. So a crash costs a repetition, never a second payment.
//!
//! Read in this order: [`outgoing`] and [`incoming`] (states), [`pay`] and [`invoice`] (how swaps begin), [`drive`],
//! [`drive_outgoing`], [`drive_incoming`], [`watch`].

pub(crate) mod drive;
mod drive_incoming;
mod drive_outgoing;
mod fees;
pub(crate) mod incoming;
pub(crate) mod invoice;
pub(crate) mod outgoing;
pub(crate) mod pay;
mod report;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bitcoin::secp256k1::{Keypair, XOnlyPublicKey};
use federation_core::db::{Database, DbError};
use federation_core::{Amount, FederationId};
use federation_lightning::ContractId;
use tokio::sync::{broadcast, watch as signal};
use tokio::task::JoinSet;

pub use report::{SwapCounts, SwapReport};
#[cfg(test)]
pub(crate) mod testing {
    pub(crate) use super::tests::a_node as node;
}

use crate::GatewayError;
use crate::config::{Fees, Limits};
use crate::federation::Federation;
use crate::node::{HeldPayment, LightningNode};
use crate::store::Store;

/// A swap of either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum SwapId {
    Outgoing(ContractId),
    Incoming([u8; 32]),
}

/// All swaps of a gateway.
pub(crate) struct Swaps {
    pub(crate) store: Store,
    pub(crate) node: Arc<dyn LightningNode>,
    key: Keypair,
    limits: Limits,
    federations: RwLock<BTreeMap<FederationId, Arc<dyn Federation>>>,
    /// Tells who waits that a swap has changed.
    changed: broadcast::Sender<SwapId>,
    /// Which swaps have a task.
    driven: Mutex<HashSet<SwapId>>,
    /// What is funded and not settled.
    exposed: Mutex<HashMap<[u8; 32], Amount>>,
    /// What the node holds, as of the last look.
    held: Mutex<HashMap<[u8; 32], HeldPayment>>,
    /// When expired invoices were last looked for.
    swept: Mutex<Option<tokio::time::Instant>>,
    tasks: Mutex<JoinSet<()>>,
    draining: AtomicBool,
    stop: signal::Sender<bool>,
    /// Set when the database failed.
    failed: signal::Sender<Option<String>>,
}

/// A lock whose owner panicked holds nothing that is half done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Swaps {
    /// Opens the tables; nothing moves before [`resume`](Self::resume).
    pub async fn open(
        db: Arc<dyn Database>,
        node: Arc<dyn LightningNode>,
        key: Keypair,
        fees: Fees,
        limits: Limits,
    ) -> Result<Arc<Self>, DbError> {
        let swaps = Arc::new(Self {
            store: Store::new(db),
            node,
            key,
            limits,
            federations: RwLock::default(),
            changed: broadcast::channel(1024).0,
            driven: Mutex::default(),
            exposed: Mutex::default(),
            held: Mutex::default(),
            swept: Mutex::default(),
            tasks: Mutex::default(),
            draining: AtomicBool::new(false),
            stop: signal::Sender::new(false),
            failed: signal::Sender::new(None),
        });
        swaps.configure_fees(fees).await?;
        for swap in swaps.store.open_incoming().await? {
            swaps.note_exposure(&swap);
        }
        Ok(swaps)
    }

    /// Goes on with every open swap, and begins to watch the node.
    pub async fn resume(self: &Arc<Self>) -> Result<(), DbError> {
        for swap in self.store.open_outgoing().await? {
            self.drive(SwapId::Outgoing(swap.id()), false);
        }
        for swap in self.store.open_incoming().await? {
            if !matches!(swap.state, incoming::IncomingState::Offered | incoming::IncomingState::Waiting) {
                self.drive(SwapId::Incoming(swap.payment_hash()), false);
            }
        }
        self.spawn(Arc::clone(self).watch());
        Ok(())
    }

    /// Serves a federation. Its swaps, which waited for it, go on.
    pub fn add_federation(&self, federation: Arc<dyn Federation>) {
        self.federations.write().unwrap_or_else(PoisonError::into_inner).insert(federation.id(), federation);
    }

    /// Serves a federation no more.
    pub fn remove_federation(&self, id: &FederationId) {
        self.federations.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// A federation that is served.
    pub fn federation(&self, id: &FederationId) -> Result<Arc<dyn Federation>, GatewayError> {
        let federations = self.federations.read().unwrap_or_else(PoisonError::into_inner);
        federations.get(id).cloned().ok_or(GatewayError::UnknownFederation(*id))
    }

    /// The federations that are served.
    pub fn federations(&self) -> Vec<Arc<dyn Federation>> {
        self.federations.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The key that contracts name.
    pub fn key(&self) -> XOnlyPublicKey {
        self.key.x_only_public_key().0
    }

    pub(crate) fn keypair(&self) -> &Keypair {
        &self.key
    }

    /// What is taken on.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Takes nothing new from now on, or again.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    /// Whether nothing new is taken.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// What is funded to users and not yet settled.
    pub fn exposure(&self) -> Amount {
        Amount::checked_sum(lock(&self.exposed).values().copied()).unwrap_or(Amount::from_msat(u64::MAX))
    }

    /// Keeps the sum of what is exposed.
    fn note_exposure(&self, swap: &incoming::Incoming) {
        let mut exposed = lock(&self.exposed);
        if swap.state.is_exposed() {
            exposed.insert(swap.payment_hash(), swap.contract.terms.amount);
        } else {
            exposed.remove(&swap.payment_hash());
        }
    }

    /// Tells who waits for a swap.
    fn announce_change(&self, swap: SwapId) {
        // Nobody waits: fine.
        let _ = self.changed.send(swap);
    }

    /// Ends all tasks between two steps or within one: either is safe, since each may be repeated.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        while tasks.join_next().await.is_some() {}
    }

    /// Resolves with the reason when the database has failed: the process must end.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.subscribe();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the gateway ended".to_owned(),
        }
    }
}

//! The gateway's tables, and how they are changed: one change at a time, each in one atomic commit.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::db::{Database, DbError, Reader, Table};
use federation_core::{Amount, FederationId};
use federation_lightning::ContractId;
use federation_store::WriteBatch;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard};

use crate::config::Fees;
use crate::swap::incoming::Incoming;
use crate::swap::outgoing::Outgoing;

/// Every outgoing swap, for ever: a contract is decided once.
pub(crate) const OUTGOING: Table<ContractId, Outgoing> = Table::new(1, "outgoing swaps");
/// Those that are not finished.
const OPEN_OUTGOING: Table<ContractId, ()> = Table::new(2, "open outgoing swaps");
/// Which contract, in whatever federation, a payment hash is or was paid for. Never freed once the node was asked to pay.
pub(crate) const PAYMENTS: Table<[u8; 32], ContractId> = Table::new(3, "payment hashes");
/// Every incoming swap by its payment hash, in whatever federation.
pub(crate) const INCOMING: Table<[u8; 32], Incoming> = Table::new(4, "incoming swaps");
/// Those that are not finished.
const OPEN_INCOMING: Table<[u8; 32], ()> = Table::new(5, "open incoming swaps");
/// The federations that are served, with their invite codes.
pub(crate) const FEDERATIONS: Table<FederationId, String> = Table::new(6, "federations");
/// Fees now, and those that users may still believe in.
pub(crate) const FEES: Table<(), FeeHistory> = Table::new(7, "fees");
/// Sums over finished swaps.
pub(crate) const TOTALS: Table<(), Totals> = Table::new(8, "totals");

/// Fees, and when they were replaced.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct FeeHistory {
    /// What the configuration said last: when it says something else, that counts.
    pub configured: Fees,
    /// Those of now.
    pub current: Fees,
    /// Earlier ones and until when (seconds since 1970) they were in force.
    pub earlier: Vec<(Fees, u64)>,
}

/// Sums over finished swaps.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
)]
pub struct Totals {
    /// Payments made.
    pub sent: u64,
    /// What payees got.
    #[serde(rename = "sent_msat")]
    pub sent_amount: Amount,
    /// What users paid on top.
    #[serde(rename = "sent_fees_msat")]
    pub sent_fees: Amount,
    /// What of that went into routing.
    #[serde(rename = "routing_fees_msat")]
    pub routing_fees: Amount,
    /// Payments refused or failed, refunded at once.
    pub cancelled: u64,
    /// Payments received.
    pub received: u64,
    /// What users got.
    #[serde(rename = "received_msat")]
    pub received_amount: Amount,
    /// What payers paid on top.
    #[serde(rename = "received_fees_msat")]
    pub received_fees: Amount,
}

impl Totals {
    /// Adds; sums stay at their largest rather than fail a swap.
    pub(crate) fn add(sum: &mut Amount, amount: Amount) {
        *sum = sum.checked_add(amount).unwrap_or(Amount::from_msat(u64::MAX));
    }
}

/// The gateway's database.
pub(crate) struct Store {
    db: Arc<dyn Database>,
    writing: Mutex<()>,
}

/// One change: reads see its own writes; nobody else changes anything until it is committed or dropped.
pub(crate) struct Change<'a> {
    pub batch: WriteBatch,
    _writing: MutexGuard<'a, ()>,
}

impl Store {
    pub fn new(db: Arc<dyn Database>) -> Self {
        Self { db, writing: Mutex::new(()) }
    }

    /// Committed state.
    pub fn reader(&self) -> &dyn Reader {
        &*self.db
    }

    /// Begins a change.
    pub async fn change(&self) -> Change<'_> {
        let writing = self.writing.lock().await;
        Change { batch: WriteBatch::new(Arc::clone(&self.db)), _writing: writing }
    }

    pub async fn outgoing(&self, id: &ContractId) -> Result<Option<Outgoing>, DbError> {
        OUTGOING.get(self.reader(), id).await
    }

    pub async fn incoming(&self, payment_hash: &[u8; 32]) -> Result<Option<Incoming>, DbError> {
        INCOMING.get(self.reader(), payment_hash).await
    }

    pub async fn open_outgoing(&self) -> Result<Vec<Outgoing>, DbError> {
        let ids: Vec<_> = OPEN_OUTGOING.all(self.reader()).await?.into_iter().map(|(id, ())| id).collect();
        Ok(OUTGOING.get_many(self.reader(), &ids).await?.into_iter().flatten().collect())
    }

    pub async fn open_outgoing_count(&self) -> Result<usize, DbError> {
        Ok(OPEN_OUTGOING.all(self.reader()).await?.len())
    }

    pub async fn open_incoming_count(&self) -> Result<usize, DbError> {
        Ok(OPEN_INCOMING.all(self.reader()).await?.len())
    }

    pub async fn open_incoming(&self) -> Result<Vec<Incoming>, DbError> {
        let hashes: Vec<_> =
            OPEN_INCOMING.all(self.reader()).await?.into_iter().map(|(hash, ())| hash).collect();
        Ok(INCOMING.get_many(self.reader(), &hashes).await?.into_iter().flatten().collect())
    }
}

impl Change<'_> {
    /// Writes an outgoing swap, and keeps the list of open ones.
    pub fn put_outgoing(&mut self, id: &ContractId, swap: &Outgoing) {
        OUTGOING.put(&mut self.batch, id, swap);
        if swap.state.is_closed() {
            OPEN_OUTGOING.delete(&mut self.batch, id);
        } else {
            OPEN_OUTGOING.put(&mut self.batch, id, &());
        }
    }

    /// Writes an incoming swap, and keeps the list of open ones.
    pub fn put_incoming(&mut self, swap: &Incoming) {
        let hash = swap.payment_hash();
        INCOMING.put(&mut self.batch, &hash, swap);
        if swap.state.is_closed() {
            OPEN_INCOMING.delete(&mut self.batch, &hash);
        } else {
            OPEN_INCOMING.put(&mut self.batch, &hash, &());
        }
    }

    /// Changes the sums.
    pub async fn totals(&mut self, change: impl FnOnce(&mut Totals)) -> Result<(), DbError> {
        let mut totals = TOTALS.get(&self.batch, &()).await?.unwrap_or_default();
        change(&mut totals);
        TOTALS.put(&mut self.batch, &(), &totals);
        Ok(())
    }

    /// Makes it durable.
    pub async fn commit(self) -> Result<(), DbError> {
        self.batch.commit().await
    }
}

/// The time since 1970.
pub(crate) fn now() -> Duration {
    // A clock before 1970 makes every invoice look fresh for a while; nothing else depends on it.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

//! What can be done for epochs before their turn to be applied comes: verifying their transactions, and the modules' curve
//! arithmetic. All of it off the async threads, for several epochs at once. None of it changes what applying does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use federation_consensus::Batch;
use federation_core::db::DbError;
use federation_core::module::{AnyPrepared, DynModule, Trust};
use federation_core::{ConsensusItem, ModuleId, OutPoint, PeerId, Transaction};
use federation_store::WriteBatch;
use tokio::task::JoinSet;

use super::apply::Applier;
use super::contribution::Contribution;
use super::verify::Verified;

/// Contributions of several epochs.
pub struct Said {
    contributions: Vec<(u64, PeerId, Bytes)>,
    /// The modules have looked at those before this epoch.
    fresh: u64,
    trust: Trust,
}

/// The modules' items, in the order of their epochs.
type Items = Vec<(u64, PeerId, ConsensusItem)>;
type Transactions = Vec<([u8; 32], Transaction)>;

impl Applier {
    /// Takes note of epochs that are to be looked at; in their order, or the modules may not get to see them.
    pub fn note<'a>(&self, batches: impl IntoIterator<Item = &'a Batch>, trust: Trust) -> Said {
        let mut contributions = Vec::new();
        let mut next = 0;
        for batch in batches {
            next = batch.epoch.saturating_add(1).max(next);
            let of = batch.contributions.iter();
            contributions.extend(of.map(|(peer, bytes)| (batch.epoch, PeerId(*peer), bytes.clone())));
        }
        Said { contributions, fresh: self.looked_at.fetch_max(next, Ordering::Relaxed), trust }
    }

    /// Does ahead what can be done, and reads at once what applying these epochs will read.
    ///
    /// # Errors
    /// If the work was cut off, or the database fails.
    pub async fn look_ahead(&self, db: &WriteBatch, said: Said) -> Result<(), DbError> {
        let verified = self.verify_ahead(said).await?;
        self.read_ahead(db, &verified).await
    }

    /// Verifies these epochs' transactions at once, and lets the modules compute what they will need.
    ///
    /// # Errors
    /// If the work was cut off.
    pub async fn verify_ahead(&self, said: Said) -> Result<Vec<Option<Arc<Verified>>>, DbError> {
        if said.contributions.is_empty() {
            return Ok(Vec::new());
        }
        let trust = said.trust;
        let (items, transactions) = tokio::task::spawn_blocking(move || parse(said))
            .await
            .map_err(|error| DbError::Engine(format!("reading ahead was cut off: {error}")))?;
        let verified = self.verify(transactions, trust).await?;
        self.compute_ahead(items, &verified, trust).await;
        Ok(verified)
    }

    async fn compute_ahead(&self, items: Items, verified: &[Option<Arc<Verified>>], trust: Trust) {
        let items = Arc::new(items);
        let verified: Arc<[_]> = verified.iter().flatten().cloned().collect();
        let mut work = JoinSet::new();
        for (id, module) in self.modules.iter().map(|(id, module)| (*id, Arc::clone(module))) {
            if items.iter().any(|(.., item)| item.module == id) {
                let (items, verified) = (Arc::clone(&items), Arc::clone(&verified));
                work.spawn_blocking(move || look_ahead(id, &*module, &items, &verified, trust));
            }
        }
        while let Some(done) = work.join_next().await {
            if let Err(error) = done {
                // It will be computed when it is needed.
                tracing::warn!(%error, "a module failed to compute ahead");
            }
        }
    }
}

fn look_ahead(id: ModuleId, module: &dyn DynModule, items: &Items, verified: &[Arc<Verified>], trust: Trust) {
    let items: Vec<_> = items
        .iter()
        .filter(|(.., item)| item.module == id)
        .map(|(epoch, from, item)| (*epoch, *from, item.body.as_slice()))
        .collect();
    let outputs: Vec<_> = verified.iter().flat_map(|verified| outputs(id, verified)).collect();
    module.look_ahead(&items, &outputs, trust);
}

/// A transaction's outputs of a module, as far as they can be read.
fn outputs(id: ModuleId, verified: &Verified) -> impl Iterator<Item = (OutPoint, &AnyPrepared)> {
    let outputs = verified.transaction.outputs.iter().zip(&verified.outputs);
    (0..=u16::MAX).zip(outputs).filter_map(move |(index, (output, read))| {
        let read = read.as_ref().ok().filter(|_| output.module == id)?;
        Some((OutPoint { txid: verified.txid, index }, read))
    })
}

fn parse(said: Said) -> (Items, Transactions) {
    let mut items = Items::new();
    let mut transactions = BTreeMap::new();
    for (epoch, peer, bytes) in said.contributions {
        let Ok(contribution) = Contribution::from_bytes(&bytes) else { continue };
        for transaction in contribution.transactions {
            if let Ok(transaction) = Transaction::from_bytes(&transaction) {
                transactions.insert(transaction.hash(), transaction);
            }
        }
        if epoch >= said.fresh {
            items.extend(contribution.items.into_iter().map(|item| (epoch, peer, item)));
        }
    }
    (items, transactions.into_iter().collect())
}

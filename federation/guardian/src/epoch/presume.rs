//! What stands in for verifying where n − f guardians have signed to what state an epoch leads.
//!
//! A guardian that catches up gets such epochs by the hundred. What others have verified it need not verify again: it takes
//! signatures for right, applies the epochs and compares the headers that come of it with the signed ones. n − f guardians could
//! do as they please with the money anyway, so nothing is lost by believing as many. If something was not right after all, the
//! headers differ: nothing of it is kept, and the epochs are applied again with everything verified.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use federation_core::db::DbError;
use federation_core::module::{Registry, Trust};
use federation_core::{FederationId, Transaction};

use super::arrivals::Agreed;
use super::verify::{self, Verified};

/// The most transactions that are remembered: above that all are forgotten, and read again when they are needed.
const CAPACITY: usize = 20_000;
/// Groups of epochs that are verified after one that was wrong: whoever puts a wrong transaction into each must not make
/// this guardian apply everything twice.
const WARY: u32 = 16;

/// Reads transactions without verifying them.
pub struct Presumer {
    federation: FederationId,
    modules: Arc<Registry>,
    /// Never asked for what is to be verified.
    memory: Mutex<HashMap<[u8; 32], Arc<Verified>>>,
    wary: AtomicU32,
}

impl Presumer {
    /// For a federation's modules.
    pub fn new(federation: FederationId, modules: Arc<Registry>) -> Self {
        Self { federation, modules, memory: Mutex::default(), wary: AtomicU32::new(0) }
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<[u8; 32], Arc<Verified>>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What these epochs, that are to be applied later, deserve.
    pub fn trust<'a>(&self, mut epochs: impl Iterator<Item = &'a Agreed>) -> Trust {
        let wary = self.wary.load(Ordering::Relaxed) > 0;
        if !wary && epochs.all(|agreed| agreed.proven.is_some()) { Trust::Signed } else { Trust::Nobody }
    }

    /// What these epochs deserve, which are applied now.
    pub fn trust_now(&self, epochs: &[Agreed]) -> Trust {
        let trust = self.trust(epochs.iter());
        let less = |wary: u32| wary.checked_sub(1);
        let _ = self.wary.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        trust
    }

    /// Some of what was taken for right wasn't.
    pub fn deceived(&self) {
        self.wary.store(WARY, Ordering::Relaxed);
        self.memory().clear();
    }

    /// Reads each transaction, in order.
    ///
    /// # Errors
    /// If the work was cut off.
    pub async fn presume(
        self: &Arc<Self>,
        transactions: Vec<([u8; 32], Transaction)>,
    ) -> Result<Vec<Arc<Verified>>, DbError> {
        let known: Vec<_> = {
            let memory = self.memory();
            transactions.iter().map(|(hash, _)| memory.get(hash).cloned()).collect()
        };
        if known.iter().all(Option::is_some) {
            return Ok(known.into_iter().flatten().collect());
        }
        let this = Arc::clone(self);
        let work = move || {
            let read = |((hash, transaction), known)| match known {
                Some(known) => (hash, known),
                None => (hash, Arc::new(this.read(transaction))),
            };
            let read: Vec<_> = transactions.into_iter().zip(known).map(read).collect();
            let mut memory = this.memory();
            for (hash, verified) in &read {
                if memory.len() >= CAPACITY {
                    memory.clear();
                }
                memory.insert(*hash, Arc::clone(verified));
            }
            read.into_iter().map(|(_, verified)| verified).collect()
        };
        let cut_off = |error| DbError::Engine(format!("reading transactions was cut off: {error}"));
        tokio::task::spawn_blocking(work).await.map_err(cut_off)
    }

    fn read(&self, transaction: Transaction) -> Verified {
        let txid = transaction.txid(self.federation);
        let prepared = transaction.inputs.iter().map(|input| match self.modules.get(&input.module) {
            Some(module) => match module.presume(&[input]).pop() {
                Some(presumed) => presumed.map_err(verify::refusal),
                None => verify::unknown(input.module),
            },
            None => verify::unknown(input.module),
        });
        let prepared = prepared.collect();
        let outputs = transaction.outputs.iter().map(|output| verify::read(&self.modules, output)).collect();
        Verified { transaction, txid, prepared, outputs }
    }

    /// Drops what an epoch has decided.
    pub fn forget(&self, hashes: &[[u8; 32]]) {
        let mut memory = self.memory();
        for hash in hashes {
            memory.remove(hash);
        }
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.memory().len()
    }
}

//! What can be checked without state, off the async runtime: signatures, and what modules
//! prepare. Results are remembered by the hash of the whole transaction, so that what was
//! verified at submission is not verified again in consensus.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use federation_core::module::{AnyPrepared, ModuleError, Registry};
use federation_core::{FederationId, Input, Transaction, TxId};

/// How many verified transactions are remembered.
const REMEMBERED: usize = 20_000;

/// A transaction whose signatures are right, with what its modules found out about its inputs.
pub struct Verified {
    /// The transaction.
    pub transaction: Transaction,
    /// Its id.
    pub txid: TxId,
    /// An entry an input: what applying it needs, or why it is refused.
    pub prepared: Vec<Result<AnyPrepared, (&'static str, String)>>,
}

/// Verifies transactions, and remembers.
pub struct Verifier {
    federation: FederationId,
    modules: Arc<Registry>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    verified: HashMap<[u8; 32], Arc<Verified>>,
    order: VecDeque<[u8; 32]>,
}

impl Verifier {
    /// For one federation and its modules.
    pub fn new(federation: FederationId, modules: Arc<Registry>) -> Self {
        Self { federation, modules, memory: Mutex::default() }
    }

    /// Verifies each transaction, in order; `None` where form or signatures are wrong. CPU-heavy work
    /// runs on the blocking pool, all inputs of a module in one batch.
    pub async fn verify(
        self: &Arc<Self>,
        transactions: Vec<([u8; 32], Transaction)>,
    ) -> Vec<Option<Arc<Verified>>> {
        let known = {
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            transactions.iter().map(|(hash, _)| memory.verified.get(hash).cloned()).collect::<Vec<_>>()
        };
        if known.iter().all(Option::is_some) {
            return known;
        }
        let count = known.len();
        let this = Arc::clone(self);
        let work = tokio::task::spawn_blocking(move || this.verify_unknown(transactions, known));
        work.await.unwrap_or_else(|error| {
            tracing::warn!("verification failed: {error}");
            vec![None; count]
        })
    }

    fn verify_unknown(
        &self,
        transactions: Vec<([u8; 32], Transaction)>,
        mut results: Vec<Option<Arc<Verified>>>,
    ) -> Vec<Option<Arc<Verified>>> {
        let mut unknown = Vec::new();
        for (place, ((hash, transaction), known)) in transactions.into_iter().zip(&results).enumerate() {
            if known.is_none() && transaction.check_signatures(self.federation).is_ok() {
                unknown.push((place, hash, transaction));
            }
        }
        let prepared = self.prepare(unknown.iter().map(|(_, _, transaction)| transaction));
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        for ((place, hash, transaction), prepared) in unknown.into_iter().zip(prepared) {
            let txid = transaction.txid(self.federation);
            let verified = Arc::new(Verified { transaction, txid, prepared });
            memory.remember(hash, Arc::clone(&verified));
            if let Some(slot) = results.get_mut(place) {
                *slot = Some(verified);
            }
        }
        results
    }

    /// Hands all inputs of a module to it at once.
    fn prepare<'a>(
        &self,
        transactions: impl Iterator<Item = &'a Transaction>,
    ) -> Vec<Vec<Result<AnyPrepared, (&'static str, String)>>> {
        let mut results = Vec::new();
        let mut by_module: BTreeMap<_, Vec<(usize, usize, &Input)>> = BTreeMap::new();
        for (t, transaction) in transactions.enumerate() {
            let unknown = || Err(("unknown_module", "no such module in this federation".to_owned()));
            results.push(transaction.inputs.iter().map(|_| unknown()).collect::<Vec<_>>());
            for (i, input) in transaction.inputs.iter().enumerate() {
                by_module.entry(input.module).or_default().push((t, i, input));
            }
        }
        for (id, places) in by_module {
            let Some(module) = self.modules.get(&id) else { continue };
            let inputs: Vec<_> = places.iter().map(|(_, _, input)| *input).collect();
            for ((t, i, _), prepared) in places.iter().zip(module.prepare(&inputs)) {
                if let Some(slot) = results.get_mut(*t).and_then(|tx: &mut Vec<_>| tx.get_mut(*i)) {
                    *slot = prepared.map_err(|error| match error {
                        ModuleError::Refused { code, reason } => (code, reason),
                        ModuleError::Db(error) => ("malformed", error.to_string()),
                    });
                }
            }
        }
        results
    }

    /// Drops what an epoch has decided.
    pub fn forget(&self, hashes: &[[u8; 32]]) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        for hash in hashes {
            memory.verified.remove(hash);
        }
    }
}

impl Memory {
    fn remember(&mut self, hash: [u8; 32], verified: Arc<Verified>) {
        if self.verified.insert(hash, verified).is_none() {
            self.order.push_back(hash);
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.verified.remove(&oldest);
            }
        }
    }
}

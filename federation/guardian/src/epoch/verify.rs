//! What can be checked without state, off the async runtime: signatures, what modules prepare, outputs' bodies. Results
//! are remembered by the hash of the whole transaction, so that what was verified at submission is not verified again in
//! consensus.
//!
//! What users hand in is verified [in batches, one at a time](super::submissions).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use federation_core::db::DbError;
use federation_core::module::{AnyPrepared, ModuleError, Registry};
use federation_core::{FederationId, Input, ModuleId, Output, Transaction, TxId};
use federation_tbs::pool::map_pieces;

use super::submissions::{Submissions, TooMany};

/// How many verified transactions are remembered.
const REMEMBERED: usize = 20_000;
/// How many bytes of them: whoever can sign can have one remembered, as large as a transaction may be.
const REMEMBERED_BYTES: usize = 32 << 20;
/// Fewer transactions than this are not worth a thread for what is done with each alone.
const MIN_PIECE: usize = 8;
/// What a part of a transaction takes beside its body.
const PART_COST: usize = 256;

/// A transaction whose signatures are right, with what its modules found out about its inputs.
pub struct Verified {
    /// The transaction.
    pub transaction: Transaction,
    /// Its id.
    pub txid: TxId,
    /// An entry an input: what applying it needs, or why it is refused.
    pub prepared: Vec<Prepared>,
    /// The same, an entry an output.
    pub outputs: Vec<Prepared>,
}

/// What applying a part of a transaction needs, or why it is refused.
pub type Prepared = Result<AnyPrepared, (&'static str, String)>;

/// `None`: form or signatures are wrong.
type Verdict = Option<Arc<Verified>>;

/// Verifies transactions, and remembers.
pub struct Verifier {
    federation: FederationId,
    modules: Arc<Registry>,
    memory: Mutex<Memory>,
    submissions: Arc<Submissions<Verdict>>,
}

#[derive(Default)]
struct Memory {
    verified: HashMap<[u8; 32], Arc<Verified>>,
    order: VecDeque<[u8; 32]>,
    bytes: usize,
}

impl Verifier {
    /// For one federation and its modules.
    pub fn new(federation: FederationId, modules: Arc<Registry>) -> Self {
        Self { federation, modules, memory: Mutex::default(), submissions: Arc::default() }
    }

    /// Verifies each transaction, in order; `None` where form or signatures are wrong. CPU-heavy work
    /// runs on the blocking pool, all inputs of a module in one batch.
    ///
    /// # Errors
    /// If the work was cut off. Then nothing is known of any of them, and to go on as if they were wrong would
    /// lead this guardian to another state than the others.
    pub async fn verify(
        self: &Arc<Self>,
        transactions: Vec<([u8; 32], Transaction)>,
    ) -> Result<Vec<Option<Arc<Verified>>>, DbError> {
        let known = self.known(&transactions);
        if known.iter().all(Option::is_some) {
            return Ok(known);
        }
        let this = Arc::clone(self);
        let work = tokio::task::spawn_blocking(move || this.verify_unknown(transactions, known));
        work.await.map_err(|error| DbError::Engine(format!("the verification was cut off: {error}")))
    }

    /// The same for one that a user hands in, together with others that are.
    ///
    /// # Errors
    /// If the work was cut off.
    pub async fn verify_submitted(
        self: &Arc<Self>,
        hash: [u8; 32],
        transaction: Transaction,
    ) -> Result<Result<Option<Arc<Verified>>, TooMany>, DbError> {
        if let Some(known) = self.memory().verified.get(&hash) {
            return Ok(Ok(Some(Arc::clone(known))));
        }
        let size = size(&transaction);
        let (verdict, turn) = match self.submissions.push(hash, transaction, size) {
            Ok(pushed) => pushed,
            Err(too_many) => return Ok(Err(too_many)),
        };
        if let Some(mut turn) = turn {
            let this = Arc::clone(self);
            // Not part of this request: whoever hangs up leaves the others their batch.
            tokio::task::spawn_blocking(move || {
                while let Some(batch) = turn.next() {
                    batch.verify(|transactions| {
                        let known = this.known(&transactions);
                        this.verify_unknown(transactions, known)
                    });
                }
            });
        }
        let verdict = verdict.await;
        verdict.map_err(|_| DbError::Engine("the verification was cut off".to_owned()))?.map(Ok)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, transactions: &[([u8; 32], Transaction)]) -> Vec<Verdict> {
        let memory = self.memory();
        transactions.iter().map(|(hash, _)| memory.verified.get(hash).cloned()).collect()
    }

    fn verify_unknown(
        &self,
        transactions: Vec<([u8; 32], Transaction)>,
        mut results: Vec<Verdict>,
    ) -> Vec<Verdict> {
        let unknown = transactions.into_iter().enumerate().zip(&results);
        let unknown: Vec<_> =
            unknown.filter(|(_, known)| known.is_none()).map(|(unknown, _)| unknown).collect();
        let signed: Vec<_> = map_pieces(unknown, MIN_PIECE, |piece| {
            let signed = piece.into_iter().filter_map(|(place, (hash, transaction))| {
                let txid = transaction.check_signatures(self.federation).ok()?;
                let outputs =
                    transaction.outputs.iter().map(|output| read(&self.modules, output)).collect::<Vec<_>>();
                Some((place, hash, txid, transaction, outputs))
            });
            signed.collect()
        });
        let prepared = self.prepare(signed.iter().map(|(_, _, _, transaction, _)| transaction));
        let mut memory = self.memory();
        for ((place, hash, txid, transaction, outputs), prepared) in signed.into_iter().zip(prepared) {
            let verified = Arc::new(Verified { transaction, txid, prepared, outputs });
            memory.remember(hash, Arc::clone(&verified));
            if let Some(slot) = results.get_mut(place) {
                *slot = Some(verified);
            }
        }
        results
    }

    /// Hands all inputs of a module to it at once.
    fn prepare<'a>(&self, transactions: impl Iterator<Item = &'a Transaction>) -> Vec<Vec<Prepared>> {
        let mut results = Vec::new();
        let mut by_module: BTreeMap<_, Vec<(usize, usize, &Input)>> = BTreeMap::new();
        for (t, transaction) in transactions.enumerate() {
            results.push(transaction.inputs.iter().map(|input| unknown(input.module)).collect::<Vec<_>>());
            for (i, input) in transaction.inputs.iter().enumerate() {
                by_module.entry(input.module).or_default().push((t, i, input));
            }
        }
        for (id, places) in by_module {
            let Some(module) = self.modules.get(&id) else { continue };
            let inputs: Vec<_> = places.iter().map(|(_, _, input)| *input).collect();
            for ((t, i, _), prepared) in places.iter().zip(module.prepare(&inputs)) {
                if let Some(slot) = results.get_mut(*t).and_then(|tx: &mut Vec<_>| tx.get_mut(*i)) {
                    *slot = prepared.map_err(refusal);
                }
            }
        }
        results
    }

    /// Whose transactions it verifies.
    pub fn federation(&self) -> FederationId {
        self.federation
    }

    #[cfg(test)]
    pub(super) fn remembered_bytes(&self) -> usize {
        self.memory().bytes
    }

    /// Drops what an epoch has decided.
    pub fn forget(&self, hashes: &[[u8; 32]]) {
        let mut memory = self.memory();
        for hash in hashes {
            memory.remove(hash);
        }
    }
}

/// Reads an output.
pub(super) fn read(modules: &Registry, output: &Output) -> Prepared {
    match modules.get(&output.module) {
        Some(module) => module.read_output(output).map_err(refusal),
        None => unknown(output.module),
    }
}

pub(super) fn unknown(module: ModuleId) -> Prepared {
    Err(("unknown_module", format!("there is no module {module} in this federation")))
}

pub(super) fn refusal(error: ModuleError) -> (&'static str, String) {
    match error {
        ModuleError::Refused { code, reason } => (code, reason),
        ModuleError::Db(error) => ("malformed", error.to_string()),
    }
}

/// About what a transaction takes.
fn size(transaction: &Transaction) -> usize {
    let inputs = transaction.inputs.iter().map(|input| input.body.len());
    let outputs = transaction.outputs.iter().map(|output| output.body.len());
    inputs.chain(outputs).fold(0, |sum, body| sum.saturating_add(body).saturating_add(PART_COST))
}

impl Memory {
    fn remember(&mut self, hash: [u8; 32], verified: Arc<Verified>) {
        self.remove(&hash);
        self.bytes = self.bytes.saturating_add(size(&verified.transaction));
        self.verified.insert(hash, verified);
        self.order.push_back(hash);
        while self.order.len() > REMEMBERED || self.bytes > REMEMBERED_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, hash: &[u8; 32]) {
        if let Some(verified) = self.verified.remove(hash) {
            self.bytes = self.bytes.saturating_sub(size(&verified.transaction));
        }
    }
}

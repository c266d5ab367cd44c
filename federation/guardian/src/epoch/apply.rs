//! Applies one agreed batch: module items, then each distinct transaction, then the end of the
//! epoch; all in one write batch. It depends on agreed state only, so that every guardian comes to
//! the same result.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use federation_core::db::{Database, DbError};
use federation_core::encoding::tagged_hash;
use federation_core::module::{Epoch, ModuleError, Registry, Trust};
use federation_core::{Amount, ConsensusItem, OutPoint, PeerId, Transaction};
use federation_store::WriteBatch;

use super::contribution::Contribution;
use super::faults::{Fault, Faults};
use super::presume::Presumer;
use super::verify::{Verified, Verifier};
use super::version::{self, Versions};
use crate::error::GuardianError;
use crate::state::{self, Decided, REJECTED, REJECTIONS, TRANSACTIONS};

/// What an epoch did, beside what is in the write batch.
#[derive(Default)]
pub struct Applied {
    /// The hashes of all transactions that are decided.
    pub decided: Vec<[u8; 32]>,
    /// How many were accepted.
    pub accepted: usize,
    /// How many were rejected.
    pub rejected: usize,
    /// Provable faults of guardians: contributions, items or witnesses that no honest one sends.
    pub faults: Faults,
    /// The consensus version that it was applied under.
    pub version: u16,
}

/// Applies batches.
pub struct Applier {
    pub(super) modules: Arc<Registry>,
    pub(super) verifier: Arc<Verifier>,
    pub(super) presumer: Arc<Presumer>,
    versions: Versions,
    /// The modules have been shown all epochs before this one.
    pub(super) looked_at: AtomicU64,
}

impl Applier {
    /// For a federation's modules.
    pub fn new(modules: Arc<Registry>, verifier: Arc<Verifier>, versions: Versions) -> Self {
        let presumer = Arc::new(Presumer::new(verifier.federation(), Arc::clone(&modules)));
        Self { modules, verifier, presumer, versions, looked_at: AtomicU64::new(0) }
    }

    /// Which rules are in force, and who knows newer ones.
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Drops what is remembered of transactions that an epoch has decided.
    pub fn forget(&self, decided: &[[u8; 32]]) {
        self.verifier.forget(decided);
        self.presumer.forget(decided);
    }

    /// From `epoch` on, something that was taken for right wasn't: nothing that followed from it is kept.
    pub fn deceived(&self, epoch: u64) {
        self.presumer.deceived();
        self.distrust(epoch);
    }

    /// Before epochs from `epoch` on are applied with everything verified: whatever was computed on trust is dropped. It may be
    /// wrong even where the headers were right, since what isn't used makes no difference to them.
    pub fn verifies(&self, epoch: u64) {
        if self.presumer.has_trusted() {
            self.distrust(epoch);
        }
    }

    fn distrust(&self, epoch: u64) {
        for module in self.modules.values() {
            module.distrust();
        }
        self.looked_at.store(epoch, Ordering::Relaxed);
    }

    /// Verifies transactions, as far as `trust` asks for it. `None` where a signature is wrong.
    ///
    /// # Errors
    /// If the work was cut off.
    pub(super) async fn verify(
        &self,
        transactions: Vec<([u8; 32], Transaction)>,
        trust: Trust,
    ) -> Result<Vec<Option<Arc<Verified>>>, DbError> {
        match trust {
            Trust::Nobody => self.verifier.verify(transactions).await,
            Trust::Signed => Ok(self.presumer.presume(transactions).await?.into_iter().map(Some).collect()),
        }
    }

    /// Applies the contributions of an epoch to `db`.
    ///
    /// # Errors
    /// [`GuardianError::TooOld`] if this program doesn't know the rules of this epoch: nothing is applied then.
    pub async fn apply(
        &self,
        db: &mut WriteBatch,
        number: u64,
        batch_hash: [u8; 32],
        contributions: impl IntoIterator<Item = (PeerId, bytes::Bytes)>,
        trust: Trust,
    ) -> Result<Applied, GuardianError> {
        let version = self.versions.in_force(&state::agreed(db)).await?;
        self.versions.check(version)?;
        let epoch = Epoch { number, version };
        let mut applied = Applied { version, ..Applied::default() };
        let mut items = Vec::new();
        let mut transactions = BTreeMap::new();
        for (peer, bytes) in contributions {
            match Contribution::from_bytes(&bytes) {
                Ok(contribution) => {
                    items.extend(contribution.items.into_iter().map(|item| (peer, item)));
                    for bytes in contribution.transactions {
                        read_transaction(peer, &bytes, &mut transactions, &mut applied);
                    }
                }
                Err(error) => applied.faults.add(peer, Fault::Contribution, || error.to_string()),
            }
        }
        self.apply_items(db, epoch, items, &mut applied).await?;
        self.apply_transactions(db, epoch, batch_hash, transactions, trust, &mut applied).await?;
        for (id, module) in self.modules.iter() {
            module.end_epoch(&mut state::module(db, *id), epoch).await?;
        }
        self.versions.end_epoch(&mut state::agreed(db)).await?;
        Ok(applied)
    }

    /// Applies one transaction to a copy of the committed state that is thrown away.
    pub async fn try_one(
        &self,
        db: &Arc<dyn Database>,
        number: u64,
        verified: &Arc<Verified>,
    ) -> Result<Option<Decided>, DbError> {
        let mut trial = WriteBatch::new(Arc::clone(db));
        self.read_ahead(&trial, &[Some(Arc::clone(verified))]).await?;
        let version = self.versions.in_force(&state::agreed(&mut trial)).await?;
        self.apply_one(&mut trial, Epoch { number, version }, verified).await
    }

    /// One query for what applying these will read.
    pub(super) async fn read_ahead(
        &self,
        db: &WriteBatch,
        transactions: &[Option<Arc<Verified>>],
    ) -> Result<(), DbError> {
        let mut keys = BTreeSet::from([state::agreed_key(&Versions::in_force_key())]);
        for verified in transactions.iter().flatten() {
            keys.insert(state::transaction_key(&verified.txid));
            let transaction = &verified.transaction;
            let inputs = transaction.inputs.iter().zip(&verified.prepared).filter_map(|(input, prepared)| {
                let module = self.modules.get(&input.module)?;
                Some((input.module, module.input_reads(input, prepared.as_ref().ok()?)))
            });
            let outputs = transaction.outputs.iter().zip(&verified.outputs).filter_map(|(output, read)| {
                let module = self.modules.get(&output.module)?;
                Some((output.module, module.output_reads(read.as_ref().ok()?)))
            });
            for (module, reads) in inputs.chain(outputs) {
                keys.extend(reads.iter().map(|key| state::module_key(module, key)));
            }
        }
        db.prefetch(keys.into_iter().collect()).await
    }

    async fn apply_items(
        &self,
        db: &mut WriteBatch,
        epoch: Epoch,
        mut items: Vec<(PeerId, ConsensusItem)>,
        applied: &mut Applied,
    ) -> Result<(), DbError> {
        // Stable: within a module by guardian, and a guardian's own order is kept.
        items.sort_by_key(|(_, item)| item.module);
        for (peer, item) in items {
            let module = self.modules.get(&item.module);
            db.savepoint();
            let result = match module {
                _ if item.module == version::MODULE => {
                    self.versions.apply(&mut state::agreed(db), peer, &item.body).await
                }
                Some(module) => {
                    module.apply_item(&mut state::module(db, item.module), epoch, peer, &item.body).await
                }
                None => {
                    db.release();
                    applied.faults.add(peer, Fault::UnknownModule, || format!("module {}", item.module));
                    continue;
                }
            };
            match result {
                Ok(()) => db.release(),
                Err(ModuleError::Refused { code, reason }) => {
                    db.rollback();
                    let kind = module.map_or("consensus version", |module| module.kind());
                    applied.faults.add(peer, Fault::Item, || format!("{kind}: {reason} ({code})"));
                }
                Err(ModuleError::Db(error)) => return Err(error),
            }
        }
        Ok(())
    }

    async fn apply_transactions(
        &self,
        db: &mut WriteBatch,
        epoch: Epoch,
        batch_hash: [u8; 32],
        transactions: BTreeMap<[u8; 32], (PeerId, Transaction)>,
        trust: Trust,
        applied: &mut Applied,
    ) -> Result<(), DbError> {
        // Who proposed what, or how a transaction's hash was ground, gives no advantage.
        let mut ordered: Vec<_> = transactions.into_iter().collect();
        ordered.sort_by_cached_key(|(hash, _)| tagged_hash("cln-federation/order", &[&batch_hash, hash]));
        let (peers, transactions): (Vec<_>, Vec<_>) = ordered
            .into_iter()
            .map(|(hash, (peer, transaction))| ((hash, peer), (hash, transaction)))
            .unzip();
        let verified = self.verify(transactions, trust).await?;
        self.read_ahead(db, &verified).await?;
        let mut rejected = Vec::new();
        for ((hash, peer), verified) in peers.into_iter().zip(verified) {
            applied.decided.push(hash);
            let Some(verified) = verified else {
                // A bad witness never sets a transaction's status: the right one may still come.
                applied
                    .faults
                    .add(peer, Fault::Signature, || "the transaction counts for nothing".to_owned());
                continue;
            };
            let decided = match trust {
                Trust::Nobody => self.apply_one(db, epoch, &verified).await?,
                Trust::Signed => match self.apply_presumed(db, epoch, hash, &verified).await? {
                    Some(decided) => decided,
                    None => {
                        applied
                            .faults
                            .add(peer, Fault::Signature, || "the transaction counts for nothing".to_owned());
                        continue;
                    }
                },
            };
            match decided {
                Some(Decided::Accepted { .. }) => applied.accepted = applied.accepted.saturating_add(1),
                Some(Decided::Rejected { .. }) => rejected.push(verified.txid),
                None => {}
            }
        }
        applied.rejected = rejected.len();
        if !rejected.is_empty() {
            REJECTIONS.put(&mut state::history(db), &epoch.number, &rejected);
        }
        Ok(())
    }

    /// Applies one whose signatures are taken for right. What is refused isn't in the state, so the signed headers say nothing about
    /// it: it is verified before anybody is told that it was refused, and why. `None`: its witness is wrong.
    async fn apply_presumed(
        &self,
        db: &mut WriteBatch,
        epoch: Epoch,
        hash: [u8; 32],
        presumed: &Verified,
    ) -> Result<Option<Option<Decided>>, DbError> {
        db.savepoint();
        let decided = self.apply_one(db, epoch, presumed).await?;
        if !matches!(decided, Some(Decided::Rejected { .. })) {
            db.release();
            return Ok(Some(decided));
        }
        db.rollback();
        let verified = self.verifier.verify(vec![(hash, presumed.transaction.clone())]).await?.pop();
        match verified.flatten() {
            Some(verified) => self.apply_one(db, epoch, &verified).await.map(Some),
            None => Ok(None),
        }
    }

    /// Applies one transaction, or leaves no trace but the reason. `None` if it was accepted before.
    pub async fn apply_one(
        &self,
        db: &mut WriteBatch,
        epoch: Epoch,
        verified: &Verified,
    ) -> Result<Option<Decided>, DbError> {
        let txid = verified.txid;
        if let Some(Decided::Accepted { .. }) = TRANSACTIONS.get(&state::agreed(db), &txid).await? {
            return Ok(None);
        }
        db.savepoint();
        let decided = match self.try_apply(db, epoch, verified).await {
            Ok(()) => {
                db.release();
                let outputs = verified.transaction.outputs.iter().map(|output| output.module).collect();
                Decided::Accepted { epoch: epoch.number, outputs }
            }
            Err(ModuleError::Refused { code, reason }) => {
                db.rollback();
                Decided::Rejected { epoch: epoch.number, code: code.to_owned(), reason }
            }
            Err(ModuleError::Db(error)) => return Err(error),
        };
        match &decided {
            Decided::Accepted { .. } => {
                TRANSACTIONS.put(&mut state::agreed(db), &txid, &decided);
                REJECTED.delete(&mut state::history(db), &txid);
            }
            Decided::Rejected { .. } => REJECTED.put(&mut state::history(db), &txid, &decided),
        }
        Ok(Some(decided))
    }

    async fn try_apply(
        &self,
        db: &mut WriteBatch,
        epoch: Epoch,
        verified: &Verified,
    ) -> Result<(), ModuleError> {
        let overflow = || ModuleError::refused("overflow", "the amounts are larger than all money there is");
        let unknown = |id| {
            ModuleError::refused("unknown_module", format!("there is no module {id} in this federation"))
        };
        let transaction = &verified.transaction;
        let mut funds = Amount::ZERO;
        let mut costs = Amount::ZERO;
        let mut seen = BTreeSet::new();
        for (input, prepared) in transaction.inputs.iter().zip(&verified.prepared) {
            if !seen.insert((input.module, input.key.serialize(), input.body.as_slice())) {
                return Err(ModuleError::refused("double_spend", "the transaction has the same input twice"));
            }
            let module = self.modules.get(&input.module).ok_or_else(|| unknown(input.module))?;
            let prepared = prepared.as_ref().map_err(refused)?;
            let value =
                module.apply_input(&mut state::module(db, input.module), epoch, input, prepared).await?;
            funds = funds.checked_add(value.amount).ok_or_else(overflow)?;
            costs = costs.checked_add(value.fee).ok_or_else(overflow)?;
        }
        for (index, (output, read)) in transaction.outputs.iter().zip(&verified.outputs).enumerate() {
            let module = self.modules.get(&output.module).ok_or_else(|| unknown(output.module))?;
            let read = read.as_ref().map_err(refused)?;
            let index = u16::try_from(index).map_err(|_| overflow())?;
            let point = OutPoint { txid: verified.txid, index };
            let value =
                module.apply_output(&mut state::module(db, output.module), epoch, point, read).await?;
            costs = costs
                .checked_add(value.amount)
                .and_then(|sum| sum.checked_add(value.fee))
                .ok_or_else(overflow)?;
        }
        if funds < costs {
            return Err(ModuleError::refused(
                "unbalanced",
                format!("the inputs bring {funds}, but outputs and fees take {costs}"),
            ));
        }
        Ok(())
    }
}

fn refused((code, reason): &(&'static str, String)) -> ModuleError {
    ModuleError::Refused { code, reason: reason.clone() }
}

fn read_transaction(
    peer: PeerId,
    bytes: &[u8],
    transactions: &mut BTreeMap<[u8; 32], (PeerId, Transaction)>,
    applied: &mut Applied,
) {
    match Transaction::from_bytes(bytes) {
        Ok(transaction) => {
            transactions.entry(transaction.hash()).or_insert((peer, transaction));
        }
        Err(error) => applied.faults.add(peer, Fault::Transaction, || error.to_string()),
    }
}

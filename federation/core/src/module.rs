//! What a module is: inputs, outputs and consensus items of one kind of money, and their rules.
//!
//! A module implements [`ServerModule`] with its own types. The guardian holds modules as
//! [`DynModule`] in a [`Registry`]; the bytes of envelopes are decoded in between
//! ([`erased`]), so that core, consensus and store never look inside.
//!
//! The life of an epoch, as a module sees it: `apply_item` for each guardian's items, then for each
//! transaction `apply_input` (with what `prepare` found out beforehand) and `apply_output`, then
//! `end_epoch`. All of it must depend on agreed state only: the same calls on the same state give
//! the same writes on every guardian.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::secp256k1::XOnlyPublicKey;
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::api::Route;
use crate::db::{DbError, Namespaced, Reader};
use crate::encoding::{decode, encode};
use crate::{Amount, ConsensusItem, Input, ModuleId, OutPoint, Output, PeerId};

/// The largest body of an input or an output, in bytes.
pub const MAX_BODY: usize = 420_000;
/// The largest body of one consensus item, in bytes.
pub const MAX_ITEM: usize = 512 * 1024;

/// Called by a module when it has something new to propose (a block, a finished computation).
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Why a module does not accept something.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// It breaks a rule. The same on every guardian.
    #[error("{reason} ({code})")]
    Refused {
        /// A stable code, such as `double_spend`.
        code: &'static str,
        /// The sentence for a person.
        reason: String,
    },
    /// The store failed: the guardian stops.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl ModuleError {
    /// A broken rule.
    pub fn refused(code: &'static str, reason: impl Into<String>) -> Self {
        Self::Refused { code, reason: reason.into() }
    }
}

/// What an input brings or an output takes, and what the federation charges for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// The face amount.
    pub amount: Amount,
    /// The fee for processing it, on top.
    pub fee: Amount,
}

impl Value {
    /// An amount without a fee.
    pub fn free(amount: Amount) -> Self {
        Self { amount, fee: Amount::ZERO }
    }
}

/// Consensus items that a guardian would like to have in the next epoch.
pub struct Proposal<I> {
    /// The items.
    pub items: Vec<I>,
    /// Whether they are reason enough to open an epoch, or can wait for one.
    pub opens_epoch: bool,
}

impl<I> Proposal<I> {
    /// No items.
    pub fn none() -> Self {
        Self { items: Vec::new(), opens_epoch: false }
    }
}

/// Where an epoch stands.
#[derive(Clone, Copy, Debug)]
pub struct Epoch {
    /// Its number, from 0.
    pub number: u64,
    /// The consensus version in force: which rules it is applied under.
    pub version: u16,
}

/// One line of the audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    /// What it is, such as `confirmed coins`.
    pub name: String,
    /// msat; positive: what the federation has, negative: what it owes.
    pub amount_msat: i64,
}

/// How much of an epoch is taken for right without a look, because others have looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Nothing.
    Nobody,
    /// n − f guardians, as many as hold the money, have signed to what state the epoch leads. What is wrongly taken for right leads
    /// to another one; then nothing of it is kept, and the epoch is applied again, trusting nobody.
    Signed,
}

/// A module with its own types. `Input`, `Output` and `Item` are what the envelopes' bodies hold.
#[async_trait]
pub trait ServerModule: Send + Sync + 'static {
    /// The body of an input.
    type Input: BorshSerialize + BorshDeserialize + Send + Sync + 'static;
    /// The body of an output.
    type Output: BorshSerialize + BorshDeserialize + Send + Sync + 'static;
    /// The body of a consensus item.
    type Item: BorshSerialize + BorshDeserialize + Send + Sync + 'static;
    /// What becomes of an output.
    type Outcome: BorshSerialize + BorshDeserialize + Serialize + Send + Sync + 'static;
    /// What [`prepare`](Self::prepare) finds out about one input.
    type Prepared: Send + Sync + 'static;

    /// The kind of module, such as `mint`; the name of its API.
    fn kind(&self) -> &'static str;

    /// What this guardian wants to say now. Reads committed state; must not depend on time.
    async fn propose(&self, db: &dyn Reader) -> Result<Proposal<Self::Item>, DbError>;

    /// Applies what a guardian said. Refused means the guardian's fault: it is counted.
    async fn apply_item(
        &self,
        db: &mut Namespaced<'_>,
        epoch: Epoch,
        from: PeerId,
        item: Self::Item,
    ) -> Result<(), ModuleError>;

    /// Verifies many inputs at once, without state: pure, CPU-heavy, called on the pool. The result has
    /// an entry an input. Called at submission, and for all of an epoch's inputs that were not seen
    /// at submission.
    fn prepare(&self, inputs: &[(XOnlyPublicKey, Self::Input)]) -> Vec<Result<Self::Prepared, ModuleError>>;

    /// Stands in for [`prepare`](Self::prepare) where [`Trust::Signed`] is due: checks that are costly, and that a wrong input would
    /// have failed at the other guardians as well, may be left out.
    fn presume(&self, inputs: &[(XOnlyPublicKey, Self::Input)]) -> Vec<Result<Self::Prepared, ModuleError>> {
        self.prepare(inputs)
    }

    /// Keys that taking this input reads, as far as they are known beforehand: those of all of an epoch's transactions are
    /// read with one query. No more than a hint.
    fn input_reads(&self, _key: &XOnlyPublicKey, _input: &Self::Input) -> Vec<Vec<u8>> {
        Vec::new()
    }

    /// The same for taking on an output.
    fn output_reads(&self, _output: &Self::Output) -> Vec<Vec<u8>> {
        Vec::new()
    }

    /// Computes for several epochs at once what applying them will need: `items` with their epoch and guardian, in order,
    /// and the `outputs` of their transactions, accepted or not. Pure, CPU-heavy, called on the pool while earlier epochs are
    /// applied; for some epochs never. It may fill a bounded memory: that must not change what applying does, only how fast. But
    /// for what was computed with [`Trust::Signed`], which is good for epochs that are applied so, until [`distrust`](Self::distrust).
    fn look_ahead(
        &self,
        _items: &[(u64, PeerId, Self::Item)],
        _outputs: &[(OutPoint, &Self::Output)],
        _trust: Trust,
    ) {
    }

    /// Drops all that was computed ahead: some of it led to a wrong state.
    fn distrust(&self) {}

    /// Takes the money of an input, once for ever.
    async fn apply_input(
        &self,
        db: &mut Namespaced<'_>,
        epoch: Epoch,
        key: XOnlyPublicKey,
        input: &Self::Input,
        prepared: &Self::Prepared,
    ) -> Result<Value, ModuleError>;

    /// Takes on an output.
    async fn apply_output(
        &self,
        db: &mut Namespaced<'_>,
        epoch: Epoch,
        point: OutPoint,
        output: &Self::Output,
    ) -> Result<Value, ModuleError>;

    /// After the last transaction of the epoch.
    async fn end_epoch(&self, db: &mut Namespaced<'_>, epoch: Epoch) -> Result<(), DbError>;

    /// After the commit of this epoch, and maybe of others before it that come without a call of their own: wake tasks,
    /// broadcast what became final. Never blocks for long.
    async fn committed(&self, _db: &dyn Reader, _epoch: Epoch) -> Result<(), DbError> {
        Ok(())
    }

    /// What became of an accepted output: `None` while it is pending.
    async fn outcome(&self, db: &dyn Reader, point: OutPoint) -> Result<Option<Self::Outcome>, DbError>;

    /// What the federation has and owes through this module.
    async fn audit(&self, db: &dyn Reader) -> Result<Vec<AuditLine>, DbError>;

    /// The module's public configuration, for people and clients in any language.
    fn config_json(&self) -> serde_json::Value;

    /// The module's REST endpoints.
    fn routes(self: Arc<Self>) -> Vec<Route>;

    /// What a status page should shout about, one sentence each.
    async fn alarms(&self, _db: &dyn Reader) -> Result<Vec<String>, DbError> {
        Ok(Vec::new())
    }
}

/// An input with what [`ServerModule::prepare`] found out, or an output that was read; without its type.
pub type AnyPrepared = Arc<dyn Any + Send + Sync>;

/// An outcome as bytes for clients of this project and as JSON for everybody.
pub struct AnyOutcome {
    /// The canonical encoding.
    pub bytes: Vec<u8>,
    /// The same in JSON.
    pub json: serde_json::Value,
}

/// A [`ServerModule`] whose types are hidden behind bytes. Methods are those of [`ServerModule`].
#[async_trait]
#[allow(missing_docs, reason = "each method is documented at ServerModule")]
pub trait DynModule: Send + Sync {
    fn kind(&self) -> &'static str;
    async fn propose(&self, db: &dyn Reader) -> Result<Proposal<Vec<u8>>, DbError>;
    async fn apply_item(
        &self,
        db: &mut Namespaced<'_>,
        epoch: Epoch,
        from: PeerId,
        item: &[u8],
    ) -> Result<(), ModuleError>;
    fn prepare(&self, inputs: &[&Input]) -> Vec<Result<AnyPrepared, ModuleError>>;
    fn presume(&self, inputs: &[&Input]) -> Vec<Result<AnyPrepared, ModuleError>>;
    /// Decodes an output: CPU-heavy where there are curve points in it, called on the pool.
    fn read_output(&self, output: &Output) -> Result<AnyPrepared, ModuleError>;
    fn input_reads(&self, input: &Input, prepared: &AnyPrepared) -> Vec<Vec<u8>>;
    fn output_reads(&self, output: &AnyPrepared) -> Vec<Vec<u8>>;
    fn look_ahead(&self, items: &[(u64, PeerId, &[u8])], outputs: &[(OutPoint, &AnyPrepared)], trust: Trust);
    fn distrust(&self);
    async fn apply_input(
        &self,
        db: &mut Namespaced<'_>,
        epoch: Epoch,
        input: &Input,
        prepared: &AnyPrepared,
    ) -> Result<Value, ModuleError>;
    async fn apply_output(
        &self,
        db: &mut Namespaced<'_>,
        epoch: Epoch,
        point: OutPoint,
        output: &AnyPrepared,
    ) -> Result<Value, ModuleError>;
    async fn end_epoch(&self, db: &mut Namespaced<'_>, epoch: Epoch) -> Result<(), DbError>;
    async fn committed(&self, db: &dyn Reader, epoch: Epoch) -> Result<(), DbError>;
    async fn outcome(&self, db: &dyn Reader, point: OutPoint) -> Result<Option<AnyOutcome>, DbError>;
    async fn audit(&self, db: &dyn Reader) -> Result<Vec<AuditLine>, DbError>;
    fn config_json(&self) -> serde_json::Value;
    fn routes(&self) -> Vec<Route>;
    async fn alarms(&self, db: &dyn Reader) -> Result<Vec<String>, DbError>;
}

/// The modules of a federation by their instance ids.
pub type Registry = BTreeMap<ModuleId, Arc<dyn DynModule>>;

/// Hides a module's types.
pub fn erased<M: ServerModule>(module: Arc<M>) -> Arc<dyn DynModule> {
    Arc::new(Erased(module))
}

/// The envelope of an item.
pub fn item(module: ModuleId, body: Vec<u8>) -> ConsensusItem {
    ConsensusItem { module, body }
}

struct Erased<M>(Arc<M>);

/// What an input turns into once its bytes are read: kept beside what the module found out, so that
/// applying does not decode again.
struct Decoded<M: ServerModule> {
    input: M::Input,
    prepared: M::Prepared,
}

/// The types of something that came back. Another module's can't: the guardian keeps them apart.
fn known<T: 'static>(prepared: &AnyPrepared) -> Result<&T, ModuleError> {
    prepared.downcast_ref().ok_or_else(|| ModuleError::refused("malformed", "prepared by another module"))
}

fn read<T: BorshDeserialize>(bytes: &[u8], limit: usize) -> Result<T, ModuleError> {
    decode(bytes, limit).map_err(|error| ModuleError::refused("malformed", error.to_string()))
}

/// [`ServerModule::prepare`], or what stands in for it.
type Prepare<M> = fn(
    &M,
    &[(XOnlyPublicKey, <M as ServerModule>::Input)],
) -> Vec<Result<<M as ServerModule>::Prepared, ModuleError>>;

impl<M: ServerModule> Erased<M> {
    fn prepare_by(&self, inputs: &[&Input], prepare: Prepare<M>) -> Vec<Result<AnyPrepared, ModuleError>> {
        let mut results: Vec<Result<AnyPrepared, ModuleError>> = Vec::with_capacity(inputs.len());
        let mut readable = Vec::with_capacity(inputs.len());
        let mut places = Vec::with_capacity(inputs.len());
        for (place, input) in inputs.iter().enumerate() {
            match read::<M::Input>(&input.body, MAX_BODY) {
                Ok(body) => {
                    readable.push((input.key, body));
                    places.push(place);
                    results.push(Err(ModuleError::refused("malformed", "not prepared")));
                }
                Err(error) => results.push(Err(error)),
            }
        }
        let prepared = prepare(&self.0, &readable);
        for ((place, (_, input)), prepared) in places.into_iter().zip(readable).zip(prepared) {
            if let Some(slot) = results.get_mut(place) {
                *slot = prepared.map(|prepared| Arc::new(Decoded::<M> { input, prepared }) as AnyPrepared);
            }
        }
        results
    }
}

#[async_trait]
impl<M: ServerModule> DynModule for Erased<M> {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    async fn propose(&self, db: &dyn Reader) -> Result<Proposal<Vec<u8>>, DbError> {
        let proposal = self.0.propose(db).await?;
        Ok(Proposal { items: proposal.items.iter().map(encode).collect(), opens_epoch: proposal.opens_epoch })
    }

    async fn apply_item(
        &self,
        db: &mut Namespaced<'_>,
        epoch: Epoch,
        from: PeerId,
        item: &[u8],
    ) -> Result<(), ModuleError> {
        self.0.apply_item(db, epoch, from, read(item, MAX_ITEM)?).await
    }

    fn prepare(&self, inputs: &[&Input]) -> Vec<Result<AnyPrepared, ModuleError>> {
        self.prepare_by(inputs, M::prepare)
    }

    fn presume(&self, inputs: &[&Input]) -> Vec<Result<AnyPrepared, ModuleError>> {
        self.prepare_by(inputs, M::presume)
    }

    fn read_output(&self, output: &Output) -> Result<AnyPrepared, ModuleError> {
        Ok(Arc::new(read::<M::Output>(&output.body, MAX_BODY)?))
    }

    fn input_reads(&self, input: &Input, prepared: &AnyPrepared) -> Vec<Vec<u8>> {
        known::<Decoded<M>>(prepared).map_or(Vec::new(), |known| self.0.input_reads(&input.key, &known.input))
    }

    fn output_reads(&self, output: &AnyPrepared) -> Vec<Vec<u8>> {
        known(output).map_or(Vec::new(), |output| self.0.output_reads(output))
    }

    fn look_ahead(&self, items: &[(u64, PeerId, &[u8])], outputs: &[(OutPoint, &AnyPrepared)], trust: Trust) {
        let items: Vec<_> = items
            .iter()
            .filter_map(|(epoch, from, item)| Some((*epoch, *from, read(item, MAX_ITEM).ok()?)))
            .collect();
        let outputs: Vec<_> =
            outputs.iter().filter_map(|(point, output)| Some((*point, known(output).ok()?))).collect();
        self.0.look_ahead(&items, &outputs, trust);
    }

    fn distrust(&self) {
        self.0.distrust();
    }

    async fn apply_input(
        &self,
        db: &mut Namespaced<'_>,
        epoch: Epoch,
        input: &Input,
        prepared: &AnyPrepared,
    ) -> Result<Value, ModuleError> {
        let decoded: &Decoded<M> = known(prepared)?;
        self.0.apply_input(db, epoch, input.key, &decoded.input, &decoded.prepared).await
    }

    async fn apply_output(
        &self,
        db: &mut Namespaced<'_>,
        epoch: Epoch,
        point: OutPoint,
        output: &AnyPrepared,
    ) -> Result<Value, ModuleError> {
        self.0.apply_output(db, epoch, point, known(output)?).await
    }

    async fn end_epoch(&self, db: &mut Namespaced<'_>, epoch: Epoch) -> Result<(), DbError> {
        self.0.end_epoch(db, epoch).await
    }

    async fn committed(&self, db: &dyn Reader, epoch: Epoch) -> Result<(), DbError> {
        self.0.committed(db, epoch).await
    }

    async fn outcome(&self, db: &dyn Reader, point: OutPoint) -> Result<Option<AnyOutcome>, DbError> {
        let Some(outcome) = self.0.outcome(db, point).await? else { return Ok(None) };
        let json = serde_json::to_value(&outcome)
            .map_err(|error| DbError::Corrupt { table: "outcome".to_owned(), reason: error.to_string() })?;
        Ok(Some(AnyOutcome { bytes: encode(&outcome), json }))
    }

    async fn audit(&self, db: &dyn Reader) -> Result<Vec<AuditLine>, DbError> {
        self.0.audit(db).await
    }

    fn config_json(&self) -> serde_json::Value {
        self.0.config_json()
    }

    fn routes(&self) -> Vec<Route> {
        Arc::clone(&self.0).routes()
    }

    async fn alarms(&self, db: &dyn Reader) -> Result<Vec<String>, DbError> {
        self.0.alarms(db).await
    }
}

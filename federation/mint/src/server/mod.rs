//! The mint's rules, as a guardian applies them.
//!
//! Everything that is written depends on agreed state alone. What is kept in memory (`signer`, `ahead`, `early`) is a cache of
//! pure functions of an output's content, which its txid commits to.
//!
//! Curve arithmetic runs on tokio's blocking threads, spread over the cores from there.

mod ahead;
mod audit;
mod early;
mod finish;
mod issue;
mod routes;
mod signer;
mod spend;
mod tables;

use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::secp256k1::XOnlyPublicKey;
use federation_core::api::Route;
use federation_core::db::{DbError, Namespaced, Reader};
use federation_core::module::{AuditLine, Epoch, ModuleError, Proposal, ServerModule, Trust, Value};
use federation_core::{OutPoint, PeerId};

use crate::{KIND, MintConfig, MintError, MintSecret, NoteInput, NoteOutput, PartialSignatures, PointBytes};
use ahead::Ahead;
use early::Early;
use signer::Signer;
pub use spend::Good;

/// The mint of one guardian.
pub struct Mint {
    config: Arc<MintConfig>,
    us: PeerId,
    signer: Signer,
    ahead: Ahead,
    early: Early,
}

impl Mint {
    /// The mint of guardian `us`.
    ///
    /// # Errors
    /// A secret that isn't this guardian's.
    pub fn new(config: MintConfig, secret: MintSecret, us: PeerId) -> Result<Self, MintError> {
        config.check_secret(&secret, us.0)?;
        let config = Arc::new(config);
        Ok(Self { config, us, signer: Signer::new(secret), ahead: Ahead::default(), early: Early::default() })
    }

    /// The configuration.
    pub fn config(&self) -> &MintConfig {
        &self.config
    }
}

/// Runs curve arithmetic off the async threads. A panic in there (there is none) stops the guardian cleanly.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, DbError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| DbError::Engine(format!("a computation of the mint was cut off: {error}")))
}

#[async_trait]
impl ServerModule for Mint {
    type Input = NoteInput;
    type Output = NoteOutput;
    type Item = PartialSignatures;
    type Outcome = PointBytes;
    type Prepared = Good;

    fn kind(&self) -> &'static str {
        KIND
    }

    async fn propose(&self, db: &dyn Reader) -> Result<Proposal<PartialSignatures>, DbError> {
        self.sign_pending(db).await
    }

    async fn apply_item(
        &self,
        db: &mut Namespaced<'_>,
        _: Epoch,
        from: PeerId,
        item: PartialSignatures,
    ) -> Result<(), ModuleError> {
        self.take_shares(db, from, item).await
    }

    fn prepare(&self, inputs: &[(XOnlyPublicKey, NoteInput)]) -> Vec<Result<Good, ModuleError>> {
        spend::verify(&self.config, inputs)
    }

    fn input_reads(&self, key: &XOnlyPublicKey, input: &NoteInput) -> Vec<Vec<u8>> {
        let counts = tables::COUNTS.key(&input.denomination);
        vec![tables::SPENT.key(&key.serialize()), counts, tables::TOTALS.key(&())]
    }

    fn output_reads(&self, output: &NoteOutput) -> Vec<Vec<u8>> {
        let blinded_nonce = PointBytes(output.blinded_nonce.to_bytes());
        let counts = tables::COUNTS.key(&output.denomination);
        vec![tables::ISSUED.key(&blinded_nonce), counts, tables::TOTALS.key(&())]
    }

    fn presume(&self, inputs: &[(XOnlyPublicKey, NoteInput)]) -> Vec<Result<Good, ModuleError>> {
        spend::presume(&self.config, inputs)
    }

    fn look_ahead(
        &self,
        items: &[(u64, PeerId, PartialSignatures)],
        outputs: &[(OutPoint, &NoteOutput)],
        trust: Trust,
    ) {
        self.combine_ahead(items, outputs, trust);
    }

    fn distrust(&self) {
        self.ahead.forget_all();
        self.early.forget_all();
    }

    async fn apply_input(
        &self,
        db: &mut Namespaced<'_>,
        _: Epoch,
        key: XOnlyPublicKey,
        input: &NoteInput,
        _: &Good,
    ) -> Result<Value, ModuleError> {
        self.spend(db, key, input.denomination).await
    }

    async fn apply_output(
        &self,
        db: &mut Namespaced<'_>,
        _: Epoch,
        point: OutPoint,
        output: &NoteOutput,
    ) -> Result<Value, ModuleError> {
        self.accept(db, point, output).await
    }

    async fn end_epoch(&self, db: &mut Namespaced<'_>, _: Epoch) -> Result<(), DbError> {
        self.finish_outputs(db).await
    }

    async fn committed(&self, db: &dyn Reader, _: Epoch) -> Result<(), DbError> {
        self.tell_early(db).await
    }

    async fn outcome(&self, db: &dyn Reader, point: OutPoint) -> Result<Option<PointBytes>, DbError> {
        tables::OUTCOMES.get(db, &point).await
    }

    async fn audit(&self, db: &dyn Reader) -> Result<Vec<AuditLine>, DbError> {
        audit::lines(db).await
    }

    fn config_json(&self) -> serde_json::Value {
        serde_json::to_value(&*self.config).unwrap_or_default()
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        routes::all(&self)
    }

    async fn alarms(&self, db: &dyn Reader) -> Result<Vec<String>, DbError> {
        audit::alarms(db).await
    }
}

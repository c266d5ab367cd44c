//! Verifying and applying, with a module that does as its inputs say.

use std::sync::Arc;

use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey, XOnlyPublicKey};
use federation_core::api::Route;
use federation_core::db::{DbError, Namespaced, Reader};
use federation_core::module::{
    AuditLine, Epoch, ModuleError, Proposal, Registry, ServerModule, Trust, Value, erased,
};
use federation_core::{Amount, FederationId, Input, ModuleId, OutPoint, Output, PeerId, Transaction};

use super::apply::Applier;
use super::contribution::Contribution;
use super::verify::Verifier;
use super::version::Versions;

const FEDERATION: FederationId = FederationId([7; 32]);
const STUB: ModuleId = ModuleId(0);
/// An input whose verification panics.
const PANIC: u8 = 255;

/// Free inputs and outputs of 1 msat.
struct Stub;

#[async_trait::async_trait]
impl ServerModule for Stub {
    type Input = Vec<u8>;
    type Output = Vec<u8>;
    type Item = u8;
    type Outcome = u8;
    type Prepared = ();

    fn kind(&self) -> &'static str {
        "stub"
    }
    async fn propose(&self, _: &dyn Reader) -> Result<Proposal<u8>, DbError> {
        Ok(Proposal::none())
    }
    async fn apply_item(
        &self,
        _: &mut Namespaced<'_>,
        _: Epoch,
        _: PeerId,
        _: u8,
    ) -> Result<(), ModuleError> {
        Ok(())
    }
    fn prepare(&self, inputs: &[(XOnlyPublicKey, Vec<u8>)]) -> Vec<Result<(), ModuleError>> {
        assert!(inputs.iter().all(|(_, body)| body.first() != Some(&PANIC)), "as the input says");
        inputs.iter().map(|_| Ok(())).collect()
    }
    async fn apply_input(
        &self,
        _: &mut Namespaced<'_>,
        _: Epoch,
        _: XOnlyPublicKey,
        _: &Vec<u8>,
        (): &(),
    ) -> Result<Value, ModuleError> {
        Ok(Value::free(Amount::from_msat(1)))
    }
    async fn apply_output(
        &self,
        _: &mut Namespaced<'_>,
        _: Epoch,
        _: OutPoint,
        _: &Vec<u8>,
    ) -> Result<Value, ModuleError> {
        Ok(Value::free(Amount::from_msat(1)))
    }
    async fn end_epoch(&self, _: &mut Namespaced<'_>, _: Epoch) -> Result<(), DbError> {
        Ok(())
    }
    async fn outcome(&self, _: &dyn Reader, _: OutPoint) -> Result<Option<u8>, DbError> {
        Ok(None)
    }
    async fn audit(&self, _: &dyn Reader) -> Result<Vec<AuditLine>, DbError> {
        Ok(Vec::new())
    }
    fn config_json(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
    fn routes(self: Arc<Self>) -> Vec<Route> {
        Vec::new()
    }
}

fn registry() -> Arc<Registry> {
    Arc::new(Registry::from([(STUB, erased(Arc::new(Stub)))]))
}

fn transaction(first: u8, number: u32, size: usize) -> Transaction {
    let key = Keypair::from_secret_key(SECP256K1, &SecretKey::from_slice(&[1; 32]).unwrap());
    let mut body = vec![first; size];
    body.extend_from_slice(&number.to_be_bytes());
    let body = federation_core::encoding::encode(&body);
    let input = Input { module: STUB, key: key.x_only_public_key().0, body };
    let output = Output { module: STUB, body: federation_core::encoding::encode(&Vec::<u8>::new()) };
    Transaction::sign(FEDERATION, vec![input], vec![output], &[key])
}

#[tokio::test]
async fn an_epoch_whose_verification_is_cut_off_is_not_applied() {
    let modules = registry();
    let verifier = Arc::new(Verifier::new(FEDERATION, Arc::clone(&modules)));
    let applier = Applier::new(modules, verifier, Versions::new(1, [PeerId(0)], 1));
    let contribution = |transaction: Transaction| {
        let transactions = vec![federation_core::encoding::encode(&transaction)];
        (PeerId(0), Contribution { items: Vec::new(), transactions }.to_bytes().into())
    };
    let mut db = federation_store::WriteBatch::new(federation_store::memory());
    let applied = applier
        .apply(&mut db, 0, [0; 32], [contribution(transaction(1, 0, 1))], Trust::Nobody)
        .await
        .unwrap();
    assert_eq!(applied.accepted, 1);
    // Anything but an error would be a state of this guardian's own.
    assert!(
        applier
            .apply(&mut db, 1, [0; 32], [contribution(transaction(PANIC, 0, 1))], Trust::Nobody)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn what_anybody_can_have_remembered_is_bounded() {
    let verifier = Arc::new(Verifier::new(FEDERATION, registry()));
    let mut hashes = Vec::new();
    for number in 0..100 {
        let transaction = transaction(1, number, 400_000);
        hashes.push(transaction.hash());
        assert!(verifier.verify_submitted(transaction.hash(), transaction).await.unwrap().is_some());
    }
    assert!(verifier.remembered_bytes() <= 32 << 20, "{}", verifier.remembered_bytes());
    verifier.forget(&hashes);
    assert_eq!(verifier.remembered_bytes(), 0);
}

//! Verifying and applying, with a module that does as its inputs say.

use std::sync::{Arc, Condvar, Mutex};

use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey, XOnlyPublicKey};
use federation_core::api::Route;
use federation_core::db::{DbError, Namespaced, Reader};
use federation_core::module::{
    AuditLine, Epoch, ModuleError, Proposal, Registry, ServerModule, Trust, Value, erased,
};
use federation_core::{Amount, FederationId, Input, ModuleId, OutPoint, Output, PeerId, Transaction};

use tokio::task::JoinHandle;

use super::apply::Applier;
use super::contribution::Contribution;
use super::verify::{Verified, Verifier};
use super::version::Versions;

const FEDERATION: FederationId = FederationId([7; 32]);
const STUB: ModuleId = ModuleId(0);
/// An input whose verification panics.
const PANIC: u8 = 255;
/// An input that is refused.
const BAD: u8 = 254;
/// An input whose verification waits until it is let go.
const SLOW: u8 = 253;

/// Free inputs and outputs of 1 msat.
#[derive(Default)]
struct Stub {
    /// How many inputs there were at each call.
    calls: Mutex<Vec<usize>>,
    let_go: (Mutex<bool>, Condvar),
}

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
        let is = |what: u8| move |(_, body): &(_, Vec<u8>)| body.first() == Some(&what);
        self.calls.lock().unwrap().push(inputs.len());
        if inputs.iter().any(is(SLOW)) {
            let (gone, waiting) = &self.let_go;
            drop(waiting.wait_while(gone.lock().unwrap(), |gone| !*gone).unwrap());
        }
        assert!(!inputs.iter().any(is(PANIC)), "as the input says");
        let refused = || ModuleError::refused("bad_note", "as the input says");
        inputs.iter().map(|input| if is(BAD)(input) { Err(refused()) } else { Ok(()) }).collect()
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
    Arc::new(Registry::from([(STUB, erased(Arc::new(Stub::default())))]))
}

impl Stub {
    fn let_go(&self) {
        *self.let_go.0.lock().unwrap() = true;
        self.let_go.1.notify_all();
    }

    fn calls(&self) -> Vec<usize> {
        self.calls.lock().unwrap().clone()
    }

    /// Until somebody is at it.
    async fn called(&self) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while self.calls().is_empty() {
            assert!(std::time::Instant::now() < deadline, "nothing is verified");
            tokio::task::yield_now().await;
        }
    }
}

/// A verifier that waits in its first batch, for the transaction that it got, until it is let go.
async fn held_up() -> (Arc<Stub>, Arc<Verifier>, JoinHandle<Option<Arc<Verified>>>) {
    let stub = Arc::new(Stub::default());
    let modules = Arc::new(Registry::from([(STUB, erased(Arc::clone(&stub)))]));
    let verifier = Arc::new(Verifier::new(FEDERATION, modules));
    let first = submit(&verifier, transaction(SLOW, 0, 1));
    stub.called().await;
    (stub, verifier, tokio::spawn(async { first.await.unwrap().unwrap() }))
}

type Submitted = JoinHandle<Result<Option<Arc<Verified>>, DbError>>;

fn submit(verifier: &Arc<Verifier>, transaction: Transaction) -> Submitted {
    let verifier = Arc::clone(verifier);
    let hash = transaction.hash();
    tokio::spawn(async move { verifier.verify_submitted(hash, transaction).await.map(Result::unwrap) })
}

/// Until so many have come to the queue (or are in memory): each has been polled once.
async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
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
        let verdict = verifier.verify_submitted(transaction.hash(), transaction).await.unwrap();
        assert!(verdict.unwrap().is_some());
    }
    assert!(verifier.remembered_bytes() <= 32 << 20, "{}", verifier.remembered_bytes());
    verifier.forget(&hashes);
    assert_eq!(verifier.remembered_bytes(), 0);
}

#[tokio::test]
async fn submissions_that_come_together_share_a_batch_and_have_verdicts_of_their_own() {
    let (stub, verifier, first) = held_up().await;
    let forged = {
        let mut forged = transaction(1, 99, 1);
        forged.outputs.push(forged.outputs[0].clone());
        forged
    };
    let again = transaction(1, 99, 1);
    let submitted: Vec<_> = (0..29)
        .map(|number| transaction(if number % 10 == 3 { BAD } else { 1 }, number, 1))
        .chain([again.clone(), again, forged, transaction(PANIC, 0, 1)])
        .map(|transaction| submit(&verifier, transaction))
        .collect();
    settle().await;
    stub.let_go();
    assert!(first.await.unwrap().is_some());
    for (number, submitted) in submitted.into_iter().enumerate() {
        let verdict = submitted.await.unwrap();
        match number {
            31 => assert!(verdict.unwrap().is_none(), "what was signed is something else"),
            32 => assert!(verdict.is_err(), "nothing is known of it"),
            _ => {
                let verified = verdict.unwrap().unwrap();
                let refused = verified.prepared[0].as_ref().err().map(|(code, _)| *code);
                assert_eq!(refused, (number % 10 == 3).then_some("bad_note"), "{number}");
            }
        }
    }
    // The same one once, the wrongly signed one never. The panic makes each of them be looked at alone.
    let calls = stub.calls();
    assert_eq!(calls[..2], [1, 31]);
    assert_eq!(calls[2..], [1; 31]);
}

#[tokio::test]
async fn who_hangs_up_takes_nobody_along() {
    let (stub, verifier, first) = held_up().await;
    let submitted: Vec<_> = (0..20).map(|number| submit(&verifier, transaction(1, number, 1))).collect();
    settle().await;
    first.abort();
    for submitted in submitted.iter().step_by(2) {
        submitted.abort();
    }
    settle().await;
    stub.let_go();
    for submitted in submitted.into_iter().skip(1).step_by(2) {
        assert!(submitted.await.unwrap().unwrap().is_some());
    }
    assert_eq!(stub.calls(), [1, 10]);
}

#[tokio::test]
async fn a_flood_of_submissions_leaves_consensus_its_threads() {
    let (stub, verifier, first) = held_up().await;
    let submitted: Vec<_> = (0..2000).map(|number| submit(&verifier, transaction(1, number, 1))).collect();
    settle().await;
    let epoch = (0..10).map(|number| transaction(1, 10_000 + number, 1)).map(|one| (one.hash(), one));
    let verified = verifier.verify(epoch.collect()).await.unwrap();
    assert!(verified.iter().all(Option::is_some));
    assert_eq!(stub.calls(), [1, 10], "one batch of submissions at a time, and it is held up");
    stub.let_go();
    assert!(first.await.unwrap().is_some());
    for submitted in submitted {
        assert!(submitted.await.unwrap().unwrap().is_some());
    }
    assert!(stub.calls().iter().all(|size| *size <= 64));
}

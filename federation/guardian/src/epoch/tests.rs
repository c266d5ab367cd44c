//! Batches on a made-up module: balance, roll-back, faults, order.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey, XOnlyPublicKey};
use bytes::Bytes;
use federation_core::api::Route;
use federation_core::db::{Database, DbError, Namespaced, Reader, Table};
use federation_core::encoding::encode;
use federation_core::module::{
    AuditLine, Epoch, ModuleError, Proposal, Registry, ServerModule, Trust, Value, erased, item,
};
use federation_core::{Amount, FederationId, Input, ModuleId, OutPoint, Output, PeerId, Transaction};
use federation_store::WriteBatch;

use super::apply::{Applied, Applier};
use super::contribution::Contribution;
use super::verify::Verifier;
use super::version::Versions;
use crate::state::{self, Decided, REJECTED, TRANSACTIONS};

pub(super) const MODULE: ModuleId = ModuleId(3);
pub(super) const FEDERATION: FederationId = FederationId([5; 32]);
/// Inputs that are taken, with who took them: in the order of applying.
const TAKEN: Table<[u8; 32], u64> = Table::new(1, "taken");
const COUNT: Table<(), u64> = Table::new(2, "count");
/// Found out by who verifies it.
pub(super) const FORGED: u64 = 77;

/// An input is worth its body, once a key; a [`FORGED`] one, or an output of 13, is refused.
#[derive(Default)]
pub(super) struct Toy {
    /// What it was shown ahead.
    pub seen: Mutex<Seen>,
}

pub(super) type Seen = (Vec<(u64, PeerId, u64)>, Vec<(OutPoint, u64)>);

#[async_trait]
impl ServerModule for Toy {
    type Input = u64;
    type Output = u64;
    type Item = u64;
    type Outcome = u64;
    type Prepared = ();

    fn kind(&self) -> &'static str {
        "toy"
    }
    async fn propose(&self, _: &dyn Reader) -> Result<Proposal<u64>, DbError> {
        Ok(Proposal::none())
    }
    async fn apply_item(
        &self,
        db: &mut Namespaced<'_>,
        _: Epoch,
        _: PeerId,
        item: u64,
    ) -> Result<(), ModuleError> {
        COUNT.put(db, &(), &item);
        if item == 13 { Err(ModuleError::refused("unlucky", "thirteen")) } else { Ok(()) }
    }
    fn prepare(&self, inputs: &[(XOnlyPublicKey, u64)]) -> Vec<Result<(), ModuleError>> {
        let verify = |input| match input {
            FORGED => Err(ModuleError::refused("bad_note", "forged")),
            _ => Ok(()),
        };
        inputs.iter().map(|(_, input)| verify(*input)).collect()
    }
    fn presume(&self, inputs: &[(XOnlyPublicKey, u64)]) -> Vec<Result<(), ModuleError>> {
        inputs.iter().map(|_| Ok(())).collect()
    }
    fn look_ahead(&self, items: &[(u64, PeerId, u64)], outputs: &[(OutPoint, &u64)], _: Trust) {
        let mut seen = self.seen.lock().unwrap();
        seen.0.extend(items);
        seen.1.extend(outputs.iter().map(|(point, output)| (*point, **output)));
    }
    async fn apply_input(
        &self,
        db: &mut Namespaced<'_>,
        _: Epoch,
        key: XOnlyPublicKey,
        input: &u64,
        (): &(),
    ) -> Result<Value, ModuleError> {
        if TAKEN.contains(db, &key.serialize()).await? {
            return Err(ModuleError::refused("double_spend", "taken"));
        }
        TAKEN.put(db, &key.serialize(), input);
        Ok(Value { amount: Amount::from_msat(*input), fee: Amount::from_msat(1) })
    }
    async fn apply_output(
        &self,
        _: &mut Namespaced<'_>,
        _: Epoch,
        _: OutPoint,
        output: &u64,
    ) -> Result<Value, ModuleError> {
        match output {
            13 => Err(ModuleError::refused("unlucky", "thirteen")),
            amount => Ok(Value::free(Amount::from_msat(*amount))),
        }
    }
    async fn end_epoch(&self, _: &mut Namespaced<'_>, _: Epoch) -> Result<(), DbError> {
        Ok(())
    }
    async fn outcome(&self, _: &dyn Reader, _: OutPoint) -> Result<Option<u64>, DbError> {
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

fn key(byte: u8) -> Keypair {
    Keypair::from_secret_key(SECP256K1, &SecretKey::from_slice(&[byte; 32]).unwrap())
}

pub(super) fn transaction(inputs: &[(u8, u64)], outputs: &[u64]) -> Transaction {
    let keys: Vec<_> = inputs.iter().map(|(byte, _)| key(*byte)).collect();
    let inputs = keys
        .iter()
        .zip(inputs)
        .map(|(key, (_, amount))| Input {
            module: MODULE,
            key: key.x_only_public_key().0,
            body: encode(amount),
        })
        .collect();
    let outputs = outputs.iter().map(|amount| Output { module: MODULE, body: encode(amount) }).collect();
    Transaction::sign(FEDERATION, inputs, outputs, &keys)
}

struct Fixture {
    db: Arc<dyn Database>,
    applier: Applier,
}

impl Fixture {
    fn new() -> Self {
        let modules: Arc<Registry> = Arc::new([(MODULE, erased(Arc::new(Toy::default())))].into());
        let verifier = Arc::new(Verifier::new(FEDERATION, Arc::clone(&modules)));
        let versions = Versions::new(1, (0..4).map(PeerId), 1);
        Self { db: federation_store::memory(), applier: Applier::new(modules, verifier, versions) }
    }

    async fn epoch(&self, contributions: Vec<(u16, Bytes)>) -> Applied {
        let mut batch = WriteBatch::new(Arc::clone(&self.db));
        let contributions = contributions.into_iter().map(|(peer, bytes)| (PeerId(peer), bytes));
        let applied = self.applier.apply(&mut batch, 7, [1; 32], contributions, Trust::Nobody).await.unwrap();
        batch.commit().await.unwrap();
        applied
    }

    async fn decided(&self, transaction: &Transaction) -> Option<Decided> {
        let txid = transaction.txid(FEDERATION);
        let agreed = state::agreed_reader(Arc::clone(&self.db) as _);
        let history = state::history_reader(Arc::clone(&self.db) as _);
        let accepted = TRANSACTIONS.get(&agreed, &txid).await.unwrap();
        assert!(!matches!(accepted, Some(Decided::Rejected { .. })), "rejections are no part of the state");
        accepted.or(REJECTED.get(&history, &txid).await.unwrap())
    }

    async fn code(&self, transaction: &Transaction) -> String {
        match self.decided(transaction).await {
            Some(Decided::Rejected { code, .. }) => code,
            other => panic!("{other:?}"),
        }
    }

    async fn taken(&self, byte: u8) -> bool {
        let db = state::module_reader(Arc::clone(&self.db) as _, MODULE);
        TAKEN.contains(&db, &key(byte).x_only_public_key().0.serialize()).await.unwrap()
    }
}

fn proposal(transactions: &[&Transaction]) -> Bytes {
    let transactions = transactions.iter().map(|transaction| encode(*transaction)).collect();
    Contribution { items: Vec::new(), transactions }.to_bytes().into()
}

#[tokio::test]
async fn inputs_cover_outputs_and_fees_or_nothing_is_moved() {
    let fixture = Fixture::new();
    let good = transaction(&[(1, 10)], &[9]);
    let short = transaction(&[(2, 10)], &[10]);
    let refused = transaction(&[(3, 100)], &[5, 13]);
    let overflow = transaction(&[(4, u64::MAX)], &[u64::MAX, u64::MAX]);
    let applied = fixture.epoch(vec![(0, proposal(&[&good, &short, &refused, &overflow]))]).await;
    assert_eq!((applied.accepted, applied.rejected, applied.decided.len()), (1, 3, 4));
    assert!(matches!(fixture.decided(&good).await, Some(Decided::Accepted { epoch: 7, .. })));
    assert_eq!(fixture.code(&short).await, "unbalanced");
    assert_eq!(fixture.code(&refused).await, "unlucky");
    assert_eq!(fixture.code(&overflow).await, "overflow");
    assert!(fixture.taken(1).await);
    for byte in [2, 3, 4] {
        assert!(!fixture.taken(byte).await, "input {byte} must be free again");
    }
}

#[tokio::test]
async fn an_input_is_taken_once() {
    let fixture = Fixture::new();
    let twice_inside = transaction(&[(1, 10), (1, 10)], &[5]);
    let (first, second) = (transaction(&[(2, 10)], &[5]), transaction(&[(2, 10)], &[6]));
    let applied =
        fixture.epoch(vec![(0, proposal(&[&twice_inside, &first])), (1, proposal(&[&second, &first]))]).await;
    assert_eq!((applied.accepted, applied.rejected), (1, 2));
    assert_eq!(fixture.code(&twice_inside).await, "double_spend");
    // In a later epoch, too; what was accepted stays accepted when it comes again.
    let third = transaction(&[(2, 10)], &[7]);
    let applied = fixture.epoch(vec![(0, proposal(&[&third, &first, &second]))]).await;
    assert_eq!(applied.accepted, 0);
    assert_eq!(fixture.code(&third).await, "double_spend");
    let accepted = |decided| matches!(decided, Some(Decided::Accepted { .. }));
    assert!(accepted(fixture.decided(&first).await) != accepted(fixture.decided(&second).await));
}

#[tokio::test]
async fn the_order_does_not_depend_on_who_proposed() {
    let conflict: Vec<_> = (1..20u64).map(|amount| transaction(&[(9, 100)], &[amount])).collect();
    let all: Vec<_> = conflict.iter().collect();
    let mut winners = Vec::new();
    for contributions in [
        vec![(0, proposal(&all))],
        vec![(3, proposal(&all[10..])), (1, proposal(&all[..12]))],
        vec![(2, proposal(&all.iter().rev().copied().collect::<Vec<_>>()))],
    ] {
        let fixture = Fixture::new();
        assert_eq!(fixture.epoch(contributions).await.accepted, 1);
        for (place, transaction) in conflict.iter().enumerate() {
            if matches!(fixture.decided(transaction).await, Some(Decided::Accepted { .. })) {
                winners.push(place);
            }
        }
    }
    assert_eq!(winners.len(), 3);
    assert!(winners.iter().all(|winner| *winner == winners[0]), "{winners:?}");
}

#[tokio::test]
async fn nonsense_is_its_proposers_fault_and_changes_nothing() {
    let fixture = Fixture::new();
    let mut forged = transaction(&[(1, 10)], &[5]);
    let good = forged.clone();
    forged.witness = transaction(&[(1, 10)], &[6]).witness;
    let mut foreign = transaction(&[(2, 10)], &[5]);
    foreign.inputs[0].module = ModuleId(99);
    let items = vec![item(MODULE, encode(&13u64)), item(ModuleId(99), vec![]), item(MODULE, vec![1])];
    let contribution = Contribution { items, transactions: vec![vec![1, 2, 3], encode(&forged)] };
    let applied = fixture
        .epoch(vec![
            (0, Bytes::from_static(b"garbage")),
            (1, contribution.to_bytes().into()),
            (2, proposal(&[&foreign])),
        ])
        .await;
    let faults = |peer| {
        let of = applied.faults.0.iter().filter(|((guardian, _), _)| *guardian == PeerId(peer));
        of.map(|(_, seen)| seen.count).sum::<u64>()
    };
    assert_eq!((faults(0), faults(1), faults(2)), (1, 5, 1), "{:?}", applied.faults);
    // A bad witness sets no status: the right one is accepted later.
    assert!(fixture.decided(&good).await.is_none());
    assert_eq!(fixture.epoch(vec![(0, proposal(&[&good]))]).await.accepted, 1);
    // The refused item left no trace.
    let db = state::module_reader(Arc::clone(&fixture.db) as _, MODULE);
    assert_eq!(COUNT.get(&db, &()).await.unwrap(), None);
}

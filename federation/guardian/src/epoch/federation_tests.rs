//! Guardians with pool, proposer and applier, without consensus: an epoch is what is put together here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey, XOnlyPublicKey};
use bytes::Bytes;
use federation_core::api::Route;
use federation_core::db::{Database, DbError, Namespaced, Reader, Table};
use federation_core::encoding::encode;
use federation_core::module::{
    AuditLine, Epoch, ModuleError, Proposal, Registry, ServerModule, Trust, Value, erased,
};
use federation_core::{Amount, FederationId, Input, ModuleId, OutPoint, Output, PeerId, Transaction};
use federation_store::WriteBatch;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tokio::sync::Notify;

use super::apply::{Applied, Applier};
use super::pool::Pool;
use super::propose::{Next, Proposer, Sources};
use super::verify::Verifier;
use super::version::Versions;
use crate::error::GuardianError;
use crate::state::{self, Decided, TRANSACTIONS};

const FEDERATION: FederationId = FederationId([9; 32]);
const MODULE: ModuleId = ModuleId(0);
/// Which rules the module was told to apply, by epoch.
const RULES: Table<u64, u16> = Table::new(1, "rules");

/// Inputs and outputs are free, and worth nothing.
struct Free;

#[async_trait]
impl ServerModule for Free {
    type Input = Vec<u8>;
    type Output = Vec<u8>;
    type Item = u8;
    type Outcome = u8;
    type Prepared = ();

    fn kind(&self) -> &'static str {
        "free"
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
        Ok(Value::free(Amount::ZERO))
    }
    async fn apply_output(
        &self,
        _: &mut Namespaced<'_>,
        _: Epoch,
        _: OutPoint,
        _: &Vec<u8>,
    ) -> Result<Value, ModuleError> {
        Ok(Value::free(Amount::ZERO))
    }
    async fn end_epoch(&self, db: &mut Namespaced<'_>, epoch: Epoch) -> Result<(), DbError> {
        RULES.put(db, &epoch.number, &epoch.version);
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

fn transaction(number: u32, size: usize) -> Transaction {
    let key = Keypair::from_secret_key(SECP256K1, &SecretKey::from_slice(&[1; 32]).unwrap());
    let body = encode(&number.to_be_bytes().to_vec());
    let input = Input { module: MODULE, key: key.x_only_public_key().0, body };
    let output = Output { module: MODULE, body: encode(&vec![0u8; size]) };
    Transaction::sign(FEDERATION, vec![input], vec![output], &[key])
}

struct Guardian {
    me: PeerId,
    db: Arc<dyn Database>,
    pool: Pool,
    proposer: Proposer,
    modules: Arc<Registry>,
    applier: Applier,
}

impl Guardian {
    /// A process with a program that knows the rules up to `supported`.
    async fn start(me: PeerId, db: Arc<dyn Database>, supported: u16) -> Self {
        let modules: Arc<Registry> = Arc::new([(MODULE, erased(Arc::new(Free)))].into());
        let verifier = Arc::new(Verifier::new(FEDERATION, Arc::clone(&modules)));
        let versions = Versions::new(1, (0..4).map(PeerId), supported);
        let pool = Pool::open(Arc::clone(&db), FEDERATION, Arc::new(Notify::new())).await.unwrap();
        let applier = Applier::new(Arc::clone(&modules), verifier, versions);
        Self { me, db, pool, proposer: Proposer::default(), modules, applier }
    }

    /// The same guardian with another program.
    async fn upgraded(self, supported: u16) -> Self {
        Self::start(self.me, self.db, supported).await
    }

    async fn propose(&mut self, epoch: u64) -> Option<Bytes> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let versions = self.applier.versions();
            let (db, pool, modules) = (&self.db, &self.pool, &self.modules);
            let sources = Sources { me: self.me, db, pool, modules, versions };
            match self.proposer.next(epoch, sources).await.unwrap() {
                Next::Propose(contribution) => return Some(contribution.to_bytes().into()),
                Next::Wait(None) => return None,
                Next::Wait(Some(_)) => assert!(Instant::now() < deadline, "it waits without end"),
            }
            tokio::task::yield_now().await;
        }
    }

    async fn apply(&mut self, epoch: u64, batch: &BTreeMap<PeerId, Bytes>) -> Result<Applied, GuardianError> {
        let mut db = WriteBatch::new(Arc::clone(&self.db));
        let batch = batch.iter().map(|(peer, bytes)| (*peer, bytes.clone()));
        let applied = self.applier.apply(&mut db, epoch, [3; 32], batch, Trust::Nobody).await?;
        self.pool.forget(&mut db, &applied.decided);
        let own = self.pool.count(&applied.decided);
        db.commit().await.unwrap();
        self.pool.forgotten(&applied.decided);
        self.proposer.committed(epoch, applied.decided.len(), own, self.pool.waiting().ready);
        Ok(applied)
    }

    async fn is_accepted(&self, transaction: &Transaction) -> bool {
        let db = state::agreed_reader(Arc::clone(&self.db) as _);
        let decided = TRANSACTIONS.get(&db, &transaction.txid(FEDERATION)).await.unwrap();
        matches!(decided, Some(Decided::Accepted { .. }))
    }

    async fn rules(&self) -> Vec<(u64, u16)> {
        RULES.all(&state::module_reader(Arc::clone(&self.db) as _, MODULE)).await.unwrap()
    }
}

async fn federation(supported: u16) -> Vec<Guardian> {
    let mut guardians = Vec::new();
    for me in 0..4 {
        guardians.push(Guardian::start(PeerId(me), federation_store::memory(), supported).await);
    }
    guardians
}

/// An epoch that all have proposed in, with the proposals of three of them. Whether anybody opened it.
async fn epoch(guardians: &mut [Guardian], number: u64, rng: &mut StdRng) -> bool {
    let mut proposals = BTreeMap::new();
    for guardian in &mut *guardians {
        proposals.extend(guardian.propose(number).await.map(|bytes| (guardian.me, bytes)));
    }
    if proposals.is_empty() {
        return false;
    }
    for guardian in &mut *guardians {
        guardian.proposer.wanted(number);
        proposals.extend(guardian.propose(number).await.map(|bytes| (guardian.me, bytes)));
    }
    assert_eq!(proposals.len(), guardians.len(), "an epoch that is opened is joined");
    let mut left_out: Vec<_> = proposals.keys().copied().collect();
    left_out.shuffle(rng);
    proposals.remove(&left_out[0]);
    for guardian in guardians {
        guardian.apply(number, &proposals).await.unwrap();
    }
    true
}

async fn hand_in(guardian: &Guardian, transaction: &Transaction) {
    guardian.pool.add(transaction.txid(FEDERATION), transaction).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_transaction_given_to_one_guardian_only_gets_in() {
    let mut rng = StdRng::seed_from_u64(5);
    let mut guardians = federation(1).await;
    assert!(!epoch(&mut guardians, 0, &mut rng).await, "nothing to say, no epoch");
    let lonely = transaction(0, 10);
    hand_in(&guardians[2], &lonely).await;
    let mut epochs = 0;
    while epoch(&mut guardians, epochs, &mut rng).await {
        epochs += 1;
    }
    // It may be left out of an epoch; then it is in the next.
    assert!((1..20).contains(&epochs), "{epochs}");
    for guardian in &guardians {
        assert!(guardian.is_accepted(&lonely).await);
        assert_eq!(guardian.pool.waiting().entries, 0);
    }
}

#[tokio::test]
async fn it_gets_in_though_others_have_filled_the_pool_before() {
    let mut rng = StdRng::seed_from_u64(6);
    let mut guardians = federation(1).await;
    // Two contributions' worth at once (one key may have no more).
    for number in 1..=40 {
        hand_in(&guardians[2], &transaction(number, 50_000)).await;
    }
    let lonely = transaction(0, 10);
    hand_in(&guardians[2], &lonely).await;
    let mut epochs = 0;
    while !guardians[0].is_accepted(&lonely).await {
        assert!(epoch(&mut guardians, epochs, &mut rng).await);
        epochs += 1;
        assert!(epochs < 20, "it starves");
    }
}

#[tokio::test]
async fn the_rules_change_at_the_same_epoch_everywhere() {
    let mut rng = StdRng::seed_from_u64(7);
    let mut guardians = federation(1).await;
    let mut number = 0;
    // (Nobody has to say anything: the versions are those of the start.)
    assert!(!epoch(&mut guardians, number, &mut rng).await);
    let mut switched = None;
    for upgrade in 0..4 {
        let guardian = guardians.remove(upgrade).upgraded(2).await;
        guardians.insert(upgrade, guardian);
        // The announcement opens epochs until it is agreed on, and none after that.
        while epoch(&mut guardians, number, &mut rng).await {
            number += 1;
            assert!(number < 100, "an announcement without end");
        }
        if upgrade == 3 {
            switched = Some(number);
        }
    }
    for more in 0..3 {
        hand_in(&guardians[more], &transaction(more as u32, 1)).await;
        while epoch(&mut guardians, number, &mut rng).await {
            number += 1;
        }
    }
    let rules = guardians[0].rules().await;
    let switched = switched.unwrap();
    for (epoch, version) in &rules {
        assert_eq!(
            *version,
            if *epoch < switched { 1 } else { 2 },
            "epoch {epoch}, switched before {switched}"
        );
    }
    assert!(switched < number);
    for guardian in &guardians[1..] {
        assert_eq!(guardian.rules().await, rules);
    }
}

#[tokio::test]
async fn an_older_program_stops_before_the_first_epoch_under_new_rules_and_goes_on_after_its_upgrade() {
    let mut rng = StdRng::seed_from_u64(8);
    let mut guardians = federation(2).await;
    let mut number = 0;
    // Its operator goes back after its announcement is agreed on, and before the others' are.
    let mut old = guardians.pop().unwrap();
    let announcement = BTreeMap::from([(old.me, old.propose(0).await.unwrap())]);
    for guardian in guardians.iter_mut().chain([&mut old]) {
        guardian.apply(0, &announcement).await.unwrap();
    }
    number += 1;
    let mut old = old.upgraded(1).await;
    // The others' announcements are in the same epoch as its own change of mind: too late.
    let mut proposals = BTreeMap::new();
    for guardian in &mut guardians {
        proposals.insert(guardian.me, guardian.propose(number).await.unwrap());
    }
    let change_of_mind = old.propose(number).await;
    assert!(change_of_mind.is_some(), "an older program takes the announcement back");
    for guardian in guardians.iter_mut().chain([&mut old]) {
        guardian.apply(number, &proposals).await.unwrap();
    }
    number += 1;
    hand_in(&guardians[0], &transaction(1, 1)).await;
    let mut proposals = BTreeMap::new();
    for guardian in &mut guardians {
        guardian.proposer.wanted(number);
        proposals.insert(guardian.me, guardian.propose(number).await.unwrap());
    }
    for guardian in &mut guardians {
        assert_eq!(guardian.apply(number, &proposals).await.unwrap().version, 2);
    }
    let before = old.rules().await;
    let error = old.apply(number, &proposals).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, GuardianError::TooOld { in_force: 2, supported: 1 }), "{error}");
    assert!(error.to_string().contains("install the newer version"));
    assert_eq!(old.rules().await, before, "nothing of it was applied");
    // It refuses to start, too; the newer program goes on where it stopped.
    let agreed = state::agreed_reader(Arc::clone(&old.db) as _);
    let versions = old.applier.versions();
    assert!(versions.check(versions.in_force(&agreed).await.unwrap()).is_err());
    let mut new = old.upgraded(2).await;
    let versions = new.applier.versions();
    versions.check(versions.in_force(&agreed).await.unwrap()).unwrap();
    new.apply(number, &proposals).await.unwrap();
    guardians.push(new);
    number += 1;
    hand_in(&guardians[3], &transaction(2, 1)).await;
    while epoch(&mut guardians, number, &mut rng).await {
        number += 1;
    }
    assert_eq!(guardians[3].rules().await, guardians[0].rules().await);
}

#[tokio::test]
async fn announcements_of_strangers_and_nonsense_count_for_nothing() {
    let versions = Versions::new(1, (0..4).map(PeerId), 1);
    let mut db = WriteBatch::new(federation_store::memory());
    let mut agreed = state::agreed(&mut db);
    for (peer, body) in [(9, encode(&2u16)), (0, vec![]), (0, vec![1, 2, 3])] {
        assert!(versions.apply(&mut agreed, PeerId(peer), &body).await.is_err());
    }
    for peer in 0..3 {
        versions.apply(&mut agreed, PeerId(peer), &encode(&u16::MAX)).await.unwrap();
        versions.end_epoch(&mut agreed).await.unwrap();
        assert_eq!(versions.in_force(&agreed).await.unwrap(), 1);
    }
    versions.apply(&mut agreed, PeerId(3), &encode(&2u16)).await.unwrap();
    versions.end_epoch(&mut agreed).await.unwrap();
    assert_eq!(versions.in_force(&agreed).await.unwrap(), 2);
    // Only upwards.
    versions.apply(&mut agreed, PeerId(3), &encode(&1u16)).await.unwrap();
    versions.end_epoch(&mut agreed).await.unwrap();
    assert_eq!(versions.in_force(&agreed).await.unwrap(), 2);
}

//! Several epochs of one commit are the same as one commit each, looked at ahead or not.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use federation_consensus::{Batch, Header};
use federation_core::db::{Database, Pair};
use federation_core::encoding::encode;
use federation_core::module::{Registry, Trust, erased, item};
use federation_core::{ModuleId, OutPoint, PeerId, Transaction};
use federation_store::WriteBatch;
use tokio::sync::Notify;

use super::apply::Applier;
use super::arrivals::Agreed;
use super::commit::{Parts, as_proven};
use super::contribution::Contribution;
use super::pool::Pool;
use super::tests::{FEDERATION, FORGED, MODULE, Toy, transaction};
use super::verify::Verifier;
use super::version::Versions;
use crate::history::Archive;
use crate::history::snapshot::store::Snapshots;

/// A guardian without consensus.
struct Guardian {
    db: Arc<dyn Database>,
    toy: Arc<Toy>,
    applier: Applier,
    pool: Pool,
    archive: Arc<Archive>,
    snapshots: Snapshots,
    next: u64,
}

/// What an epoch did: header, decided, accepted, rejected, faults.
type Outcome = (Vec<u8>, Vec<[u8; 32]>, usize, usize, String);

impl Guardian {
    async fn new() -> Self {
        let db = federation_store::memory();
        let toy = Arc::new(Toy::default());
        let modules: Arc<Registry> = Arc::new([(MODULE, erased(Arc::clone(&toy)))].into());
        let verifier = Arc::new(Verifier::new(FEDERATION, Arc::clone(&modules)));
        let applier = Applier::new(modules, verifier, Versions::new(1, (0..4).map(PeerId), 1));
        let pool = Pool::open(Arc::clone(&db), FEDERATION, Arc::new(Notify::new())).await.unwrap();
        let archive = Arc::new(Archive::open(Arc::clone(&db)).await.unwrap());
        let snapshots = Snapshots::open(Path::new("/nowhere"), 4, 3, Arc::clone(&archive)).unwrap();
        Self { db, toy, applier, pool, archive, snapshots, next: 0 }
    }

    /// One commit.
    async fn commit(&mut self, batches: &[Batch], ahead: bool) -> Vec<Outcome> {
        self.apply(batches, ahead, None).await.unwrap()
    }

    /// One commit, if it leads to these headers, or none are given.
    async fn apply(
        &mut self,
        batches: &[Batch],
        ahead: bool,
        proven: Option<&[Header]>,
    ) -> Option<Vec<Outcome>> {
        let trust = if proven.is_some() { Trust::Signed } else { Trust::Nobody };
        let mut db = WriteBatch::new(Arc::clone(&self.db));
        if ahead {
            self.applier.look_ahead(&db, self.applier.note(batches, trust)).await.unwrap();
        }
        let parts = Parts {
            applier: &self.applier,
            pool: &self.pool,
            archive: &self.archive,
            snapshots: &self.snapshots,
        };
        let mut next = self.next;
        let epochs = parts.stage(&mut db, batches.to_vec(), &mut next, 5, trust).await.unwrap();
        if let Some(headers) = proven {
            let agreed = batches.iter().zip(headers);
            let agreed = agreed.map(|(batch, header)| Agreed { batch: batch.clone(), proven: Some(*header) });
            if !as_proven(&epochs, &agreed.collect::<Vec<_>>()) {
                return None;
            }
        }
        db.commit().await.unwrap();
        self.next = next;
        let outcomes = epochs
            .into_iter()
            .map(|(header, applied)| {
                self.applier_forgets(&applied.decided);
                let faults = format!("{:?}", applied.faults);
                (header.encode(), applied.decided, applied.accepted, applied.rejected, faults)
            })
            .collect();
        Some(outcomes)
    }

    fn applier_forgets(&self, decided: &[[u8; 32]]) {
        self.pool.forgotten(decided);
        self.applier.forget(decided);
    }

    async fn content(&self) -> Vec<Pair> {
        self.db.scan(&[], None, usize::MAX / 2).await.unwrap()
    }
}

fn contribution(items: &[u64], transactions: &[&Transaction]) -> Bytes {
    let mut items: Vec<_> = items.iter().map(|number| item(MODULE, encode(number))).collect();
    items.push(item(ModuleId(99), vec![1]));
    let transactions = transactions.iter().map(|transaction| encode(*transaction)).collect();
    Contribution { items, transactions }.to_bytes().into()
}

/// Epochs that depend on each other: double spends, the same transaction twice, refusals, faults, nothing at all.
fn epochs() -> (Vec<Batch>, Vec<Transaction>) {
    let spends: Vec<_> = (1..12u8).map(|byte| transaction(&[(byte, 10)], &[9])).collect();
    let again = transaction(&[(1, 10), (11, 10)], &[3]);
    let rejected = transaction(&[(12, 10)], &[13]);
    let mut forged = spends[4].clone();
    forged.witness = spends[5].witness.clone();
    let content: Vec<Vec<Bytes>> = vec![
        vec![contribution(&[1, 2], &[&spends[0], &spends[1]]), contribution(&[3], &[&spends[1]])],
        vec![contribution(&[13], &[&again, &spends[2], &rejected])],
        vec![],
        vec![Bytes::from_static(b"garbage"), contribution(&[], &[&spends[0], &forged])],
        vec![contribution(&[7], &[&spends[4], &rejected]), contribution(&[8, 13], &[&again])],
        vec![contribution(&[9], &spends[5..].iter().collect::<Vec<_>>())],
        vec![contribution(&[9], &spends.iter().collect::<Vec<_>>())],
    ];
    let batches = (0..).zip(content).map(|(epoch, contributions)| Batch {
        epoch,
        contributions: (0..).zip(contributions).collect::<BTreeMap<_, _>>(),
    });
    (batches.collect(), spends)
}

#[tokio::test]
async fn epochs_of_one_commit_are_the_same_as_one_commit_each() {
    let (batches, _) = epochs();
    let mut one_by_one = Guardian::new().await;
    let mut outcomes = Vec::new();
    for batch in &batches {
        outcomes.extend(one_by_one.commit(std::slice::from_ref(batch), false).await);
    }
    let accepted: usize = outcomes.iter().map(|outcome| outcome.2).sum();
    let rejected: usize = outcomes.iter().map(|outcome| outcome.3).sum();
    assert!(accepted >= 8 && rejected >= 4, "{accepted} {rejected}: the epochs are worth comparing");
    let content = one_by_one.content().await;
    assert!(content.len() > 30);
    for ahead in [false, true] {
        for size in [2, 3, batches.len()] {
            let mut together = Guardian::new().await;
            let mut others = Vec::new();
            for batches in batches.chunks(size) {
                others.extend(together.commit(batches, ahead).await);
            }
            assert_eq!(others, outcomes, "{size} a commit, ahead: {ahead}");
            assert!(together.content().await == content, "{size} a commit, ahead: {ahead}");
        }
    }
}

/// What was taken for right and wasn't leads to other headers, and nothing of it is kept.
#[tokio::test]
async fn what_is_signed_is_applied_without_verifying_and_deceit_is_found_out() {
    let (mut batches, spends) = epochs();
    let forged = contribution(&[9], &[&transaction(&[(20, FORGED)], &[9])]);
    batches.push(Batch { epoch: 7, contributions: BTreeMap::from([(2, forged)]) });
    batches.push(Batch { epoch: 8, contributions: BTreeMap::from([(1, contribution(&[4], &[&spends[3]]))]) });
    let mut reference = Guardian::new().await;
    let mut outcomes = Vec::new();
    for batch in &batches {
        outcomes.extend(reference.commit(std::slice::from_ref(batch), false).await);
    }
    let headers: Vec<_> =
        outcomes.iter().map(|outcome| Header::decode(outcome.0.clone().into()).unwrap()).collect();
    for ahead in [false, true] {
        for size in [1, 2, 3, batches.len()] {
            let mut behind = Guardian::new().await;
            let mut deceived = Vec::new();
            let mut others = Vec::new();
            for (batches, headers) in batches.chunks(size).zip(headers.chunks(size)) {
                let before = behind.content().await;
                match behind.apply(batches, ahead, Some(headers)).await {
                    Some(outcomes) => others.extend(outcomes),
                    None => {
                        deceived.push(batches[0].epoch);
                        assert!(behind.content().await == before, "nothing is kept");
                        behind.applier.deceived(batches[0].epoch);
                        assert_eq!(behind.applier.presumer.remembered(), 0);
                        others.extend(behind.commit(batches, ahead).await);
                    }
                }
            }
            // A wrong witness in epoch 3, a forged input in epoch 7.
            let expected = match size {
                1 => vec![3, 7],
                2 => vec![2, 6],
                3 => vec![3, 6],
                _ => vec![0],
            };
            assert_eq!(deceived, expected, "{size} a commit, ahead: {ahead}");
            assert_eq!(others, outcomes, "{size} a commit, ahead: {ahead}");
            assert!(behind.content().await == reference.content().await, "{size} a commit, ahead: {ahead}");
            assert_eq!(behind.applier.presumer.remembered(), 0);
        }
    }
}

#[tokio::test]
async fn after_a_deceit_everything_is_verified_for_a_while() {
    let (batches, _) = epochs();
    let guardian = Guardian::new().await;
    let header = Header { epoch: 0, previous: [0; 32], items: [0; 32], state: [0; 32] };
    let proven: Vec<_> =
        batches.iter().map(|batch| Agreed { batch: batch.clone(), proven: Some(header) }).collect();
    let half = [proven[0].clone(), Agreed { batch: batches[1].clone(), proven: None }];
    let presumer = &guardian.applier.presumer;
    assert_eq!(presumer.trust_now(&half), Trust::Nobody);
    assert_eq!(presumer.trust_now(&proven), Trust::Signed);
    guardian.applier.deceived(0);
    let verified = (0..100).take_while(|_| presumer.trust_now(&proven) == Trust::Nobody).count();
    assert_eq!(verified, 16);
}

#[tokio::test]
async fn modules_see_each_epoch_once_before_it_is_applied() {
    let (batches, spends) = epochs();
    let guardian = Guardian::new().await;
    for range in [0..2, 0..4, 1..7, 2..3] {
        let said = guardian.applier.note(&batches[range], Trust::Nobody);
        guardian.applier.verify_ahead(said).await.unwrap();
    }
    let (items, outputs) = guardian.toy.seen.lock().unwrap().clone();
    let expected: Vec<_> =
        [(0, 0, 1), (0, 0, 2), (0, 1, 3), (1, 0, 13), (4, 0, 7), (4, 1, 8), (4, 1, 13), (5, 0, 9), (6, 0, 9)]
            .map(|(epoch, peer, item)| (epoch, PeerId(peer), item))
            .into();
    assert_eq!(items, expected);
    for spend in spends.iter().filter(|spend| **spend != spends[3]) {
        let point = OutPoint { txid: spend.txid(FEDERATION), index: 0 };
        assert!(outputs.contains(&(point, 9)), "an output wasn't shown");
    }
    assert!(outputs.iter().any(|(_, amount)| *amount == 13));
}

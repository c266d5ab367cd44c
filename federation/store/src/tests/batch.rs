//! A write batch does what a plain map would.

use std::collections::BTreeMap;

use federation_core::db::{Pair, Reader as _, Writer as _};
use proptest::prelude::*;

use crate::{WriteBatch, memory};

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u8>, u8),
    Delete(Vec<u8>),
    Savepoint,
    Rollback,
    Release,
    Stage,
    Commit,
    Prefetch(Vec<Vec<u8>>),
    Get(Vec<u8>),
    Scan(Vec<u8>, Option<Vec<u8>>, usize),
}

/// Few and short keys, so that steps meet.
fn key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255)], 0..4)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (key(), any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        4 => key().prop_map(Step::Delete),
        2 => Just(Step::Savepoint),
        1 => Just(Step::Rollback),
        1 => Just(Step::Release),
        1 => Just(Step::Stage),
        1 => Just(Step::Commit),
        2 => proptest::collection::vec(key(), 0..4).prop_map(Step::Prefetch),
        4 => key().prop_map(Step::Get),
        4 => (key(), proptest::option::of(key()), 0..6usize)
            .prop_map(|(prefix, after, limit)| Step::Scan(prefix, after, limit)),
    ]
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn scan(model: &Model, prefix: &[u8], after: Option<&Vec<u8>>, limit: usize) -> Vec<Pair> {
    let wanted = |key: &Vec<u8>| {
        key.starts_with(prefix) && after.is_none_or(|after| key.as_slice() > after.as_slice())
    };
    model.iter().filter(|(key, _)| wanted(key)).take(limit).map(|(k, v)| (k.clone(), v.clone())).collect()
}

async fn run(steps: Vec<Step>) {
    let db = memory();
    let mut batch = WriteBatch::new(db.clone());
    let mut model = Model::new();
    let mut committed = Model::new();
    let mut staged = Model::new();
    let mut saved: Vec<Model> = Vec::new();
    for step in steps {
        match step {
            Step::Put(key, value) => {
                batch.put(key.clone(), vec![value]);
                model.insert(key, vec![value]);
            }
            Step::Delete(key) => {
                batch.delete(key.clone());
                model.remove(&key);
            }
            Step::Savepoint => {
                batch.savepoint();
                saved.push(model.clone());
            }
            Step::Rollback => {
                batch.rollback();
                model = saved.pop().unwrap_or_else(|| staged.clone());
            }
            Step::Release => {
                batch.release();
                saved.pop();
            }
            Step::Stage => {
                batch.next_stage();
                staged = model.clone();
                saved.clear();
            }
            Step::Commit => {
                std::mem::replace(&mut batch, WriteBatch::new(db.clone())).commit().await.unwrap();
                committed = model.clone();
                staged = model.clone();
                saved.clear();
            }
            Step::Prefetch(keys) => batch.prefetch(keys).await.unwrap(),
            Step::Get(key) => {
                assert_eq!(batch.get(&key).await.unwrap(), model.get(&key).cloned());
                let many = batch.get_many(&[vec![7], key.clone()]).await.unwrap();
                assert_eq!(many, [None, model.get(&key).cloned()]);
            }
            Step::Scan(prefix, after, limit) => {
                let found = batch.scan(&prefix, after.as_deref(), limit).await.unwrap();
                assert_eq!(found, scan(&model, &prefix, after.as_ref(), limit));
            }
        }
        assert_eq!(db.scan(&[], None, usize::MAX).await.unwrap(), scan(&committed, &[], None, usize::MAX));
        let mut replayed = staged.clone();
        for replaced in batch.replaced(|key| key.first() != Some(&1)).await.unwrap() {
            assert_eq!(staged.get(&replaced.key), replaced.before.as_ref());
            assert_ne!(replaced.before, replaced.after);
            match replaced.after {
                Some(value) => replayed.insert(replaced.key, value),
                None => replayed.remove(&replaced.key),
            };
        }
        let wanted = |pairs: &Model| {
            pairs
                .iter()
                .filter(|(key, _)| key.first() != Some(&1))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(wanted(&replayed), wanted(&model));
    }
    assert_eq!(batch.scan(&[], None, usize::MAX).await.unwrap(), scan(&model, &[], None, usize::MAX));
    let keys: Vec<_> = model.keys().cloned().chain([vec![9, 9]]).collect();
    let values = batch.get_many(&keys).await.unwrap();
    assert_eq!(values, keys.iter().map(|key| model.get(key).cloned()).collect::<Vec<_>>());
    for key in &keys {
        assert_eq!(batch.get(key).await.unwrap(), model.get(key).cloned());
    }
}

proptest! {
    #[test]
    fn a_batch_is_a_map_with_undo(steps in proptest::collection::vec(step(), 0..60)) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(steps));
    }
}

#[tokio::test]
async fn a_rolled_back_transaction_inside_an_epoch_leaves_no_trace() {
    let mut batch = WriteBatch::new(memory());
    batch.put(b"a".to_vec(), b"1".to_vec());
    batch.savepoint();
    batch.put(b"a".to_vec(), b"2".to_vec());
    batch.savepoint();
    batch.delete(b"a".to_vec());
    batch.release();
    batch.rollback();
    assert_eq!(batch.into_changes(), BTreeMap::from([(b"a".to_vec(), Some(b"1".to_vec()))]));
}

//! The digest of the agreed state after each epoch, kept up to date in the epoch's own commit.

use std::num::NonZero;
use std::sync::Arc;

use federation_core::db::{DbError, Reader};
use federation_store::{Replaced, WriteBatch};

use super::lthash::LtHash;
use crate::state::{self, AGREED_PREFIXES, NEXT_EPOCH, SUMS};

/// Fewer changes are not worth another thread.
const PART: usize = 32;
/// Pairs read with one query.
const PAGE: usize = 1000;

/// Brings the stored sums up to date with what `db` is about to commit, and gives the digest after it.
pub async fn update(db: &mut WriteBatch) -> Result<[u8; 32], DbError> {
    let mut sums = stored(db).await?;
    let replaced = db.replaced(state::is_agreed).await?;
    sums.merge(&difference(replaced).await?);
    SUMS.put(&mut state::local(db), &(), &sums.to_bytes());
    Ok(sums.digest())
}

async fn stored(db: &mut WriteBatch) -> Result<LtHash, DbError> {
    let corrupt =
        |reason: &str| DbError::Corrupt { table: "state digest".to_owned(), reason: reason.to_owned() };
    match SUMS.get(&state::local(db), &()).await? {
        Some(bytes) => LtHash::from_bytes(&bytes).ok_or_else(|| corrupt("it has the wrong length")),
        // What was written before in this batch counts as well: the first epoch sets `NEXT_EPOCH` to 1.
        None if NEXT_EPOCH.get(&state::agreed(db), &()).await?.is_none_or(|next| next <= 1) => {
            Ok(LtHash::default())
        }
        None => Err(corrupt("it is missing: an older version wrote this database")),
    }
}

/// The sums of what is added less what is taken away.
async fn difference(replaced: Vec<Replaced>) -> Result<LtHash, DbError> {
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    let part = replaced.len().div_ceil(workers).max(PART);
    if replaced.len() <= PART {
        return Ok(sum(&replaced));
    }
    let mut rest = replaced;
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let later = rest.split_off(part.min(rest.len()));
        let now = std::mem::replace(&mut rest, later);
        parts.push(tokio::task::spawn_blocking(move || sum(&now)));
    }
    let mut total = LtHash::default();
    for part in parts {
        let cut_off = |error| DbError::Engine(format!("the state digest was cut off: {error}"));
        total.merge(&part.await.map_err(cut_off)?);
    }
    Ok(total)
}

fn sum(replaced: &[Replaced]) -> LtHash {
    let mut sums = LtHash::default();
    for Replaced { key, before, after } in replaced {
        if let Some(value) = before {
            sums.remove(key, value);
        }
        if let Some(value) = after {
            sums.insert(key, value);
        }
    }
    sums
}

/// The sums of all that is committed, from scratch: seconds for a large state.
pub async fn recompute(db: &Arc<dyn Reader>) -> Result<LtHash, DbError> {
    let mut total = LtHash::default();
    for prefix in AGREED_PREFIXES {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = db.scan(&prefix, after.as_deref(), PAGE).await?;
            let done = page.len() < PAGE;
            after = page.last().map(|(key, _)| key.clone());
            let added =
                page.into_iter().map(|(key, value)| Replaced { key, before: None, after: Some(value) });
            total.merge(&difference(added.collect()).await?);
            if done {
                break;
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use federation_core::db::{Database, Writer as _};
    use proptest::prelude::*;

    use super::*;

    type Write = (Vec<u8>, Option<Vec<u8>>);

    /// Few keys, so that they are met again; in and out of the agreed namespaces.
    fn write() -> impl Strategy<Value = Write> {
        let key = (0u8..5, proptest::collection::vec(0u8..4, 0..3));
        let value = proptest::option::weighted(0.7, proptest::collection::vec(any::<u8>(), 0..3));
        (key.prop_map(|(first, rest)| [vec![first], rest].concat()), value)
    }

    async fn epochs(batches: Vec<Vec<Write>>) {
        let db = federation_store::memory();
        let mut last = LtHash::default().digest();
        for writes in batches {
            let mut batch = WriteBatch::new(Arc::clone(&db));
            for (key, value) in writes {
                // Some of them in a savepoint that is rolled back.
                if key.len() == 2 {
                    batch.savepoint();
                }
                match value.clone() {
                    // The next epoch and the sums themselves are not for random bytes.
                    _ if key.get(1) == Some(&1) && matches!(key.first(), Some(0 | 2)) => {}
                    Some(value) => batch.put(key.clone(), value),
                    None => batch.delete(key.clone()),
                }
                if key.len() == 2 {
                    if value.is_some_and(|value| value.len() == 2) {
                        batch.rollback()
                    } else {
                        batch.release()
                    }
                }
            }
            let unchanged = batch.replaced(state::is_agreed).await.unwrap().is_empty();
            let digest = update(&mut batch).await.unwrap();
            batch.commit().await.unwrap();
            let reader: Arc<dyn Reader> = Arc::clone(&db) as _;
            assert_eq!(digest, recompute(&reader).await.unwrap().digest());
            assert_eq!(digest == last, unchanged);
            last = digest;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_is_what_a_full_computation_gives(
            batches in proptest::collection::vec(proptest::collection::vec(write(), 0..20), 1..6),
        ) {
            tokio::runtime::Builder::new_multi_thread().build().unwrap().block_on(epochs(batches));
        }
    }

    /// Many changes at once go through several threads, some in and some out of the agreed namespaces.
    #[tokio::test]
    async fn large_epochs_are_summed_in_parts() {
        let write = |n: u32| {
            let key = [vec![u8::try_from(n % 5).unwrap(), 9], n.to_be_bytes().to_vec()].concat();
            (key, (!n.is_multiple_of(7)).then(|| n.to_le_bytes().to_vec()))
        };
        epochs(vec![(0..3000).map(write).collect(), (0..1000).map(|n| write(3 * n + 1)).collect()]).await;
    }

    #[tokio::test]
    async fn a_database_without_sums_is_refused() {
        let db = federation_store::memory();
        let mut batch = WriteBatch::new(Arc::clone(&db));
        NEXT_EPOCH.put(&mut state::agreed(&mut batch), &(), &7);
        batch.commit().await.unwrap();
        let error = update(&mut WriteBatch::new(db as Arc<dyn Database>)).await.unwrap_err();
        assert!(error.to_string().contains("older version"), "{error}");
    }
}

//! The pool on a database: durable when answered, in few commits, through a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use federation_core::db::{Changes, Database, DbError, Pair, Reader};
use federation_core::{FederationId, Input, ModuleId, Output, Transaction};
use federation_store::WriteBatch;
use tokio::sync::{Notify, Semaphore};

use super::pool::{NoRoom, Pool};

const FEDERATION: FederationId = FederationId([4; 32]);

/// Counts commits, and makes each wait for a permit.
struct Slow {
    inner: Arc<dyn Database>,
    commits: AtomicUsize,
    permits: Semaphore,
    broken: AtomicBool,
}

impl Slow {
    fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: federation_store::memory(),
            commits: AtomicUsize::new(0),
            permits: Semaphore::new(permits),
            broken: AtomicBool::new(false),
        })
    }
}

#[async_trait::async_trait]
impl Reader for Slow {
    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        self.inner.get(key).await
    }
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, DbError> {
        self.inner.get_many(keys).await
    }
    async fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, DbError> {
        self.inner.scan(prefix, after, limit).await
    }
}

#[async_trait::async_trait]
impl Database for Slow {
    async fn view(&self) -> Result<Arc<dyn Reader>, DbError> {
        self.inner.view().await
    }
    async fn commit(&self, changes: Changes) -> Result<(), DbError> {
        self.permits.acquire().await.unwrap().forget();
        if self.broken.load(Ordering::SeqCst) {
            return Err(DbError::Engine("the disk is full".to_owned()));
        }
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.inner.commit(changes).await
    }
}

fn transaction(note: u8, output: u8) -> Transaction {
    let key = Keypair::from_secret_key(SECP256K1, &SecretKey::from_slice(&[note; 32]).unwrap());
    let input = Input { module: ModuleId(0), key: key.x_only_public_key().0, body: vec![note] };
    let output = Output { module: ModuleId(0), body: vec![output] };
    Transaction::sign(FEDERATION, vec![input], vec![output], &[key])
}

async fn open(db: &Arc<Slow>) -> Arc<Pool> {
    Arc::new(Pool::open(Arc::clone(db) as _, FEDERATION, Arc::new(Notify::new())).await.unwrap())
}

fn submit(
    pool: &Arc<Pool>,
    transaction: &Transaction,
) -> tokio::task::JoinHandle<Result<Result<(), NoRoom>, DbError>> {
    let (pool, transaction) = (Arc::clone(pool), transaction.clone());
    tokio::spawn(async move { pool.add(transaction.txid(FEDERATION), &transaction).await })
}

async fn until(what: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while !what() {
        assert!(tokio::time::Instant::now() < deadline, "it did not come to this in time");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn submissions_share_a_commit_and_are_answered_when_durable() {
    let db = Slow::new(0);
    let pool = open(&db).await;
    let transactions: Vec<_> = (1..=100).map(|note| transaction(note, 1)).collect();
    let mut answers: Vec<_> = transactions.iter().map(|transaction| submit(&pool, transaction)).collect();
    answers.push(submit(&pool, &transactions[3]));
    until(|| pool.waiting().entries == 100).await;
    // Not a word before the disk has them.
    assert!(answers.iter().all(|answer| !answer.is_finished()));
    assert!(pool.draw().is_empty() && !pool.contains(&transactions[0].txid(FEDERATION)));
    db.permits.add_permits(1000);
    for answer in answers {
        answer.await.unwrap().unwrap().unwrap();
    }
    let commits = db.commits.load(Ordering::SeqCst);
    assert!(commits <= 3, "{commits} commits for 100 submissions");
    assert_eq!(pool.draw().len(), 100);
    // A restart finds all of them, and still one an input.
    let pool = open(&db).await;
    assert_eq!(pool.draw().len(), 100);
    assert_eq!(submit(&pool, &transaction(7, 2)).await.unwrap().unwrap(), Err(NoRoom::InputInUse));
    // (Signed anew: another witness, the same transaction.)
    assert_eq!(submit(&pool, &transaction(7, 1)).await.unwrap().unwrap(), Ok(()));
    assert_eq!(pool.waiting().entries, 100);
}

#[tokio::test]
async fn a_client_that_hangs_up_costs_others_nothing() {
    let db = Slow::new(0);
    let pool = open(&db).await;
    let (first, second) = (transaction(1, 1), transaction(2, 1));
    let first = submit(&pool, &first);
    until(|| pool.waiting().entries == 1).await;
    let second = submit(&pool, &second);
    until(|| pool.waiting().entries == 2).await;
    first.abort();
    db.permits.add_permits(1000);
    second.await.unwrap().unwrap().unwrap();
    assert_eq!(open(&db).await.draw().len(), 2);
}

#[tokio::test]
async fn what_is_decided_before_it_is_durable_leaves_the_disk_too() {
    let db = Slow::new(0);
    let pool = open(&db).await;
    let transaction = transaction(1, 1);
    let answer = submit(&pool, &transaction);
    until(|| pool.waiting().entries == 1).await;
    // The epoch's commit: the row is not there yet.
    let mut batch = WriteBatch::new(Arc::clone(&db) as _);
    pool.forget(&mut batch, &[transaction.hash()]);
    db.permits.add_permits(1000);
    batch.commit().await.unwrap();
    pool.forgotten(&[transaction.hash()]);
    answer.await.unwrap().unwrap().unwrap();
    assert_eq!(pool.waiting().entries, 0);
    assert_eq!(open(&db).await.waiting().entries, 0);
}

#[tokio::test]
async fn a_disk_that_fails_is_told_to_all_and_ends_the_pool() {
    let db = Slow::new(1000);
    let pool = open(&db).await;
    db.broken.store(true, Ordering::SeqCst);
    let first = submit(&pool, &transaction(1, 1)).await.unwrap();
    assert!(first.unwrap_err().to_string().contains("disk is full"));
    assert!(pool.failed().await.contains("disk is full"));
    assert!(pool.add(transaction(2, 1).txid(FEDERATION), &transaction(2, 1)).await.is_err());
}

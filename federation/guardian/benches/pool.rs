//! The pool: submissions that share commits, and the draw, each against the simplest way to do it.
//!
//! `cargo bench -p federation-guardian --all-features --bench pool`

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a measurement")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use federation_core::db::Database;
use federation_core::encoding::encode;
use federation_core::{FederationId, Input, ModuleId, Output, Transaction};
use federation_guardian::epoch::contribution::MAX_TRANSACTIONS;
use federation_guardian::epoch::pool::Pool;
use federation_guardian::state::{self, POOL};
use federation_store::WriteBatch;
use rand::seq::SliceRandom;
use tokio::sync::Notify;

const FEDERATION: FederationId = FederationId([1; 32]);
const ENTRIES: u32 = 10_000;

/// About as large as a payment of a note for two.
fn transaction(number: u32) -> Transaction {
    let mut secret = [1; 32];
    secret[..4].copy_from_slice(&number.to_be_bytes());
    let key = Keypair::from_secret_key(SECP256K1, &SecretKey::from_slice(&secret).unwrap());
    let input = Input { module: ModuleId(0), key: key.x_only_public_key().0, body: vec![0; 49] };
    let output = Output { module: ModuleId(0), body: vec![0; 49] };
    Transaction::sign(FEDERATION, vec![input], vec![output.clone(), output], &[key])
}

async fn store(folder: &std::path::Path, name: &str) -> Arc<dyn Database> {
    federation_store::open(&format!("sqlite://{}", folder.join(name).display())).await.unwrap()
}

/// Submissions from some clients at once, each its next when the last is answered; how long all take.
async fn submissions<F: Future<Output = ()> + Send + 'static>(
    clients: usize,
    transactions: &[Transaction],
    submit: impl Fn(Transaction) -> F + Clone + Send + 'static,
) -> Duration {
    let start = Instant::now();
    let mut tasks = Vec::new();
    for part in transactions.chunks(transactions.len().div_ceil(clients)) {
        let (part, submit) = (part.to_vec(), submit.clone());
        tasks.push(tokio::spawn(async move {
            for transaction in part {
                submit(transaction).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    start.elapsed()
}

/// One after the other, several times: other work on the disk hits both alike.
async fn commits(folder: &std::path::Path, transactions: &[Transaction]) {
    const ROUNDS: usize = 5;
    for clients in [1usize, 8, 64] {
        let db = store(folder, &format!("together-{clients}")).await;
        let pool = Arc::new(Pool::open(db, FEDERATION, Arc::new(Notify::new())).await.unwrap());
        let alone = store(folder, &format!("alone-{clients}")).await;
        let part = (clients * 50).min(1600);
        let (mut before, mut after) = (Duration::ZERO, Duration::ZERO);
        for some in transactions.chunks(part).take(ROUNDS) {
            let alone = Arc::clone(&alone);
            before += submissions(clients, some, move |transaction| {
                let db = Arc::clone(&alone);
                async move {
                    let mut batch = WriteBatch::new(db);
                    POOL.put(&mut state::local(&mut batch), &transaction.hash(), &encode(&transaction));
                    batch.commit().await.unwrap();
                }
            })
            .await;
            let pool = Arc::clone(&pool);
            after += submissions(clients, some, move |transaction| {
                let pool = Arc::clone(&pool);
                async move { pool.add(transaction.txid(FEDERATION), &transaction).await.unwrap().unwrap() }
            })
            .await;
        }
        let rate = |time: Duration| (part * ROUNDS) as f64 / time.as_secs_f64();
        println!(
            "submissions, {clients:>2} clients: {:>6.0} a second in a commit each, {:>6.0} in the pool: {:.2} x",
            rate(before),
            rate(after),
            rate(after) / rate(before)
        );
    }
}

fn per_call(times: u32, mut call: impl FnMut() -> usize) -> (Duration, usize) {
    let start = Instant::now();
    let drawn = (0..times).map(|_| call()).last().unwrap();
    (start.elapsed() / times, drawn)
}

async fn draws(transactions: &[Transaction]) {
    let pool = Pool::open(federation_store::memory(), FEDERATION, Arc::new(Notify::new())).await.unwrap();
    let mut all: Vec<Arc<[u8]>> = Vec::new();
    for transaction in transactions {
        pool.add(transaction.txid(FEDERATION), transaction).await.unwrap().unwrap();
        all.push(encode(transaction).into());
    }
    // What it was: all are copied (as pointers) and shuffled, and all are tried.
    let (before, was) = per_call(200, || {
        let mut waiting = all.clone();
        waiting.shuffle(&mut rand::thread_rng());
        let mut room = MAX_TRANSACTIONS;
        let mut drawn = Vec::new();
        for bytes in waiting {
            if let Some(left) = room.checked_sub(bytes.len() + 4) {
                room = left;
                drawn.push(bytes.to_vec());
            }
        }
        drawn.len()
    });
    let (after, drawn) =
        per_call(200, || pool.draw().iter().map(|bytes| bytes.to_vec()).collect::<Vec<_>>().len());
    println!(
        "draw from {ENTRIES} entries of {} bytes: {before:?} for {was} before, {after:?} for {drawn}: {:.2} x",
        all[0].len(),
        before.as_secs_f64() / after.as_secs_f64()
    );
    let looks = per_call(10_000, || pool.waiting().ready).0;
    println!("a look at how full it is: {looks:?}");
}

fn main() {
    let folder = std::env::temp_dir().join(format!("clnfed-bench-pool-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let transactions: Vec<_> = (1..=ENTRIES).map(transaction).collect();
        commits(&folder, &transactions).await;
        draws(&transactions).await;
    });
    let _ = std::fs::remove_dir_all(&folder);
}

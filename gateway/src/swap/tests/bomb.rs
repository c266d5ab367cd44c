//! A process that dies at a chosen moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use federation_core::db::{Changes, Database, DbError, Pair, Reader};
use tokio::sync::Notify;

/// Counts everything that leaves a trace (commits, and calls that change something outside) and stops at one of them: what
/// is called then, and ever after, never returns.
#[derive(Clone)]
pub struct Bomb(Arc<Inner>);

struct Inner {
    calls: AtomicUsize,
    at: usize,
    /// Whether the call that it goes off at still has its effect.
    after: bool,
    dead: AtomicBool,
    died: Notify,
}

impl Bomb {
    pub fn new(at: usize, after: bool) -> Self {
        Self(Arc::new(Inner {
            calls: AtomicUsize::new(0),
            at,
            after,
            dead: AtomicBool::new(false),
            died: Notify::new(),
        }))
    }

    /// Never goes off.
    pub fn dud() -> Self {
        Self::new(usize::MAX, false)
    }

    pub fn is_dead(&self) -> bool {
        self.0.dead.load(Ordering::SeqCst)
    }

    pub async fn died(&self) {
        let died = self.0.died.notified();
        if !self.is_dead() {
            died.await;
        }
    }

    /// Runs an effect, unless the process is dead before it; never returns if it is dead after it.
    pub async fn around<T>(&self, effect: impl Future<Output = T>) -> T {
        if self.is_dead() {
            return std::future::pending().await;
        }
        let strikes = self.0.calls.fetch_add(1, Ordering::SeqCst) == self.0.at;
        if strikes {
            self.0.dead.store(true, Ordering::SeqCst);
            if self.0.after {
                effect.await;
            }
            self.0.died.notify_waiters();
            return std::future::pending().await;
        }
        effect.await
    }

    /// A question has no effect, but a dead process asks none.
    pub async fn alive(&self) {
        if self.is_dead() {
            std::future::pending().await
        }
    }
}

/// A database whose commits count.
pub struct BombDb {
    pub db: Arc<dyn Database>,
    pub bomb: Bomb,
}

#[async_trait]
impl Reader for BombDb {
    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        self.db.get(key).await
    }
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, DbError> {
        self.db.get_many(keys).await
    }
    async fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, DbError> {
        self.db.scan(prefix, after, limit).await
    }
}

#[async_trait]
impl Database for BombDb {
    async fn commit(&self, changes: Changes) -> Result<(), DbError> {
        self.bomb.around(self.db.commit(changes)).await
    }
    async fn view(&self) -> Result<Arc<dyn Reader>, DbError> {
        self.db.view().await
    }
}

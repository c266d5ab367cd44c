//! A process that is killed at a certain commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use federation_core::db::{Changes, Database, DbError, Pair, Reader};

/// A database whose process dies at one of its commits: just before it, or just after.
pub(super) struct Mortal {
    inner: Arc<dyn Database>,
    left: AtomicUsize,
    after: bool,
}

#[async_trait]
impl Reader for Mortal {
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

#[async_trait]
impl Database for Mortal {
    async fn commit(&self, changes: Changes) -> Result<(), DbError> {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        if left > 1 {
            return self.inner.commit(changes).await;
        }
        if left == 1 && self.after {
            self.inner.commit(changes).await?;
        }
        self.left.store(0, Ordering::SeqCst);
        Err(DbError::Engine("killed".into()))
    }
    async fn view(&self) -> Result<Arc<dyn Reader>, DbError> {
        self.inner.view().await
    }
}

impl Mortal {
    /// Over a database that survives it.
    pub fn at(inner: &Arc<dyn Database>, commit: usize, after: bool) -> Arc<dyn Database> {
        Arc::new(Self { inner: Arc::clone(inner), left: AtomicUsize::new(commit), after })
    }
}

//! A store that is lost with its process, for tests.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use federation_core::db::{Changes, Database, DbError, Pair, Reader};

use crate::range;

/// The pairs in order.
#[derive(Default)]
pub struct Memory(RwLock<BTreeMap<Vec<u8>, Vec<u8>>>);

#[async_trait]
impl Reader for Memory {
    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        Ok(self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, DbError> {
        let pairs = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Ok(keys.iter().map(|key| pairs.get(key).cloned()).collect())
    }

    async fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, DbError> {
        let lower = range::lower(prefix, after);
        let pairs = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Ok(pairs
            .range::<[u8], _>((Bound::Included(lower.as_slice()), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }
}

#[async_trait]
impl Database for Memory {
    async fn commit(&self, changes: Changes) -> Result<(), DbError> {
        let mut pairs = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (key, change) in changes {
            match change {
                Some(value) => pairs.insert(key, value),
                None => pairs.remove(&key),
            };
        }
        Ok(())
    }

    async fn view(&self) -> Result<Arc<dyn Reader>, DbError> {
        let pairs = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Arc::new(Self(RwLock::new(pairs))))
    }
}

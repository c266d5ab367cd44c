//! The writes of one commit, in memory over the committed state.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use federation_core::db::{Changes, Database, DbError, Pair, Reader, Writer};

use crate::range;
use crate::whole::Whole;

/// What a key had in the batch before a write; `None`: nothing, the committed value shone through.
type Before = Option<Option<Vec<u8>>>;

/// A key that a batch writes, with what was there before and what will be. `None`: there is no such key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// The key.
    pub key: Vec<u8>,
    /// The committed value, or that of the last [stage](WriteBatch::next_stage).
    pub before: Option<Vec<u8>>,
    /// The value now; it differs.
    pub after: Option<Vec<u8>>,
}

/// An overlay over a database: later reads see its writes, the disk sees them with [`commit`](Self::commit).
///
/// Savepoints nest. A refused transaction is rolled back to the savepoint before it and leaves no trace; none of it
/// costs any SQL. What was read once, or [ahead](Self::prefetch), or scanned and is small, costs no second query: whoever has
/// a batch is the only writer, until the commit, of what it reads.
///
/// Several epochs may share one commit: each is a [stage](Self::next_stage) of its own.
pub struct WriteBatch {
    base: Arc<dyn Database>,
    /// What was read of the committed state.
    read: Mutex<HashMap<Vec<u8>, Option<Vec<u8>>>>,
    whole: Mutex<Whole>,
    /// The writes of earlier stages.
    staged: Changes,
    /// The writes of this one.
    changes: Changes,
    /// What to put back on a rollback, oldest first; kept only while there is a savepoint.
    undo: Vec<(Vec<u8>, Before)>,
    /// The lengths of `undo` at each savepoint.
    savepoints: Vec<usize>,
}

impl WriteBatch {
    /// An empty batch over the committed state of `base`.
    pub fn new(base: Arc<dyn Database>) -> Self {
        Self {
            base,
            read: Mutex::default(),
            whole: Mutex::default(),
            staged: BTreeMap::new(),
            changes: BTreeMap::new(),
            undo: Vec::new(),
            savepoints: Vec::new(),
        }
    }

    fn read(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Option<Vec<u8>>>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn whole(&self) -> MutexGuard<'_, Whole> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads those of these keys that aren't known with one query, so that later reads of them cost none.
    ///
    /// # Errors
    /// Whatever the engine says.
    pub async fn prefetch(&self, mut keys: Vec<Vec<u8>>) -> Result<(), DbError> {
        keys.retain(|key| self.known(key).is_none());
        if keys.is_empty() {
            return Ok(());
        }
        let values = self.base.get_many(&keys).await?;
        self.read().extend(keys.into_iter().zip(values));
        Ok(())
    }

    /// What is known of a key without a query.
    fn known(&self, key: &[u8]) -> Option<Option<Vec<u8>>> {
        self.changes.get(key).cloned().or_else(|| self.known_before(key))
    }

    /// What is known without a query of a key as it was before this stage.
    fn known_before(&self, key: &[u8]) -> Option<Option<Vec<u8>>> {
        let staged = self.staged.get(key).cloned();
        staged.or_else(|| self.read().get(key).cloned()).or_else(|| self.whole().get(key))
    }

    /// Ends an epoch's writes and begins the next one's; they are committed together. All savepoints are released.
    pub fn next_stage(&mut self) {
        self.savepoints.clear();
        self.undo.clear();
        self.staged.append(&mut self.changes);
    }

    /// Opens a savepoint, inside the ones that are open.
    pub fn savepoint(&mut self) {
        self.savepoints.push(self.undo.len());
    }

    /// Undoes all writes since the innermost savepoint and closes it. Without a savepoint: all of this stage.
    pub fn rollback(&mut self) {
        let Some(mark) = self.savepoints.pop() else {
            self.changes.clear();
            return;
        };
        for (key, before) in self.undo.drain(mark..).rev() {
            match before {
                Some(change) => self.changes.insert(key, change),
                None => self.changes.remove(&key),
            };
        }
    }

    /// Closes the innermost savepoint and keeps its writes: they now belong to the one outside.
    pub fn release(&mut self) {
        self.savepoints.pop();
        if self.savepoints.is_empty() {
            self.undo.clear();
        }
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.staged.is_empty() && self.changes.is_empty()
    }

    /// This stage's writes so far, in order of keys.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// This stage's writes so far that make a difference, of keys that `wanted` picks, in order of keys: what a digest of
    /// the state is brought up to date with. At most one query.
    ///
    /// # Errors
    /// Whatever the engine says.
    pub async fn replaced(&self, wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<Replaced>, DbError> {
        let changes: Vec<_> = self.changes.iter().filter(|(key, _)| wanted(key)).collect();
        let unknown = changes.iter().map(|(key, _)| *key).filter(|key| self.known_before(key).is_none());
        let unknown: Vec<_> = unknown.cloned().collect();
        let found = if unknown.is_empty() { Vec::new() } else { self.base.get_many(&unknown).await? };
        let mut found = found.into_iter();
        Ok(changes
            .into_iter()
            .map(|(key, after)| {
                let before = self.known_before(key).unwrap_or_else(|| found.next().flatten());
                Replaced { key: key.clone(), before, after: after.clone() }
            })
            .filter(|replaced| replaced.before != replaced.after)
            .collect())
    }

    /// The writes, to be committed by the caller.
    pub fn into_changes(mut self) -> Changes {
        self.next_stage();
        self.staged
    }

    /// Makes all writes, or none, durable.
    ///
    /// # Errors
    /// Whatever the engine says; the process should then stop and start again from the committed state.
    pub async fn commit(self) -> Result<(), DbError> {
        let base = Arc::clone(&self.base);
        let changes = self.into_changes();
        if changes.is_empty() { Ok(()) } else { base.commit(changes).await }
    }

    fn set(&mut self, key: Vec<u8>, change: Option<Vec<u8>>) {
        if self.savepoints.is_empty() {
            self.changes.insert(key, change);
        } else {
            let before = self.changes.insert(key.clone(), change);
            self.undo.push((key, before));
        }
    }
}

#[async_trait]
impl Reader for WriteBatch {
    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        if let Some(value) = self.known(key) {
            return Ok(value);
        }
        let value = self.base.get(key).await?;
        self.read().insert(key.to_vec(), value.clone());
        Ok(value)
    }

    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, DbError> {
        self.prefetch(keys.to_vec()).await?;
        Ok(keys.iter().map(|key| self.known(key).flatten()).collect())
    }

    async fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, DbError> {
        let mut pairs = Vec::new();
        let mut after = after.map(<[u8]>::to_vec);
        while pairs.len() < limit {
            let wanted = limit - pairs.len();
            let page = self.page(prefix, after.as_deref(), wanted).await?;
            // Beyond the last key of a full page the base may hold more, so the merge ends there.
            let horizon = if page.len() < wanted { None } else { page.last().map(|(key, _)| key.clone()) };
            let merged = self.merge(prefix, after.as_deref(), page, horizon.as_deref());
            pairs.extend(merged.into_iter().take(wanted));
            if horizon.is_none() {
                break;
            }
            after = horizon;
        }
        Ok(pairs)
    }
}

impl WriteBatch {
    async fn page(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, DbError> {
        if let Some(page) = self.whole().scan(prefix, after, limit) {
            return Ok(page);
        }
        let page = self.base.scan(prefix, after, limit).await?;
        if after.is_none() && page.len() < limit {
            self.whole().remember(prefix, &page);
        }
        Ok(page)
    }

    /// A page of the base with the batch's own writes in the same range, up to and with `horizon`.
    fn merge(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        page: Vec<Pair>,
        horizon: Option<&[u8]>,
    ) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let lower = range::lower(prefix, after);
        let mut merged: BTreeMap<_, _> = page.into_iter().collect();
        let within = |key: &[u8]| key.starts_with(prefix) && horizon.is_none_or(|horizon| key <= horizon);
        for writes in [&self.staged, &self.changes] {
            let own = writes.range::<[u8], _>((Bound::Included(lower.as_slice()), Bound::Unbounded));
            for (key, change) in own.take_while(|(key, _)| within(key)) {
                match change {
                    Some(value) => merged.insert(key.clone(), value.clone()),
                    None => merged.remove(key),
                };
            }
        }
        merged
    }
}

impl Writer for WriteBatch {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.set(key, Some(value));
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.set(key, None);
    }
}

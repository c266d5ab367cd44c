//! What was read or written lately, in memory: whoever has a store is its only writer, so it knows when that changes.
//!
//! Clients ask for what an epoch has just written, and each epoch reads the same few counters; neither takes a query then. A
//! read never shows less than what was committed when it began.
//!
//! # Why nothing old stays
//! A commit takes the keys that it changes out of memory before it begins, and puts what it wrote there after it has ended;
//! as long as it is [under way](Memory::changing), nobody else puts them there. Another read may have begun before a commit
//! and end after it: it remembers nothing, since meanwhile one more commit has [ended](Memory::ended). A commit that failed may have
//! its effect at any time: from then on nothing is remembered at all.
//!
//! # Who hangs up
//! A commit that has begun goes on to its end though nobody waits for it any more. Reads wait for it then: whoever hung up has let
//! go of whatever kept others from changing the same values, and what they do next must not be based on the old ones.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use federation_core::db::{Changes, Database, DbError, Pair, Reader};
use tokio::sync::Notify;

use crate::whole::Whole;

/// The most bytes of keys and values in memory. When there are more, the oldest go.
const BYTES: usize = 8 << 20;
/// A key or value larger than this isn't worth it.
const LARGE: usize = 4096;
/// The longest prefix of what is remembered as a whole: a table in a module's part. (There are too many smaller parts, such as all that
/// belongs to one transaction.)
const TABLE: usize = 4;
/// What an entry takes beside its bytes.
const ENTRY: usize = 160;

/// A store with a memory.
pub struct Recent<D> {
    inner: Arc<D>,
    /// One commit at a time.
    writer: Arc<tokio::sync::Mutex<()>>,
    shared: Arc<Shared>,
}

/// What reads and commits share.
#[derive(Default)]
struct Shared {
    memory: Mutex<Memory>,
    /// Told when a commit has ended.
    ended: Notify,
}

/// `None`: not known, or no longer. (`Some(None)`: known not to be there.)
type Slot = Option<Option<Vec<u8>>>;

#[derive(Default)]
struct Memory {
    slots: HashMap<Arc<[u8]>, Slot>,
    /// The keys of `slots`, oldest first.
    order: VecDeque<Arc<[u8]>>,
    bytes: usize,
    /// Small tables that were scanned.
    whole: Whole,
    /// What the commit that is under way changes.
    changing: BTreeSet<Vec<u8>>,
    /// How many commits have ended.
    ended: u64,
    /// Whether nobody waits for the one that is under way.
    abandoned: bool,
    /// Whether one of them didn't end well.
    doubtful: bool,
}

fn size(key: &[u8], slot: &Slot) -> usize {
    let value = slot.iter().flatten().map(Vec::len).sum::<usize>();
    key.len().saturating_add(value).saturating_add(ENTRY)
}

fn large(key: &[u8], value: Option<&[u8]>) -> bool {
    key.len() > LARGE || value.is_some_and(|value| value.len() > LARGE)
}

impl Memory {
    fn get(&self, key: &[u8]) -> Slot {
        self.slots.get(key).cloned().flatten()
    }

    fn insert(&mut self, key: &[u8], value: Option<Vec<u8>>) {
        if large(key, value.as_deref()) || self.doubtful {
            return;
        }
        let new = Some(value);
        self.bytes = self.bytes.saturating_add(size(key, &new));
        if let Some(slot) = self.slots.get_mut(key) {
            self.bytes = self.bytes.saturating_sub(size(key, slot));
            *slot = new;
        } else {
            let key: Arc<[u8]> = key.into();
            self.order.push_back(Arc::clone(&key));
            self.slots.insert(key, new);
        }
        while self.bytes > BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(slot) = self.slots.remove(&oldest) {
                self.bytes = self.bytes.saturating_sub(size(&oldest, &slot));
            }
        }
    }

    fn changes_under(&self, prefix: &[u8]) -> bool {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        self.changing.range::<[u8], _>(from).next().is_some_and(|key| key.starts_with(prefix))
    }

    /// Keeps the place, since hot keys are changed again and again.
    fn forget(&mut self, key: &[u8]) {
        if let Some(slot) = self.slots.get_mut(key) {
            self.bytes = self.bytes.saturating_sub(size(key, slot));
            *slot = None;
            self.bytes = self.bytes.saturating_add(size(key, slot));
        }
    }
}

/// A commit, which may fail or be cut off (as when the process ends).
struct UnderWay {
    shared: Arc<Shared>,
    /// The tables that it changes, as they will be.
    whole: Whole,
    done: bool,
}

impl UnderWay {
    fn begin(shared: Arc<Shared>, changes: &Changes) -> Self {
        let mut begun = shared.memory();
        for key in changes.keys() {
            begun.forget(key);
            begun.changing.insert(key.clone());
        }
        let whole = begun.whole.take_changing(changes);
        drop(begun);
        Self { shared, whole, done: false }
    }

    fn done(mut self, written: Vec<Pair>, deleted: Vec<Vec<u8>>) {
        let mut memory = self.shared.memory();
        written.into_iter().for_each(|(key, value)| memory.insert(&key, Some(value)));
        deleted.into_iter().for_each(|key| memory.insert(&key, None));
        drop(memory);
        self.shared.memory().whole.put_back(std::mem::take(&mut self.whole));
        self.done = true;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut memory = self.shared.memory();
        memory.changing.clear();
        memory.abandoned = false;
        memory.ended = memory.ended.wrapping_add(1);
        if !self.done {
            *memory = Memory { doubtful: true, ended: memory.ended, ..Memory::default() };
        }
        drop(memory);
        self.shared.ended.notify_waiters();
    }
}

/// Somebody who waits for the end of a commit.
struct Waits {
    shared: Arc<Shared>,
    /// How many commits had ended when it began.
    began: u64,
}

impl Drop for Waits {
    fn drop(&mut self) {
        let mut memory = self.shared.memory();
        if memory.ended == self.began {
            memory.abandoned = true;
        }
    }
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when no commit is under way that nobody waits for.
    async fn settled(&self) {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            // Before the look: an end in between is not missed.
            ended.as_mut().enable();
            if !self.memory().abandoned {
                return;
            }
            ended.await;
        }
    }
}

impl<D: Database> Recent<D> {
    /// Over a store that nobody else writes to.
    pub fn new(inner: D) -> Self {
        Self { inner: Arc::new(inner), writer: Arc::default(), shared: Arc::default() }
    }
}

#[async_trait]
impl<D: Database> Reader for Recent<D> {
    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        Ok(self.get_many(&[key.to_vec()]).await?.pop().flatten())
    }

    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, DbError> {
        self.shared.settled().await;
        let began = {
            let memory = self.shared.memory();
            let known: Option<Vec<_>> = keys.iter().map(|key| memory.get(key)).collect();
            match known {
                Some(known) => return Ok(known),
                None => memory.ended,
            }
        };
        // All of them, not only what isn't known: they are of one commit.
        let values = self.inner.get_many(keys).await?;
        let mut memory = self.shared.memory();
        if memory.ended == began {
            for (key, value) in keys.iter().zip(&values) {
                if !memory.changing.contains(key) {
                    memory.insert(key, value.clone());
                }
            }
        }
        Ok(values)
    }

    async fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, DbError> {
        self.shared.settled().await;
        let began = {
            let memory = self.shared.memory();
            if let Some(page) = memory.whole.scan(prefix, after, limit) {
                return Ok(page);
            }
            memory.ended
        };
        let page = self.inner.scan(prefix, after, limit).await?;
        let mut memory = self.shared.memory();
        let all = after.is_none() && page.len() < limit && prefix.len() <= TABLE;
        if all && memory.ended == began && !memory.doubtful && !memory.changes_under(prefix) {
            memory.whole.remember_latest(prefix, &page);
        }
        Ok(page)
    }
}

#[async_trait]
impl<D: Database> Database for Recent<D> {
    async fn commit(&self, changes: Changes) -> Result<(), DbError> {
        let writer = Arc::clone(&self.writer).lock_owned().await;
        let under_way = UnderWay::begin(Arc::clone(&self.shared), &changes);
        let _waits = Waits { began: self.shared.memory().ended, shared: Arc::clone(&self.shared) };
        let inner = Arc::clone(&self.inner);
        let commit = tokio::spawn(async move {
            // Until the commit has ended.
            let (_writer, under_way) = (writer, under_way);
            let (mut written, mut deleted) = (Vec::new(), Vec::new());
            for (key, value) in changes.iter().filter(|(key, value)| !large(key, value.as_deref())) {
                match value {
                    Some(value) => written.push((key.clone(), value.clone())),
                    None => deleted.push(key.clone()),
                }
            }
            inner.commit(changes).await.inspect_err(|error| {
                tracing::error!(%error, "a commit failed");
            })?;
            under_way.done(written, deleted);
            Ok(())
        });
        commit.await.map_err(|error| DbError::Engine(format!("a commit was cut off: {error}")))?
    }

    async fn view(&self) -> Result<Arc<dyn Reader>, DbError> {
        self.shared.settled().await;
        self.inner.view().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// Counts queries; commits and reads stop where they are told to.
    struct Slow {
        inner: Arc<dyn Database>,
        queries: AtomicUsize,
        /// Before a commit, and after it.
        commit: [Semaphore; 2],
        /// After a read.
        read: Semaphore,
    }

    #[async_trait]
    impl Reader for Slow {
        async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
            self.inner.get(key).await
        }
        async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, DbError> {
            self.queries.fetch_add(1, Ordering::SeqCst);
            let values = self.inner.get_many(keys).await;
            self.read.acquire().await.unwrap().forget();
            values
        }
        async fn scan(
            &self,
            prefix: &[u8],
            after: Option<&[u8]>,
            limit: usize,
        ) -> Result<Vec<Pair>, DbError> {
            self.queries.fetch_add(1, Ordering::SeqCst);
            let page = self.inner.scan(prefix, after, limit).await;
            self.read.acquire().await.unwrap().forget();
            page
        }
    }

    #[async_trait]
    impl Database for Slow {
        async fn commit(&self, changes: Changes) -> Result<(), DbError> {
            self.commit[0].acquire().await.unwrap().forget();
            self.inner.commit(changes).await?;
            let ended = self.commit[1].acquire().await;
            ended.map_err(|error| DbError::Engine(error.to_string()))?.forget();
            Ok(())
        }
        async fn view(&self) -> Result<Arc<dyn Reader>, DbError> {
            self.inner.view().await
        }
    }

    fn recent(permits: usize) -> Arc<Recent<Slow>> {
        let permits = || Semaphore::new(permits);
        let commit = [permits(), permits()];
        let inner = crate::memory();
        Arc::new(Recent::new(Slow { inner, queries: AtomicUsize::new(0), commit, read: permits() }))
    }

    fn change(key: &[u8], value: Option<&[u8]>) -> Changes {
        Changes::from([(key.to_vec(), value.map(<[u8]>::to_vec))])
    }

    impl Recent<Slow> {
        fn queries(&self) -> usize {
            self.inner.queries.load(Ordering::SeqCst)
        }
        fn sound(&self) -> bool {
            let memory = self.shared.memory();
            let sum: usize = memory.slots.iter().map(|(key, slot)| size(key, slot)).sum();
            let whole = sum == memory.bytes && memory.order.len() == memory.slots.len();
            whole && sum <= BYTES && memory.changing.is_empty()
        }
    }

    #[tokio::test]
    async fn what_was_read_or_written_takes_no_query() {
        let recent = recent(1000);
        assert_eq!(recent.get(b"a").await.unwrap(), None);
        assert_eq!(recent.get(b"a").await.unwrap(), None);
        assert_eq!(recent.queries(), 1);
        recent.commit(change(b"a", Some(b"1"))).await.unwrap();
        recent.commit(change(b"b", Some(b"2"))).await.unwrap();
        let keys = [b"a".to_vec(), b"b".to_vec()];
        assert_eq!(recent.get_many(&keys).await.unwrap(), [Some(b"1".to_vec()), Some(b"2".to_vec())]);
        recent.commit(change(b"a", None)).await.unwrap();
        assert_eq!(recent.get_many(&keys).await.unwrap(), [None, Some(b"2".to_vec())]);
        assert_eq!(recent.queries(), 1);
        assert!(recent.sound());
    }

    #[tokio::test]
    async fn a_small_table_is_scanned_once_and_follows_the_commits() {
        let recent = recent(100_000);
        let scan = async |after: Option<&[u8]>, limit| recent.scan(b"t", after, limit).await.unwrap();
        let pair = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        recent.commit(change(b"t1", Some(b"a"))).await.unwrap();
        recent.commit(change(b"u1", Some(b"x"))).await.unwrap();
        assert_eq!(scan(None, 9).await, [pair("t1", "a")]);
        recent.commit(change(b"t2", Some(b"b"))).await.unwrap();
        recent.commit(change(b"t1", None)).await.unwrap();
        recent.commit(change(b"t3", Some(b"c"))).await.unwrap();
        recent.commit(change(b"u2", Some(b"x"))).await.unwrap();
        assert_eq!(scan(None, 9).await, [pair("t2", "b"), pair("t3", "c")]);
        assert_eq!(scan(Some(b"t2"), 9).await, [pair("t3", "c")]);
        assert_eq!(scan(None, 1).await, [pair("t2", "b")]);
        assert_eq!(recent.queries(), 1);
        // When it has grown too large it is read again.
        let many = (0..2000u32).map(|number| ([b"t", &number.to_be_bytes()[..]].concat(), Some(vec![])));
        recent.commit(many.collect()).await.unwrap();
        assert_eq!(scan(None, 5000).await.len(), 2002);
        assert_eq!(scan(None, 5000).await.len(), 2002);
        assert_eq!(recent.queries(), 3);
        // However many others are scanned.
        for table in 0..100u8 {
            assert_eq!(recent.scan(&[table, 0], None, 9).await.unwrap(), []);
        }
        recent.scan(b"u", None, 9).await.unwrap();
        let before = recent.queries();
        assert_eq!(recent.scan(b"u", None, 9).await.unwrap(), [pair("u1", "x"), pair("u2", "x")]);
        assert_eq!(recent.queries(), before, "the latest are kept");
    }

    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_read_beside_a_commit_leaves_nothing_old() {
        // The read begins before the commit, in it, or after the change; it ends before the commit does, or after.
        for (begins, ends_last) in [0, 1, 2].into_iter().flat_map(|begins| [(begins, false), (begins, true)])
        {
            let recent = recent(0);
            let read = || {
                let recent = Arc::clone(&recent);
                tokio::spawn(async move {
                    let (key, table) = tokio::join!(recent.get(b"a"), recent.scan(b"a", None, 9));
                    (key.unwrap(), table.unwrap())
                })
            };
            let commit = || {
                let recent = Arc::clone(&recent);
                tokio::spawn(async move { recent.commit(change(b"a", Some(b"new"))).await.unwrap() })
            };
            let early = (begins == 0).then(read);
            settle().await;
            let commit = commit();
            settle().await;
            let within = (begins == 1).then(read);
            settle().await;
            recent.inner.commit[0].add_permits(1);
            settle().await;
            let read = early.or(within).unwrap_or_else(read);
            settle().await;
            if ends_last {
                recent.inner.commit[1].add_permits(1);
                commit.await.unwrap();
                recent.inner.read.add_permits(100);
                read.await.unwrap();
            } else {
                recent.inner.read.add_permits(100);
                read.await.unwrap();
                recent.inner.commit[1].add_permits(1);
                commit.await.unwrap();
            }
            assert_eq!(recent.get(b"a").await.unwrap(), Some(b"new".to_vec()), "{begins} {ends_last}");
            let table = recent.scan(b"a", None, 9).await.unwrap();
            assert_eq!(table, [(b"a".to_vec(), b"new".to_vec())], "{begins} {ends_last}");
            assert!(recent.sound());
        }
    }

    /// A commit in a task that can be aborted.
    fn committing(recent: &Arc<Recent<Slow>>, value: &'static [u8]) -> tokio::task::JoinHandle<bool> {
        let recent = Arc::clone(recent);
        tokio::spawn(async move { recent.commit(change(b"a", Some(value))).await.is_ok() })
    }

    #[tokio::test]
    async fn a_commit_goes_on_when_its_caller_hangs_up_and_reads_wait_for_it() {
        let recent = recent(0);
        recent.inner.read.add_permits(100);
        assert_eq!(recent.get(b"a").await.unwrap(), None);
        let (first, waiting) = (committing(&recent, b"1"), committing(&recent, b"2"));
        settle().await;
        first.abort();
        waiting.abort();
        settle().await;
        let read = {
            let recent = Arc::clone(&recent);
            tokio::spawn(async move { recent.get(b"a").await.unwrap() })
        };
        settle().await;
        assert!(!read.is_finished());
        recent.inner.commit.iter().for_each(|commit| commit.add_permits(100));
        assert_eq!(read.await.unwrap(), Some(b"1".to_vec()), "that which hadn't begun is not made");
        assert!(committing(&recent, b"3").await.unwrap());
        assert_eq!(recent.get(b"a").await.unwrap(), Some(b"3".to_vec()));
        assert_eq!(recent.queries(), 1, "and what is known is known");
        assert!(recent.sound());
    }

    #[tokio::test]
    async fn of_a_commit_that_fails_nothing_is_believed() {
        let recent = recent(100);
        assert_eq!(recent.get(b"a").await.unwrap(), None);
        // As good as a failure: it is not known what was done.
        recent.inner.commit[1].close();
        assert!(!committing(&recent, b"1").await.unwrap());
        let before = recent.queries();
        for times in 1..4 {
            assert_eq!(recent.get(b"a").await.unwrap(), Some(b"1".to_vec()), "it was done all the same");
            assert_eq!(recent.queries(), before + times);
        }
        assert!(recent.sound());
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let recent = recent(1_000_000);
        for number in 0..200u64 {
            let key = |place: u64| (number * 1000 + place).to_be_bytes().to_vec();
            let changes =
                (0..1000).map(|place| (key(place), Some(vec![7; (place % 300) as usize]))).collect();
            recent.commit(changes).await.unwrap();
        }
        for round in 0..100_000u32 {
            recent.commit(change(b"hot", Some(&round.to_be_bytes()))).await.unwrap();
        }
        assert!(recent.sound(), "a place a key, however often it changes");
        let before = recent.queries();
        assert!(recent.get(&199_999u64.to_be_bytes()).await.unwrap().is_some());
        assert_eq!(recent.queries(), before);
        assert!(recent.get(&0u64.to_be_bytes()).await.unwrap().is_some());
        assert_eq!(recent.queries(), before + 1, "the oldest have gone");
        recent.commit(change(&7u64.to_be_bytes(), Some(&vec![1; LARGE + 1]))).await.unwrap();
        assert_eq!(recent.get(&7u64.to_be_bytes()).await.unwrap().unwrap().len(), LARGE + 1);
        assert_eq!(recent.queries(), before + 2, "what is large isn't kept");
        assert!(recent.sound());
    }
}

//! Small reads that come at about the same time, answered by one query.
//!
//! A query takes turns between threads that cost more than finding a key does. So who reads while nobody does is served at once,
//! and what is asked for meanwhile shares the next query: clients that wait for an epoch all ask when it is committed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use federation_core::db::DbError;
use tokio::sync::oneshot;

/// The values of keys, in order.
type Values = Vec<Option<Vec<u8>>>;

/// What is read from.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// The values of these keys with one query, of what is committed when it begins or later.
    async fn read(&self, keys: &[Vec<u8>]) -> Result<Values, DbError>;
}

/// Reads together what can be.
pub struct Together<S: Source>(Arc<Shared<S>>);

struct Shared<S> {
    source: S,
    /// The most keys of one query.
    most: usize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Asked>,
    /// Whether somebody reads, who will see to those who wait.
    busy: bool,
}

struct Asked {
    keys: Vec<Vec<u8>>,
    found: oneshot::Sender<Result<Values, String>>,
}

impl<S: Source> Together<S> {
    /// With at most so many keys a query, unless more are asked for at once.
    pub fn new(source: S, most: usize) -> Self {
        Self(Arc::new(Shared { source, most, queue: Mutex::default() }))
    }

    /// What is read from.
    pub fn source(&self) -> &S {
        &self.0.source
    }

    /// The values of these keys, of one commit.
    pub async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Values, DbError> {
        let waits = {
            let mut queue = self.0.queue();
            std::mem::replace(&mut queue.busy, true).then(|| {
                let (found, values) = oneshot::channel();
                queue.waiting.push_back(Asked { keys: keys.to_vec(), found });
                values
            })
        };
        match waits {
            // Whoever is cut off leaves the turn to the next all the same.
            None => {
                let _turn = Turn(&self.0);
                self.0.source.read(keys).await
            }
            Some(values) => {
                let closed = |_| DbError::Engine("a read was cut off".to_owned());
                values.await.map_err(closed)?.map_err(DbError::Engine)
            }
        }
    }
}

impl<S: Source> Shared<S> {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those who share the next query.
    fn next(&self) -> Vec<Asked> {
        let mut queue = self.queue();
        let (mut group, mut keys) = (Vec::new(), 0_usize);
        while let Some(asked) = queue.waiting.front() {
            keys = keys.saturating_add(asked.keys.len());
            if !group.is_empty() && keys > self.most {
                break;
            }
            group.extend(queue.waiting.pop_front().filter(|asked| !asked.found.is_closed()));
        }
        group
    }
}

/// Until nobody waits.
async fn serve<S: Source>(shared: Arc<Shared<S>>) {
    let _turn = Turn(&shared);
    loop {
        let group = shared.next();
        if group.is_empty() {
            return;
        }
        let keys: Vec<_> = group.iter().flat_map(|asked| asked.keys.iter().cloned()).collect();
        let read = shared.source.read(&keys).await;
        let mut values = read.map(Vec::into_iter);
        for Asked { keys, found } in group {
            let values = match &mut values {
                Ok(values) => Ok(values.by_ref().take(keys.len()).collect()),
                Err(DbError::Engine(reason)) => Err(reason.clone()),
                Err(error) => Err(error.to_string()),
            };
            // Who has hung up doesn't want to know.
            let _ = found.send(values);
        }
    }
}

/// The right to read; left to those who wait, if anybody does.
struct Turn<'a, S: Source>(&'a Arc<Shared<S>>);

impl<S: Source> Drop for Turn<'_, S> {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if !queue.waiting.is_empty() => {
                drop(runtime.spawn(serve(Arc::clone(self.0))));
            }
            _ => {
                // (Without a runtime nobody can be waiting any more.)
                queue.waiting.clear();
                queue.busy = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// Each key is its own value, unless it is empty. A query waits for a permit.
    struct Echo {
        permits: Semaphore,
        queries: Mutex<Vec<usize>>,
        broken: AtomicBool,
    }

    #[async_trait]
    impl Source for Echo {
        async fn read(&self, keys: &[Vec<u8>]) -> Result<Values, DbError> {
            self.queries.lock().unwrap().push(keys.len());
            self.permits.acquire().await.unwrap().forget();
            if self.broken.load(Ordering::Relaxed) {
                return Err(DbError::Engine("the disk is gone".to_owned()));
            }
            Ok(keys.iter().map(|key| Some(key.clone()).filter(|key| !key.is_empty())).collect())
        }
    }

    fn together(most: usize) -> Arc<Together<Echo>> {
        let echo =
            Echo { permits: Semaphore::new(0), queries: Mutex::default(), broken: AtomicBool::new(false) };
        Arc::new(Together::new(echo, most))
    }

    impl Together<Echo> {
        fn let_go(&self) {
            self.source().permits.add_permits(1000);
        }
        fn queries(&self) -> Vec<usize> {
            self.source().queries.lock().unwrap().clone()
        }
    }

    type Task = tokio::task::JoinHandle<Result<Values, DbError>>;

    fn ask(together: &Arc<Together<Echo>>, keys: &[&[u8]]) -> Task {
        let (together, keys) =
            (Arc::clone(together), keys.iter().map(|key| key.to_vec()).collect::<Vec<_>>());
        tokio::spawn(async move { together.get_many(&keys).await })
    }

    /// (On one thread: everybody gets as far as possible.)
    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_comes_meanwhile_shares_a_query() {
        let together = together(6);
        let first = ask(&together, &[b"a"]);
        settle().await;
        let others = [
            ask(&together, &[b"b", b"", b"c"]),
            ask(&together, &[b"d"]),
            ask(&together, &[b"e".as_slice(); 9]),
        ];
        settle().await;
        assert_eq!(together.queries(), [1]);
        together.let_go();
        assert_eq!(first.await.unwrap().unwrap(), [Some(b"a".to_vec())]);
        let [b, d, e] = others;
        assert_eq!(b.await.unwrap().unwrap(), [Some(b"b".to_vec()), None, Some(b"c".to_vec())]);
        assert_eq!(d.await.unwrap().unwrap(), [Some(b"d".to_vec())]);
        assert_eq!(e.await.unwrap().unwrap().len(), 9);
        assert_eq!(together.queries(), [1, 4, 9]);
        assert_eq!(ask(&together, &[b"f"]).await.unwrap().unwrap(), [Some(b"f".to_vec())]);
    }

    #[tokio::test]
    async fn who_is_cut_off_leaves_the_turn_to_the_next() {
        let together = together(6);
        let (first, second) = (ask(&together, &[b"a"]), ask(&together, &[b"b"]));
        settle().await;
        let third = ask(&together, &[b"c"]);
        settle().await;
        first.abort();
        second.abort();
        settle().await;
        together.let_go();
        assert_eq!(third.await.unwrap().unwrap(), [Some(b"c".to_vec())]);
        let fourth = ask(&together, &[b"d"]);
        assert_eq!(fourth.await.unwrap().unwrap(), [Some(b"d".to_vec())]);
        assert!(!together.0.queue().busy);
    }

    #[tokio::test]
    async fn a_failure_is_told_to_all() {
        let together = together(6);
        let asked: Vec<_> = (0..4).map(|key| ask(&together, &[&[key]])).collect();
        settle().await;
        together.source().broken.store(true, Ordering::Relaxed);
        together.let_go();
        for asked in asked {
            let error = asked.await.unwrap().unwrap_err();
            assert_eq!(error.to_string(), "the database failed: the disk is gone");
        }
        together.source().broken.store(false, Ordering::Relaxed);
        assert!(ask(&together, &[b"a"]).await.unwrap().is_ok());
    }
}

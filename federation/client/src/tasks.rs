//! What runs in the background, and what keeps it from getting on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use tokio::task::JoinSet;

use crate::ClientError;
use crate::store::OpId;

/// After this many failures in a row whoever waits is told: each one has already tried all guardians.
const TELL_AFTER: u32 = 2;

/// The tasks of a wallet; they end with it.
#[derive(Default)]
pub(crate) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Finished ones would pile up in a gateway.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

/// What is being worked on: each thing by one task only.
#[derive(Default)]
pub(crate) struct Running(Mutex<BTreeSet<OpId>>);

impl Running {
    /// Whether nobody was at it; then the caller is.
    pub fn enter(&self, op: OpId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(op)
    }

    pub fn leave(&self, op: &OpId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(op);
    }
}

/// Why things do not get on.
#[derive(Default)]
pub(crate) struct Troubles(Mutex<BTreeMap<OpId, (u32, ClientError)>>);

impl Troubles {
    pub fn add(&self, op: OpId, error: ClientError) {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = troubles.get(&op).map_or(0, |(count, _)| *count);
        troubles.insert(op, (count.saturating_add(1), error));
    }

    pub fn clear(&self, op: &OpId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(op);
    }

    /// How many failures there were in a row.
    pub fn count(&self, op: &OpId) -> u32 {
        let troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.get(op).map_or(0, |(count, _)| *count)
    }

    /// The last failure, if there were several in a row, the last one after the first `known`.
    pub fn since(&self, op: &OpId, known: u32) -> Option<ClientError> {
        let troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = |count: u32| count >= TELL_AFTER && count > known;
        troubles.get(op).filter(|(count, _)| told(*count)).map(|(_, error)| error.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_is_not_told() {
        let troubles = Troubles::default();
        troubles.add([1; 32], ClientError::NotPaid);
        assert!(troubles.since(&[1; 32], 0).is_none());
        troubles.add([1; 32], ClientError::NotPaid);
        assert!(troubles.since(&[1; 32], 0).is_some());
        // Who comes later hears of new ones only.
        assert!(troubles.since(&[1; 32], troubles.count(&[1; 32])).is_none());
        troubles.clear(&[1; 32]);
        assert!(troubles.since(&[1; 32], 0).is_none());
    }

    #[test]
    fn each_thing_has_one_task() {
        let running = Running::default();
        assert!(running.enter([1; 32]) && !running.enter([1; 32]));
        running.leave(&[1; 32]);
        assert!(running.enter([1; 32]));
    }
}

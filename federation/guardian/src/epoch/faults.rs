//! Faults of guardians that show in what was agreed on: each can be proved, and none stops anything.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Mutex, PoisonError};

use federation_core::PeerId;

/// What no honest guardian's contribution has in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A contribution that can't be read, or is over a limit.
    Contribution,
    /// A transaction that can't be read.
    Transaction,
    /// A transaction with a wrong signature.
    Signature,
    /// An item that its module refuses.
    Item,
    /// An item for a module that the federation doesn't have.
    UnknownModule,
}

impl Fault {
    /// The stable name in status and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Contribution => "bad_contribution",
            Self::Transaction => "bad_transaction",
            Self::Signature => "bad_transaction_signature",
            Self::Item => "bad_item",
            Self::UnknownModule => "unknown_module",
        }
    }
}

/// How often, and what it was the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// How often.
    pub count: u64,
    /// For the log.
    pub first: String,
}

/// The faults of an epoch: however many there are, they take as little memory as one a guardian and kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub BTreeMap<(PeerId, Fault), Seen>);

impl Faults {
    /// Counts one.
    pub fn add(&mut self, peer: PeerId, fault: Fault, detail: impl FnOnce() -> String) {
        match self.0.entry((peer, fault)) {
            Entry::Occupied(mut seen) => {
                let count = &mut seen.get_mut().count;
                *count = count.saturating_add(1);
            }
            Entry::Vacant(slot) => {
                slot.insert(Seen { count: 1, first: detail() });
            }
        }
    }
}

/// All faults since the start of the process.
#[derive(Debug, Default)]
pub struct FaultLog(Mutex<BTreeMap<(PeerId, Fault), u64>>);

impl FaultLog {
    /// Adds an epoch's. Only a guardian's first fault of a kind is logged: nobody can fill the disk with them. Returns how
    /// many were logged.
    pub fn add(&self, epoch: u64, faults: &Faults) -> usize {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = 0usize;
        for ((peer, fault), seen) in &faults.0 {
            let count = log.entry((*peer, *fault)).or_default();
            if *count == 0 {
                new = new.saturating_add(1);
                let (name, first) = (fault.name(), &seen.first);
                tracing::warn!(
                    "guardian {peer} at fault in epoch {epoch}, {name}: {first}. More of this kind are only counted"
                );
            }
            *count = count.saturating_add(seen.count);
        }
        new
    }

    /// A guardian's faults by the names of their kinds.
    pub fn of(&self, peer: PeerId) -> BTreeMap<&'static str, u64> {
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter()
            .filter(|((who, _), _)| *who == peer)
            .map(|((_, fault), count)| (fault.name(), *count))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_logged_once_a_guardian_and_then_counted() {
        let log = FaultLog::default();
        let mut faults = Faults::default();
        for number in 0..100_000 {
            faults.add(PeerId(1), Fault::Item, || format!("the {number}th"));
        }
        faults.add(PeerId(2), Fault::Item, || "other".to_owned());
        assert_eq!(faults.0[&(PeerId(1), Fault::Item)], Seen { count: 100_000, first: "the 0th".to_owned() });
        assert_eq!(log.add(0, &faults), 2);
        assert_eq!(log.add(1, &faults), 0);
        assert_eq!(log.of(PeerId(1)), BTreeMap::from([("bad_item", 200_000)]));
        assert_eq!(log.of(PeerId(3)), BTreeMap::new());
    }
}

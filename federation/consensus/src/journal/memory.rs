//! A journal that outlives a simulated crash, for tests.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Journal, Record};

#[derive(Debug, Default)]
struct State {
    records: Vec<Record>,
    speaks_from: Option<u64>,
}

/// Clones share their records: one clone is the running guardian's, another the disk.
#[derive(Debug, Clone, Default)]
pub struct MemoryJournal(Arc<Mutex<State>>);

impl MemoryJournal {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Journal for MemoryJournal {
    fn replay(&mut self) -> io::Result<Vec<Record>> {
        Ok(self.with(|state| state.records.clone()))
    }

    fn append(&mut self, records: &[Record]) -> io::Result<()> {
        self.with(|state| state.records.extend_from_slice(records));
        Ok(())
    }

    fn truncate(&mut self, epoch: u64) -> io::Result<()> {
        self.with(|state| state.records.retain(|record| record.epoch() >= epoch));
        Ok(())
    }

    fn speaks_from(&mut self) -> io::Result<Option<u64>> {
        Ok(self.with(|state| state.speaks_from))
    }

    fn set_speaks_from(&mut self, epoch: u64) -> io::Result<()> {
        self.with(|state| state.speaks_from = Some(epoch));
        Ok(())
    }
}

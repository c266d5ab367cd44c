//! One life of a guardian's process, and how it ends.
//!
//! A fuse counts the operations that reach the outside: journal writes and frames handed to the links. When it has burnt down
//! the guardian is dead from that operation on, whatever its code still does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use federation_consensus::NodeId;
use federation_consensus::links::testing::Receiver;

/// What becomes of the journal write in which a guardian dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Nothing of it is on the disk.
    Before,
    /// All of it is.
    After,
    /// So many of its records are.
    Torn(usize),
}

#[derive(Debug, Default)]
struct State {
    dead: bool,
    fuse: Option<(u32, Manner)>,
    receivers: BTreeMap<NodeId, Receiver>,
    /// What was acknowledged at the moment of death: nothing after it counts.
    acked: BTreeMap<NodeId, u64>,
}

/// Clones are the same life.
#[derive(Debug, Clone, Default)]
pub struct Life(Arc<Mutex<State>>);

impl Life {
    pub fn new(receivers: BTreeMap<NodeId, Receiver>) -> Self {
        Self(Arc::new(Mutex::new(State { receivers, ..State::default() })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Lets this life end with the operation after `operations` more.
    pub fn light(&self, operations: u32, manner: Manner) {
        self.lock().fuse = Some((operations, manner));
    }

    pub fn is_lit(&self) -> bool {
        self.lock().fuse.is_some()
    }

    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// An operation is under way. `Some`: the guardian dies in it, or is dead.
    pub fn operation(&self) -> Option<Manner> {
        let mut state = self.lock();
        if state.dead {
            return Some(Manner::Before);
        }
        match &mut state.fuse {
            Some((0, manner)) => {
                let manner = *manner;
                state.end();
                Some(manner)
            }
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        }
    }

    /// Ends this life now.
    pub fn end(&self) {
        self.lock().end();
    }

    /// Up to where a peer's frames may be acknowledged.
    pub fn may_acknowledge(&self, peer: NodeId) -> u64 {
        let state = self.lock();
        if state.dead { state.acked.get(&peer).copied().unwrap_or(0) } else { u64::MAX }
    }
}

impl State {
    fn end(&mut self) {
        if !self.dead {
            self.dead = true;
            self.acked = self.receivers.iter().map(|(peer, receiver)| (*peer, receiver.acked())).collect();
        }
    }
}

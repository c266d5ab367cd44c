//! LDK's key-value store.
//!
//! What money depends on goes to the ledger. The network graph and the scorer, large and only
//! useful, are plain files: without them routes are worse until gossip has come again.

use std::path::PathBuf;
use std::sync::Arc;

use lightning::io;
use lightning::util::persist::{
    CHANNEL_MANAGER_PERSISTENCE_KEY, KVStoreSync, NETWORK_GRAPH_PERSISTENCE_KEY, SCORER_PERSISTENCE_KEY,
};
use lightning_persister::fs_store::FilesystemStore;

use super::ledger::Ledger;
use super::log::Batch;

/// Both places behind LDK's trait.
pub(super) struct Store {
    ledger: Arc<Ledger>,
    files: FilesystemStore,
}

/// Where a key lives.
enum Place {
    /// The manager: part of every commit, whatever LDK hands over here.
    Manager,
    Files,
    Ledger(String),
}

impl Store {
    pub fn new(ledger: Arc<Ledger>, files: PathBuf) -> Self {
        Store { ledger, files: FilesystemStore::new(files) }
    }

    fn place(primary: &str, secondary: &str, key: &str) -> Place {
        match (primary, secondary, key) {
            ("", "", CHANNEL_MANAGER_PERSISTENCE_KEY) => Place::Manager,
            ("", "", NETWORK_GRAPH_PERSISTENCE_KEY | SCORER_PERSISTENCE_KEY) => Place::Files,
            _ => Place::Ledger(format!("ldk/{primary}/{secondary}/{key}")),
        }
    }

    fn commit(&self, rows: Batch) -> Result<(), io::Error> {
        self.ledger.commit(rows).map_err(|error| io::Error::new(io::ErrorKind::Other, error.to_string()))
    }
}

impl KVStoreSync for Store {
    fn read(&self, primary: &str, secondary: &str, key: &str) -> Result<Vec<u8>, io::Error> {
        let found = match Self::place(primary, secondary, key) {
            Place::Files => return KVStoreSync::read(&self.files, primary, secondary, key),
            Place::Manager => self.ledger.get(super::ledger::MANAGER),
            Place::Ledger(key) => self.ledger.get(&key),
        };
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such key"))
    }

    fn write(&self, primary: &str, secondary: &str, key: &str, value: Vec<u8>) -> Result<(), io::Error> {
        match Self::place(primary, secondary, key) {
            Place::Files => KVStoreSync::write(&self.files, primary, secondary, key, value),
            // The bytes may be older than the last commit: the ledger writes the state of now.
            Place::Manager => self.commit(Batch::new()),
            Place::Ledger(key) => self.commit(Batch::from([(key, Some(value))])),
        }
    }

    fn remove(&self, primary: &str, secondary: &str, key: &str, lazy: bool) -> io::Result<()> {
        match Self::place(primary, secondary, key) {
            Place::Files => KVStoreSync::remove(&self.files, primary, secondary, key, lazy),
            Place::Manager => Ok(()),
            Place::Ledger(key) => self.commit(Batch::from([(key, None)])),
        }
    }

    fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error> {
        let prefix = format!("ldk/{primary}/{secondary}/");
        Ok(self.ledger.scan(&prefix).into_iter().map(|(key, _)| key).collect())
    }
}

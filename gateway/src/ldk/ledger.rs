//! One atomic commit of channel manager, channel monitors and the node's tables.
//!
//! As LDK's [`Persist`] it only remembers each monitor in memory and says `Completed`. That is
//! true as far as anybody can see: nothing that follows from the update leaves this process
//! before [`Ledger::commit`] has put it on disk (module documentation). The commit's cut is
//! consistent because the manager's serialization holds the locks under which monitors are
//! updated, and the pending monitors are taken while it writes.
//!
//! Keys in the log: `manager`, `monitors/…`, `archived/…`, `ldk/…` ([`super::store`]), `wallet/…`,
//! and those of the tables.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use lightning::chain::ChannelMonitorUpdateStatus;
use lightning::chain::chainmonitor::Persist;
use lightning::chain::channelmonitor::ChannelMonitor;
use lightning::sign::InMemorySigner;
use lightning::util::persist::MonitorName;
use lightning::util::ser::{Writeable as _, Writer};
use tokio::sync::watch;

use super::error::LdkError;
use super::log::{Batch, Log};
use super::types::{ChannelManager, lock};

pub(super) const MANAGER: &str = "manager";
pub(super) const MONITORS: &str = "monitors/";
const ARCHIVED: &str = "archived/";

/// What the node knows, and what of it is on disk.
pub(super) struct Ledger {
    log: Mutex<Log>,
    /// Whose commit it is. Apart from `log`, since a commit waits for LDK's locks, and what holds
    /// those may read the log.
    turn: Mutex<()>,
    /// Monitors that changed since the last commit.
    pending: Mutex<Batch>,
    /// Weak: the manager holds the chain monitor, which holds this.
    manager: OnceLock<Weak<ChannelManager>>,
    /// Set for good when a commit failed. From then on nothing leaves any more.
    failed: AtomicBool,
    failure: watch::Sender<Option<String>>,
}

impl Ledger {
    /// Opens or creates the log.
    pub fn open(path: &Path) -> Result<Self, LdkError> {
        let log = Log::open(path).map_err(|source| LdkError::File { path: path.to_path_buf(), source })?;
        Ok(Ledger {
            log: Mutex::new(log),
            turn: Mutex::new(()),
            pending: Mutex::new(Batch::new()),
            manager: OnceLock::new(),
            failed: AtomicBool::new(false),
            failure: watch::Sender::new(None),
        })
    }

    /// From now on this manager's state is part of each commit.
    pub fn attach(&self, manager: &Arc<ChannelManager>) {
        let first = self.manager.set(Arc::downgrade(manager)).is_ok();
        debug_assert!(first, "one manager a ledger");
    }

    /// A committed value.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        lock(&self.log).get(key).map(<[u8]>::to_vec)
    }

    /// Committed values whose key begins with `prefix`; the prefix is cut off.
    pub fn scan(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        let log = lock(&self.log);
        let found = log.scan(prefix);
        found
            .map(|(key, value)| (key.strip_prefix(prefix).unwrap_or(key).to_owned(), value.to_vec()))
            .collect()
    }

    /// Puts LDK's state as it is now, and `rows`, on disk. Everything that happened before the
    /// call is durable when it returns. Writes nothing if nothing changed.
    ///
    /// Blocks for one `fdatasync`. Must not be called from inside LDK's locks.
    pub fn commit(&self, rows: Batch) -> Result<(), LdkError> {
        // Held throughout, so that an older state never overwrites a newer one.
        let _turn = lock(&self.turn);
        if self.failed.load(Ordering::Acquire) {
            return Err(LdkError::Stopped(self.failure().unwrap_or_default()));
        }
        let mut batch = Batch::new();
        if let Some(manager) = self.manager.get().and_then(Weak::upgrade) {
            let mut cut = Cut { ledger: self, manager: Vec::new(), monitors: Batch::new() };
            if let Err(error) = manager.write(&mut cut) {
                return Err(self.fail(format!("the channel manager can't be written: {error}")));
            }
            batch = cut.monitors;
            if lock(&self.log).get(MANAGER) != Some(cut.manager.as_slice()) {
                batch.insert(MANAGER.to_owned(), Some(cut.manager));
            }
        }
        batch.extend(rows);
        let written = lock(&self.log).commit(batch);
        written.map_err(|error| self.fail(format!("a commit to disk failed: {error}")))
    }

    /// Stops the node for good because something went wrong.
    pub fn fail(&self, reason: String) -> LdkError {
        // What fails because the node has stopped is no news.
        if self.failure().is_none() {
            tracing::error!(reason, "the Lightning node stops");
        }
        self.close(&reason);
        LdkError::Stopped(reason)
    }

    /// Nothing is committed, and so nothing leaves, from now on.
    pub fn close(&self, reason: &str) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            self.failure.send_replace(Some(reason.to_owned()));
        }
    }

    /// Why the node stopped, if it did.
    pub fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    /// Resolves with the reason when the node stops by itself.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    fn remember(&self, name: &MonitorName, monitor: &ChannelMonitor<InMemorySigner>) {
        let bytes = monitor.encode();
        lock(&self.pending).insert(format!("{MONITORS}{name}"), Some(bytes));
    }
}

impl Persist<InMemorySigner> for Ledger {
    fn persist_new_channel(
        &self,
        name: MonitorName,
        monitor: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        self.remember(&name, monitor);
        ChannelMonitorUpdateStatus::Completed
    }

    fn update_persisted_channel(
        &self,
        name: MonitorName,
        _update: Option<&lightning::chain::channelmonitor::ChannelMonitorUpdate>,
        monitor: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        self.remember(&name, monitor);
        ChannelMonitorUpdateStatus::Completed
    }

    fn archive_persisted_channel(&self, name: MonitorName) {
        let key = format!("{MONITORS}{name}");
        let committed = self.get(&key);
        let mut pending = lock(&self.pending);
        if let Some(monitor) = pending.insert(key, None).flatten().or(committed) {
            pending.insert(format!("{ARCHIVED}{name}"), Some(monitor));
        }
    }
}

/// Collects the manager's bytes, and with each piece the monitors that are pending by then.
///
/// The serialization takes its locks one after the other and holds them to its end, and monitors
/// are updated under one of them. So what the last piece finds is what the manager describes.
struct Cut<'a> {
    ledger: &'a Ledger,
    manager: Vec<u8>,
    monitors: Batch,
}

impl Writer for Cut<'_> {
    fn write_all(&mut self, piece: &[u8]) -> Result<(), lightning::io::Error> {
        self.manager.extend_from_slice(piece);
        let mut pending = lock(&self.ledger.pending);
        if !pending.is_empty() {
            self.monitors.append(&mut pending);
        }
        Ok(())
    }
}

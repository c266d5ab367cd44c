//! Starting and stopping the node.

use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bitcoin::hashes::{Hash as _, sha256};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::builder::{Parts, build};
use super::config::LdkConfig;
use super::error::LdkError;
use super::tasks;
use super::types::lock;

/// A running Lightning node.
///
/// Dropping it ends it as a crash would; [`stop`](LdkNode::stop) is the polite way. Both are
/// safe for channels and payments.
pub struct LdkNode {
    pub(super) parts: Arc<Parts>,
    listen: SocketAddr,
    stop: watch::Sender<bool>,
    background: Mutex<Option<JoinHandle<()>>>,
    others: Mutex<Vec<JoinHandle<()>>>,
    in_use: Mutex<Option<UnixDatagram>>,
}

impl LdkNode {
    /// Starts a node. Needs Tokio's multi-threaded runtime.
    ///
    /// # Errors
    /// A data directory that is in use or damaged, a listen address that is taken, Bitcoin Core
    /// not reachable or on another chain.
    pub async fn start(config: LdkConfig) -> Result<Arc<Self>, LdkError> {
        if config.alias.len() > 32 {
            return Err(LdkError::Config("the alias is longer than 32 bytes".to_owned()));
        }
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&config.data_dir)
            .map_err(|source| LdkError::File { path: config.data_dir.clone(), source })?;
        let in_use = take(&config.data_dir)?;
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|error| LdkError::Config(format!("listen on {}: {error}", config.listen)))?;
        let listen = listener
            .local_addr()
            .map_err(|error| LdkError::Config(format!("listen on {}: {error}", config.listen)))?;
        let (parts, chain) = build(config).await?;
        let parts = Arc::new(parts);
        let stop = watch::Sender::new(false);
        let (background, others) = tasks::spawn(&parts, chain, listener, &stop);
        Ok(Arc::new(LdkNode {
            parts,
            listen,
            stop,
            background: Mutex::new(Some(background)),
            others: Mutex::new(others),
            in_use: Mutex::new(Some(in_use)),
        }))
    }

    /// Where it takes connections.
    pub fn listen_addr(&self) -> SocketAddr {
        self.listen
    }

    /// Resolves with the reason if the node stops by itself, such as on a full disk. Then end the
    /// process: the node does nothing any more until it is started again.
    pub async fn failed(&self) -> String {
        self.parts.ledger.failed().await
    }

    /// Disconnects, commits and ends all tasks. Calls on a stopped node fail.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let background = lock(&self.background).take();
        if let Some(background) = background {
            // It commits once more before it ends.
            let _ = background.await;
        }
        self.end("it was stopped").await;
    }

    /// Ends the node as `kill -9` would: from this moment nothing is written or sent.
    pub async fn crash(&self) {
        self.end("it crashed on purpose").await;
    }

    async fn end(&self, reason: &str) {
        for task in self.cut(reason) {
            // Aborted: it holds the listening socket until it is gone.
            let _ = task.await;
        }
        // Last: from here on another process may use the directory.
        drop(lock(&self.in_use).take());
    }

    /// Ends all tasks, and returns them.
    fn cut(&self, reason: &str) -> Vec<JoinHandle<()>> {
        // First: what is left of this node can't write or send any more.
        self.parts.ledger.close(reason);
        let mut tasks = std::mem::take(&mut *lock(&self.others));
        tasks.extend(lock(&self.background).take());
        tasks.iter().for_each(JoinHandle::abort);
        self.parts.peers.disconnect_all_peers();
        tasks
    }
}

impl Drop for LdkNode {
    fn drop(&mut self) {
        self.cut("it was dropped");
    }
}

/// Takes a directory for this process. The kernel frees it when the process ends, however it does.
fn take(dir: &Path) -> Result<UnixDatagram, LdkError> {
    let file_error = |source| LdkError::File { path: dir.to_path_buf(), source };
    let real = dir.canonicalize().map_err(file_error)?;
    let name = sha256::Hash::hash(real.as_os_str().as_encoded_bytes());
    let address = UnixAddr::from_abstract_name(format!("cln-federation-ldk-{name}")).map_err(file_error)?;
    UnixDatagram::bind_addr(&address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => LdkError::InUse(dir.to_path_buf()),
        _ => file_error(error),
    })
}

//! Why the embedded node can't start or go on.

use std::path::PathBuf;

use crate::node::NodeError;

/// An error of the embedded node.
#[derive(Debug, thiserror::Error)]
pub enum LdkError {
    /// A file can't be read or written.
    #[error("{path}: {source}; check the disk and its permissions")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process uses the same data directory.
    #[error("{0} is in use by another process; stop that one first")]
    InUse(PathBuf),
    /// The seed file holds neither a mnemonic nor 64 hex digits.
    #[error("{path} holds no seed: {reason}")]
    Seed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// What is stored can't be decoded. Never delete it: restore the data directory as a whole.
    #[error("the stored {what} can't be read: {reason}; restore the data directory as a whole")]
    Stored {
        /// What it should be.
        what: &'static str,
        /// How it fails.
        reason: String,
    },
    /// The configuration makes no sense.
    #[error("the configuration is wrong: {0}")]
    Config(String),
    /// Bitcoin Core does not answer, or not as it should.
    #[error("Bitcoin Core: {0}; check its URL and credentials, and that it runs")]
    Bitcoind(String),
    /// The disk refused a commit earlier: the node stands still until it is started again.
    #[error("the node stopped: {0}")]
    Stopped(String),
    /// LDK refused.
    #[error("{0}")]
    Refused(String),
    /// The on-chain wallet does not have the coins.
    #[error("the on-chain wallet: {0}")]
    Funds(String),
    /// It took too long.
    #[error("{0} took too long; look at `channels` and the log for how it went on")]
    Timeout(&'static str),
}

impl From<LdkError> for NodeError {
    fn from(error: LdkError) -> Self {
        match error {
            LdkError::Refused(reason) | LdkError::Config(reason) => NodeError::Refused(reason),
            LdkError::Funds(reason) => NodeError::OnchainFunds(reason),
            other => NodeError::Unavailable(other.to_string()),
        }
    }
}

//! What goes wrong in a guardian, and what its operator can do.

use federation_core::api::ApiError;
use federation_core::db::DbError;

/// Why a guardian can't do something, or stops.
#[derive(Debug, thiserror::Error)]
pub enum GuardianError {
    /// The database failed, is of a newer version, or is in use.
    #[error(transparent)]
    Db(#[from] DbError),
    /// A file or socket failed.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// Stored secrets do not open.
    #[error("the guardian's secrets cannot be opened: wrong passphrase or key, or a damaged database")]
    WrongKey,
    /// A setup step at the wrong time.
    #[error("{0}")]
    SetupState(String),
    /// A setup code that does not fit.
    #[error("this setup code cannot be used: {0}")]
    SetupCode(String),
    /// The key generation was ended by a fault.
    #[error("the key generation was aborted: {0}. Find the cause and start it again on all guardians")]
    KeyGeneration(String),
    /// A backup of secrets that can't be used.
    #[error("the backup cannot be used: {0}")]
    Backup(String),
    /// The stored configuration cannot be used by this program.
    #[error("the federation's configuration cannot be used: {0}")]
    Config(String),
    /// The federation has gone on to rules that this program doesn't know.
    #[error(
        "the federation applies consensus version {in_force}, this program knows up to {supported}: install the newer \
         version and start it again. Nothing was lost"
    )]
    TooOld {
        /// The version in force.
        in_force: u16,
        /// The newest that this program knows.
        supported: u16,
    },
    /// The pool can't be kept any more.
    #[error("the pool of waiting transactions cannot be written: {0}")]
    Pool(String),
    /// Consensus ended.
    #[error("consensus stopped: {0}")]
    Consensus(String),
    /// The chain backend is wrong or out of reach.
    #[error("the Bitcoin backend: {0}")]
    Chain(String),
}

impl GuardianError {
    /// For `map_err` on I/O.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }
}

/// What an operator's tool shows.
impl From<GuardianError> for ApiError {
    fn from(error: GuardianError) -> Self {
        match error {
            GuardianError::Db(error) => error.into(),
            other => ApiError::new(500, "guardian", other.to_string()),
        }
    }
}

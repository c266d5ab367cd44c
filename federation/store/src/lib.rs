//! The key-value store of guardians, clients and gateways, on SQLite or PostgreSQL.
//!
//! The shape of a store is in [`federation_core::db`]; here are its engines and the write batch:
//!
//! ```text
//! modules, main loop ──▶ WriteBatch (in memory, savepoints) ──commit──▶ one SQL transaction ──▶ disk
//! API               ──▶ Database (committed state only; what is asked for often, from memory)
//! ```
//!
//! | URL | engine |
//! |---|---|
//! | `sqlite:///abs/path`, `sqlite:relative/path` | SQLite file, created if missing |
//! | `postgres://user@host/database` | PostgreSQL, the tables are created if missing |
//! | `sqlite::memory:` | lost at the end; for tests |
//!
//! One process at a time owns a store: a second one is refused by [`open`].

mod batch;
mod memory;
mod postgres;
mod range;
mod recent;
mod sqlite;
mod together;
mod whole;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use federation_core::db::{Database, DbError, Reader};

pub use batch::{Replaced, WriteBatch};

/// The layout of the tables that this version writes.
pub const SCHEMA_VERSION: u32 = 1;

/// How long [`open`] waits for another process to let go: a stopped one needs a moment to end.
const LOCK_WAIT: Duration = Duration::from_secs(3);
/// Connections for reading beside the one that writes.
const READERS: u32 = 4;

/// Opens the store at `url` and makes its tables if it is new.
///
/// # Errors
/// [`DbError::TooNew`] if a newer version wrote it; [`DbError::Engine`] if it cannot be reached, is in use by another
/// process, or `url` is of no known kind.
pub async fn open(url: &str) -> Result<Arc<dyn Database>, DbError> {
    if url == "sqlite::memory:" {
        Ok(memory())
    } else if let Some(path) = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")) {
        Ok(Arc::new(recent::Recent::new(sqlite::Sqlite::open(path.as_ref()).await?)))
    } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        Ok(Arc::new(recent::Recent::new(postgres::Postgres::open(url).await?)))
    } else {
        Err(unknown_kind())
    }
}

/// Reads what is committed in the store at `url`, which another process may own and go on writing.
///
/// # Errors
/// As [`open`]; a store that does not exist is not made.
pub async fn glance(url: &str) -> Result<Arc<dyn Reader>, DbError> {
    if let Some(path) = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")) {
        sqlite::glance(path.as_ref()).await
    } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        postgres::glance(url).await
    } else {
        Err(unknown_kind())
    }
}

/// The URL itself may hold a password: it is not repeated.
fn unknown_kind() -> DbError {
    DbError::Engine(
        "unknown kind of database URL: write sqlite:///path/to/file or postgres://user@host/database"
            .to_owned(),
    )
}

/// A store in memory, for tests.
pub fn memory() -> Arc<dyn Database> {
    Arc::new(memory::Memory::default())
}

fn engine(error: sqlx::Error) -> DbError {
    DbError::Engine(error.to_string())
}

fn in_use(what: &str) -> DbError {
    DbError::Engine(format!("{what} is in use by another process: stop that one first"))
}

/// What to do about the schema version that was found in a store; `true`: it is new and has to be written.
fn check_version(found: Option<i64>) -> Result<bool, DbError> {
    let Some(found) = found else { return Ok(true) };
    match u32::try_from(found) {
        Ok(version) if version <= SCHEMA_VERSION => Ok(false),
        Ok(version) => Err(DbError::TooNew { found: version, known: SCHEMA_VERSION }),
        Err(_) => Err(DbError::Corrupt {
            table: "meta".to_owned(),
            reason: format!("{found} is no schema version"),
        }),
    }
}

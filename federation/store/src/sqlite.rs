//! SQLite: one file in WAL mode, one connection that writes, a few that read.

use std::collections::HashMap;
use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use federation_core::db::{Changes, Database, DbError, Pair, Reader};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use crate::together::{Source, Together};
use crate::{LOCK_WAIT, READERS, SCHEMA_VERSION, check_version, engine, in_use, range};

/// The most rows of one statement. Statements have sizes of powers of two only, so that few are ever prepared.
const ROWS: usize = 512;
/// The most keys of a read that shares its query with others: a larger one is worth its own, beside theirs.
const TOGETHER: usize = 64;
/// What is left of the write-ahead log after a checkpoint, in bytes: one large commit must not hold the disk for ever.
const WAL_LIMIT: &str = "67108864";

/// An open SQLite file.
pub struct Sqlite {
    writer: Mutex<SqliteConnection>,
    readers: Together<Readers>,
    /// Holds an exclusive lock on a file beside the database as long as it lives, even through `kill -9`.
    _lock: Mutex<SqliteConnection>,
}

impl Sqlite {
    /// Opens or creates the file; only its owner may read it.
    pub async fn open(path: &Path) -> Result<Self, DbError> {
        let lock = lock(path).await?;
        create(path)?;
        let options = options(path);
        let mut writer = options
            .clone()
            .journal_mode(SqliteJournalMode::Wal)
            // A commit waits for the disk: what the federation answered must survive a power cut.
            .synchronous(SqliteSynchronous::Full)
            .pragma("journal_size_limit", WAL_LIMIT)
            .connect()
            .await
            .map_err(engine)?;
        prepare(&mut writer).await?;
        let readers = Readers {
            options: options.read_only(true),
            turns: Semaphore::new(READERS as usize),
            free: std::sync::Mutex::default(),
        };
        Ok(Self {
            writer: Mutex::new(writer),
            readers: Together::new(readers, TOGETHER),
            _lock: Mutex::new(lock),
        })
    }
}

/// Connections that read. (sqlx's own pool asks each of them, on its return, whether it still lives, in a task that it starts for
/// that: a read would cost two turns of the connection's thread instead of one.)
struct Readers {
    /// How one connects.
    options: SqliteConnectOptions,
    turns: Semaphore,
    free: std::sync::Mutex<Vec<SqliteConnection>>,
}

impl Readers {
    /// One to read with. It is to be [given back](Self::give) when that went well; else, as when a read is cut off, it is closed
    /// and another is opened in its place.
    async fn take(&self) -> Result<(SemaphorePermit<'_>, SqliteConnection), DbError> {
        let turn = self.turns.acquire().await.map_err(|error| DbError::Engine(error.to_string()))?;
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match free {
            Some(connection) => Ok((turn, connection)),
            None => Ok((turn, self.options.connect().await.map_err(engine)?)),
        }
    }

    fn give(&self, connection: SqliteConnection) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}

#[async_trait]
impl Source for Readers {
    async fn read(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, DbError> {
        let (_turn, mut connection) = self.take().await?;
        let values = if keys.len() <= ROWS {
            get_many(&mut connection, keys).await?
        } else {
            // One transaction, so that all statements see the same commit.
            let mut tx = connection.begin().await.map_err(engine)?;
            let values = get_many(&mut tx, keys).await?;
            tx.commit().await.map_err(engine)?;
            values
        };
        self.give(connection);
        Ok(values)
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(Duration::from_secs(30))
        .foreign_keys(false)
        .disable_statement_logging()
}

/// What is committed in a file that another process may have open.
pub async fn glance(path: &Path) -> Result<Arc<dyn Reader>, DbError> {
    let explain = |error| DbError::Engine(format!("{}: {error}", path.display()));
    let mut connection = options(path).read_only(true).connect().await.map_err(explain)?;
    let found: Option<i64> = sqlx::query_scalar("SELECT value FROM meta WHERE name = 'schema'")
        .fetch_optional(&mut connection)
        .await
        .map_err(explain)?;
    check_version(found)?;
    Ok(Arc::new(View(Mutex::new(connection))))
}

/// SQLite's own file lock on an empty file beside the database: the database's lock itself can't be held, since WAL
/// readers need it.
async fn lock(path: &Path) -> Result<SqliteConnection, DbError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    create(name.as_ref())?;
    let mut lock = SqliteConnectOptions::new()
        .filename(&name)
        .busy_timeout(LOCK_WAIT)
        .disable_statement_logging()
        .connect()
        .await
        .map_err(engine)?;
    lock.execute("BEGIN EXCLUSIVE").await.map_err(|error| match error.as_database_error() {
        // SQLITE_BUSY
        Some(busy) if busy.code().is_some_and(|code| code == "5") => {
            in_use(&format!("the database {}", path.display()))
        }
        _ => engine(error),
    })?;
    Ok(lock)
}

/// SQLite gives its side files the mode of the main one, so setting it here is enough.
fn create(path: &Path) -> Result<(), DbError> {
    let explain = |error| DbError::Engine(format!("{}: {error}", path.display()));
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(explain)?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(explain)
}

async fn prepare(writer: &mut SqliteConnection) -> Result<(), DbError> {
    let mut tx = writer.begin().await.map_err(engine)?;
    for sql in [
        "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS kv (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    ] {
        tx.execute(sql).await.map_err(engine)?;
    }
    let found: Option<i64> = sqlx::query_scalar("SELECT value FROM meta WHERE name = 'schema'")
        .fetch_optional(&mut *tx)
        .await
        .map_err(engine)?;
    if check_version(found)? {
        sqlx::query("INSERT INTO meta (name, value) VALUES ('schema', ?)")
            .bind(i64::from(SCHEMA_VERSION))
            .execute(&mut *tx)
            .await
            .map_err(engine)?;
    }
    tx.commit().await.map_err(engine)
}

/// Cuts into pieces whose sizes are powers of two, the largest first.
fn pieces<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = rows.len().checked_ilog2().map(|log| ROWS.min(1 << log))?;
        let (piece, rest) = rows.split_at_checked(size)?;
        rows = rest;
        Some(piece)
    })
}

async fn get(connection: &mut SqliteConnection, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
    sqlx::query_scalar("SELECT value FROM kv WHERE key = ?")
        .bind(key)
        .fetch_optional(connection)
        .await
        .map_err(engine)
}

async fn get_many(
    connection: &mut SqliteConnection,
    keys: &[Vec<u8>],
) -> Result<Vec<Option<Vec<u8>>>, DbError> {
    let mut found: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    for piece in keys.chunks(ROWS) {
        // The last key fills up to a size that is prepared.
        let size = piece.len().next_power_of_two();
        let fill = piece.last().into_iter().cycle().take(size - piece.len());
        let marks = vec!["?"; size].join(",");
        let sql = format!("SELECT key, value FROM kv WHERE key IN ({marks})");
        let query = sqlx::query_as::<_, Pair>(&sql);
        let query = piece.iter().chain(fill).fold(query, |query, key| query.bind(key));
        found.extend(query.fetch_all(&mut *connection).await.map_err(engine)?);
    }
    // A key may be asked for twice.
    Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
}

async fn scan(
    connection: &mut SqliteConnection,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Pair>, DbError> {
    let lower = range::lower(prefix, after);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    match range::upper(prefix) {
        Some(upper) => {
            sqlx::query_as("SELECT key, value FROM kv WHERE key >= ? AND key < ? ORDER BY key LIMIT ?")
                .bind(lower)
                .bind(upper)
                .bind(limit)
                .fetch_all(connection)
                .await
        }
        None => {
            sqlx::query_as("SELECT key, value FROM kv WHERE key >= ? ORDER BY key LIMIT ?")
                .bind(lower)
                .bind(limit)
                .fetch_all(connection)
                .await
        }
    }
    .map_err(engine)
}

#[async_trait]
impl Reader for Sqlite {
    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        Ok(self.readers.get_many(&[key.to_vec()]).await?.pop().flatten())
    }

    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, DbError> {
        if keys.len() <= TOGETHER {
            self.readers.get_many(keys).await
        } else {
            self.readers.source().read(keys).await
        }
    }

    async fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, DbError> {
        let readers = self.readers.source();
        let (_turn, mut connection) = readers.take().await?;
        let found = scan(&mut connection, prefix, after, limit).await?;
        readers.give(connection);
        Ok(found)
    }
}

/// A read transaction on a connection of its own, which goes with it.
struct View(Mutex<SqliteConnection>);

#[async_trait]
impl Reader for View {
    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        get(&mut *self.0.lock().await, key).await
    }
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, DbError> {
        get_many(&mut *self.0.lock().await, keys).await
    }
    async fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, DbError> {
        scan(&mut *self.0.lock().await, prefix, after, limit).await
    }
}

#[async_trait]
impl Database for Sqlite {
    async fn commit(&self, changes: Changes) -> Result<(), DbError> {
        let (mut puts, mut deletes) = (Vec::new(), Vec::new());
        for (key, change) in changes {
            match change {
                Some(value) => puts.push((key, value)),
                None => deletes.push(key),
            }
        }
        let mut writer = self.writer.lock().await;
        let mut tx = writer.begin().await.map_err(engine)?;
        for piece in pieces(&puts) {
            let marks = vec!["(?,?)"; piece.len()].join(",");
            let sql = format!(
                "INSERT INTO kv (key, value) VALUES {marks} ON CONFLICT (key) DO UPDATE SET value = excluded.value"
            );
            let query =
                piece.iter().fold(sqlx::query(&sql), |query, (key, value)| query.bind(key).bind(value));
            query.execute(&mut *tx).await.map_err(engine)?;
        }
        for piece in pieces(&deletes) {
            let marks = vec!["?"; piece.len()].join(",");
            let sql = format!("DELETE FROM kv WHERE key IN ({marks})");
            let query = piece.iter().fold(sqlx::query(&sql), |query, key| query.bind(key));
            query.execute(&mut *tx).await.map_err(engine)?;
        }
        tx.commit().await.map_err(engine)
    }

    async fn view(&self) -> Result<Arc<dyn Reader>, DbError> {
        let mut connection = self.readers.source().options.connect().await.map_err(engine)?;
        connection.execute("BEGIN").await.map_err(engine)?;
        // SQLite fixes what a transaction sees at its first read, not when it begins.
        get(&mut connection, &[]).await?;
        Ok(Arc::new(View(Mutex::new(connection))))
    }
}

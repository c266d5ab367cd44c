//! PostgreSQL: one connection that writes and holds the lock, a few that read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use federation_core::db::{Changes, Database, DbError, Pair, Reader};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
use tokio::sync::Mutex;

use crate::{LOCK_WAIT, READERS, SCHEMA_VERSION, check_version, engine, in_use, range};

/// The most rows of one statement, and about the most bytes of them.
const ROWS: usize = 4096;
const BYTES: usize = 16 << 20;
/// Ours among the database's advisory locks; the second half of the lock's key is the schema's name.
const LOCK: i32 = 0x636c_6e66;

/// An open PostgreSQL database.
pub struct Postgres {
    /// Never connected anew: the lock lives and dies with it. A commit over a lost connection fails, and the process
    /// that sees it stops.
    writer: Mutex<PgConnection>,
    readers: PgPool,
    /// How a reader connects.
    options: PgConnectOptions,
}

impl Postgres {
    /// Connects, takes the lock and makes the tables if they are missing.
    pub async fn open(url: &str) -> Result<Self, DbError> {
        let options = options(url)?;
        let mut writer = options.connect().await.map_err(engine)?;
        lock(&mut writer).await?;
        // The server's default may have been changed; what the federation answered must survive a power cut.
        writer.execute("SET synchronous_commit = on").await.map_err(engine)?;
        prepare(&mut writer).await?;
        let readers = PgPoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options.clone())
            .await
            .map_err(engine)?;
        Ok(Self { writer: Mutex::new(writer), readers, options })
    }
}

fn options(url: &str) -> Result<PgConnectOptions, DbError> {
    let options: PgConnectOptions = url.parse().map_err(engine)?;
    Ok(options.application_name("cln-federation").disable_statement_logging())
}

/// What is committed in a database that another process may own.
pub async fn glance(url: &str) -> Result<Arc<dyn Reader>, DbError> {
    let mut connection = options(url)?.connect().await.map_err(engine)?;
    let found: Option<i64> = sqlx::query_scalar("SELECT value FROM meta WHERE name = 'schema'")
        .fetch_optional(&mut connection)
        .await
        .map_err(engine)?;
    check_version(found)?;
    Ok(Arc::new(View(Mutex::new(connection))))
}

async fn lock(writer: &mut PgConnection) -> Result<(), DbError> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        let locked: bool =
            sqlx::query_scalar("SELECT pg_try_advisory_lock($1, hashtext(coalesce(current_schema(), '')))")
                .bind(LOCK)
                .fetch_one(&mut *writer)
                .await
                .map_err(engine)?;
        if locked {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(in_use("the PostgreSQL database"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn prepare(writer: &mut PgConnection) -> Result<(), DbError> {
    let mut tx = writer.begin().await.map_err(engine)?;
    for sql in [
        // "relation already exists, skipping" is no news.
        "SET LOCAL client_min_messages = warning",
        "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BIGINT NOT NULL)",
        "CREATE TABLE IF NOT EXISTS kv (key BYTEA PRIMARY KEY, value BYTEA NOT NULL)",
    ] {
        tx.execute(sql).await.map_err(engine)?;
    }
    let found: Option<i64> = sqlx::query_scalar("SELECT value FROM meta WHERE name = 'schema'")
        .fetch_optional(&mut *tx)
        .await
        .map_err(engine)?;
    if check_version(found)? {
        sqlx::query("INSERT INTO meta (name, value) VALUES ('schema', $1)")
            .bind(i64::from(SCHEMA_VERSION))
            .execute(&mut *tx)
            .await
            .map_err(engine)?;
    }
    tx.commit().await.map_err(engine)
}

async fn get(connection: &mut PgConnection, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
    sqlx::query_scalar("SELECT value FROM kv WHERE key = $1")
        .bind(key)
        .fetch_optional(connection)
        .await
        .map_err(engine)
}

async fn get_many(connection: &mut PgConnection, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, DbError> {
    // An array is one parameter, so one statement takes any number of keys and sees one commit.
    let found: HashMap<Vec<u8>, Vec<u8>> =
        sqlx::query_as::<_, Pair>("SELECT key, value FROM kv WHERE key = ANY($1)")
            .bind(keys)
            .fetch_all(connection)
            .await
            .map_err(engine)?
            .into_iter()
            .collect();
    Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
}

async fn scan(
    connection: &mut PgConnection,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Pair>, DbError> {
    let lower = range::lower(prefix, after);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    match range::upper(prefix) {
        Some(upper) => {
            sqlx::query_as("SELECT key, value FROM kv WHERE key >= $1 AND key < $2 ORDER BY key LIMIT $3")
                .bind(lower)
                .bind(upper)
                .bind(limit)
                .fetch_all(connection)
                .await
        }
        None => {
            sqlx::query_as("SELECT key, value FROM kv WHERE key >= $1 ORDER BY key LIMIT $2")
                .bind(lower)
                .bind(limit)
                .fetch_all(connection)
                .await
        }
    }
    .map_err(engine)
}

#[async_trait]
impl Reader for Postgres {
    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        get(&mut *self.readers.acquire().await.map_err(engine)?, key).await
    }
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, DbError> {
        get_many(&mut *self.readers.acquire().await.map_err(engine)?, keys).await
    }
    async fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, DbError> {
        scan(&mut *self.readers.acquire().await.map_err(engine)?, prefix, after, limit).await
    }
}

/// A read transaction on a connection of its own, which goes with it.
struct View(Mutex<PgConnection>);

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

/// Rows that go into one statement, as the two arrays that it takes.
#[derive(Default)]
struct Rows {
    keys: Vec<Vec<u8>>,
    values: Vec<Vec<u8>>,
    bytes: usize,
}

impl Rows {
    async fn write(&mut self, tx: &mut PgConnection) -> Result<(), DbError> {
        let rows = std::mem::take(self);
        if rows.keys.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO kv (key, value) SELECT * FROM unnest($1::bytea[], $2::bytea[])
             ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        )
        .bind(rows.keys)
        .bind(rows.values)
        .execute(tx)
        .await
        .map_err(engine)?;
        Ok(())
    }
}

#[async_trait]
impl Database for Postgres {
    async fn commit(&self, changes: Changes) -> Result<(), DbError> {
        let mut writer = self.writer.lock().await;
        let mut tx = writer.begin().await.map_err(engine)?;
        let mut rows = Rows::default();
        let mut deletes = Vec::new();
        for (key, change) in changes {
            let Some(value) = change else {
                deletes.push(key);
                continue;
            };
            rows.bytes += key.len() + value.len();
            rows.keys.push(key);
            rows.values.push(value);
            if rows.keys.len() >= ROWS || rows.bytes >= BYTES {
                rows.write(&mut tx).await?;
            }
        }
        rows.write(&mut tx).await?;
        if !deletes.is_empty() {
            sqlx::query("DELETE FROM kv WHERE key = ANY($1)")
                .bind(deletes)
                .execute(&mut *tx)
                .await
                .map_err(engine)?;
        }
        tx.commit().await.map_err(engine)
    }

    async fn view(&self) -> Result<Arc<dyn Reader>, DbError> {
        let mut connection = self.options.connect().await.map_err(engine)?;
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(engine)?;
        // PostgreSQL fixes what a transaction sees at its first query, not when it begins.
        get(&mut connection, &[]).await?;
        Ok(Arc::new(View(Mutex::new(connection))))
    }
}

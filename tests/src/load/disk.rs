//! What a guardian leaves on the disk, by kind: `store`, `journal`, `snapshots`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

use crate::federation::Guardian;

/// The kind of what transactions are kept in.
pub const STORE: &str = "store";

/// The sizes of a guardian's files, after a clean stop and with the database's log written back into it. It runs again then.
pub async fn of_stopped(guardian: &mut Guardian) -> Result<BTreeMap<&'static str, u64>> {
    guardian.process.stop().await?;
    write_back(&guardian.data_dir.join("guardian.sqlite")).await?;
    let mut sizes = BTreeMap::new();
    sum(&guardian.data_dir, &mut sizes)?;
    guardian.process.restart()?;
    guardian.ready().await?;
    Ok(sizes)
}

/// A process that ends may leave its last commits in SQLite's log, and the log itself as large as it ever was.
async fn write_back(database: &Path) -> Result<()> {
    if database.exists() {
        let mut connection = SqliteConnectOptions::new().filename(database).connect().await?;
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await?;
        connection.close().await?;
    }
    Ok(())
}

fn sum(folder: &Path, sizes: &mut BTreeMap<&'static str, u64>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.to_string_lossy();
        if path.is_dir() {
            sum(&path, sizes)?;
        } else {
            let kind = if name.contains("snapshot") {
                "snapshots"
            } else if name.contains("journal") {
                "journal"
            } else {
                STORE
            };
            *sizes.entry(kind).or_default() += path.metadata()?.len();
        }
    }
    Ok(())
}

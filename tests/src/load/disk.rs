//! What a guardian leaves on the disk, by kind: `store`, `journal`, `snapshots`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use crate::federation::Guardian;

/// The kind of what transactions are kept in.
pub const STORE: &str = "store";

/// The sizes of a guardian's files, after a clean stop, which writes the database's log back into it. It runs again then.
pub async fn of_stopped(guardian: &mut Guardian) -> Result<BTreeMap<&'static str, u64>> {
    guardian.process.stop().await?;
    let mut sizes = BTreeMap::new();
    sum(&guardian.data_dir, &mut sizes)?;
    guardian.process.restart()?;
    guardian.ready().await?;
    Ok(sizes)
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

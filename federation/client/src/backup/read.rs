//! Getting it back.

use std::time::Duration;

use federation_core::backup::{Backup, MAX_SEALED};
use federation_core::encoding::decode;

use super::contents::Contents;
use super::{BackupKeys, Written, seal};
use crate::Result;
use crate::api::{CallError, Request};
use crate::client::Client;

/// What the guardians had.
pub(crate) struct Fetched {
    /// How many guardians answered, also that they have none.
    pub answered: usize,
    /// The newest that can be read.
    pub contents: Option<Contents>,
    /// What the next write goes on from.
    pub written: Written,
}

impl Client {
    /// The newest backup that any guardian has. Its own key's signature is proof; what is no good, or older, is left aside.
    pub(crate) async fn fetch_backup(&self) -> Result<Fetched> {
        let federation = self.federation_id();
        let keys = BackupKeys::derive(&self.inner.seed, federation)?;
        let key = keys.signing.x_only_public_key().0;
        let request = Request::get(format!("/v1/backups/{key}"));
        let answers = self.backup_api()?.all(&request, Duration::ZERO).await;
        let mut found = Vec::new();
        let mut answered = 0usize;
        for (peer, answer) in answers {
            match answer.map(serde_json::from_value::<Backup>) {
                Ok(Ok(backup)) if backup.key == key && backup.is_signed(federation) => {
                    answered = answered.saturating_add(1);
                    found.push(backup);
                }
                Ok(_) => tracing::warn!("guardian {peer} serves a backup that this wallet did not write"),
                Err(CallError::Refused { status: 404, .. }) => answered = answered.saturating_add(1),
                Err(error) => tracing::debug!("guardian {peer}: {error}"),
            }
        }
        found.sort_by_key(|backup| std::cmp::Reverse(backup.version));
        let newest = found.first();
        let written = Written {
            version: newest.map(|backup| backup.version).unwrap_or_default(),
            // The work is not signed.
            work: newest.filter(|backup| backup.is_worked(federation)).map(|backup| backup.work),
            ..Written::default()
        };
        let contents = found.iter().find_map(|backup| {
            let content = seal::open(&keys, federation, backup.version, &backup.sealed);
            let contents = content.and_then(|content| decode(&content, MAX_SEALED).ok());
            if contents.is_none() {
                tracing::warn!("a backup cannot be read: was it written by a newer version?");
            }
            contents
        });
        Ok(Fetched { answered, contents, written })
    }
}

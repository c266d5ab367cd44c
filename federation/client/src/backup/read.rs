//! Getting it back.

use std::collections::BTreeMap;
use std::time::Duration;

use federation_core::PeerId;
use federation_core::backup::{Backup, MAX_SEALED};
use federation_core::encoding::decode;

use super::contents::Contents;
use super::{BackupKeys, Written, seal};
use crate::api::{CallError, Request};
use crate::client::Client;
use crate::{ClientError, Result};

/// How often the guardians are asked, and the pause between.
const ROUNDS: u32 = 10;
const PAUSE: Duration = Duration::from_secs(1);

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
    ///
    /// Asks until n − f have answered, since whoever goes on without the backup overwrites it: one is kept by n − f, so an honest
    /// guardian is among both.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] if too few answer; [`ClientError::BadAnswer`] if the newest can't be read: a newer version of this
    /// program has written it.
    pub(crate) async fn fetch_backup(&self) -> Result<Fetched> {
        let federation = self.federation_id();
        let keys = BackupKeys::derive(&self.inner.seed, federation)?;
        let key = keys.signing.x_only_public_key().0;
        let request = Request::get(format!("/v1/backups/{key}"));
        let api = self.backup_api()?;
        let enough = api.guardians().saturating_sub(api.max_faulty());
        let mut answers: BTreeMap<PeerId, Option<Backup>> = BTreeMap::new();
        for round in 1..=ROUNDS {
            for (peer, answer) in api.all(&request, Duration::ZERO).await {
                match answer.map(serde_json::from_value::<Backup>) {
                    Ok(Ok(backup)) if backup.key == key && backup.is_signed(federation) => {
                        answers.insert(peer, Some(backup));
                    }
                    Ok(_) => tracing::warn!("guardian {peer} serves a backup that this wallet did not write"),
                    Err(CallError::Refused { status: 404, .. }) => {
                        answers.entry(peer).or_default();
                    }
                    Err(error) => tracing::debug!("guardian {peer}: {error}"),
                }
            }
            if answers.len() >= enough {
                break;
            }
            if round == ROUNDS {
                let text = format!("{} guardians answered about the wallet's backup", answers.len());
                return Err(ClientError::Unreachable(text));
            }
            self.rest(PAUSE).await;
        }
        let answered = answers.len();
        let mut found: Vec<Backup> = answers.into_values().flatten().collect();
        found.sort_by_key(|backup| std::cmp::Reverse(backup.version));
        let newest = found.first();
        let written = Written {
            version: newest.map(|backup| backup.version).unwrap_or_default(),
            // The work is not signed.
            work: newest.filter(|backup| backup.is_worked(federation)).map(|backup| backup.work),
            ..Written::default()
        };
        let contents = newest.map(|backup| {
            let content = seal::open(&keys, federation, backup.version, &backup.sealed);
            let contents = content.and_then(|content| decode(&content, MAX_SEALED).ok());
            contents.ok_or_else(|| ClientError::BadAnswer {
                from: "the guardians".to_owned(),
                reason: "the wallet's backup was written by a newer version of this program: use that one"
                    .to_owned(),
            })
        });
        let contents = contents.transpose()?;
        Ok(Fetched { answered, contents, written })
    }
}

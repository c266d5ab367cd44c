//! Handing it to the guardians.

use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::backup::{Backup, do_work};
use federation_core::encoding::encode;
use federation_store::WriteBatch;
use futures::stream::{FuturesUnordered, StreamExt as _};
use serde_json::json;

use super::{BEFORE, BackupKeys, DEBOUNCE, seal};
use crate::api::{FederationApi, Request};
use crate::client::Client;
use crate::ops::{Operation, now};
use crate::store::{BACKUP, BACKUP_DUE, OpId};
use crate::{ClientError, Result};

/// How long the others are waited for when enough guardians have it.
const GRACE: Duration = Duration::from_millis(200);
/// How long a write may take in the background.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pause after a failure: what was refused for its rate is taken again then.
const PAUSE: Duration = Duration::from_secs(30);

/// How the last write went.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Written {
    /// The highest version that was ever used.
    pub version: u64,
    /// The work for the key, once it is done.
    pub work: Option<u64>,
    /// When enough guardians took one last, in seconds since 1970; 0: never.
    pub at: u64,
    /// How many guardians took the last one that was written.
    pub kept_by: u16,
    /// Why others did not; empty if all did.
    pub problem: String,
}

/// How things stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupStatus {
    /// The last write.
    pub last: Written,
    /// Something has happened since.
    pub is_due: bool,
}

impl Client {
    /// How the backup stands with the guardians.
    ///
    /// # Errors
    /// [`ClientError::Db`].
    pub async fn backup_status(&self) -> Result<BackupStatus> {
        let last = BACKUP.get(self.db(), &()).await?.unwrap_or_default();
        Ok(BackupStatus { last, is_due: BACKUP_DUE.contains(self.db(), &()).await? })
    }

    /// Writes the backup if it is due, for whoever is about to end; `true`: nothing is due any more. A failure is shown by
    /// [`backup_status`](Self::backup_status) and is tried again the next time that the wallet is open.
    ///
    /// # Errors
    /// [`ClientError::Db`].
    pub async fn finish_backup(&self, limit: Duration) -> Result<bool> {
        if BACKUP_DUE.contains(self.db(), &()).await? {
            self.back_up_within(limit, None).await;
        }
        Ok(!BACKUP_DUE.contains(self.db(), &()).await?)
    }

    /// Before money is locked, an invoice is shown, or a withdrawal is handed in: best effort.
    pub(crate) async fn back_up_first(&self, about: Option<(OpId, Operation)>) {
        self.back_up_within(BEFORE, about).await;
    }

    async fn back_up_within(&self, limit: Duration, about: Option<(OpId, Operation)>) {
        match tokio::time::timeout(limit, self.back_up(about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("backup: {error}"),
            Err(_) => tracing::debug!("backup: not in time"),
        }
    }

    /// Something of what was backed up has not come about: the next backup says so.
    pub(crate) async fn backup_is_due(&self) -> Result<()> {
        let _guard = self.inner.money.lock().await;
        let mut batch = WriteBatch::new(self.inner.db.clone());
        due(&mut batch);
        batch.commit().await?;
        self.touch();
        Ok(())
    }

    /// Writes whenever it is due, as long as the wallet is open.
    pub(crate) fn spawn_backup(&self) {
        let client = self.for_task();
        self.spawn(async move {
            let mut changes = client.inner.changes.subscribe();
            loop {
                changes.borrow_and_update();
                match BACKUP_DUE.contains(client.db(), &()).await {
                    Ok(true) => {
                        tokio::time::sleep(DEBOUNCE).await;
                        let written = tokio::time::timeout(PATIENCE, client.back_up(None)).await;
                        if !matches!(written, Ok(Ok(()))) {
                            tracing::debug!("backup: {written:?}");
                            tokio::time::sleep(PAUSE).await;
                        }
                    }
                    Ok(false) => {
                        if changes.changed().await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::debug!("backup: {error}");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        });
    }

    /// Writes one, with an operation that is about to begin; without such a one only if it is due.
    async fn back_up(&self, about: Option<(OpId, Operation)>) -> Result<()> {
        let _one = self.inner.backing_up.lock().await;
        let mark = BACKUP_DUE.get(self.db(), &()).await?;
        if mark.is_none() && about.is_none() {
            return Ok(());
        }
        let federation = self.federation_id();
        let keys = BackupKeys::derive(&self.inner.seed, federation)?;
        let public = keys.signing.x_only_public_key().0;
        let mut written = BACKUP.get(self.db(), &()).await?.unwrap_or_default();
        let work = match written.work {
            Some(work) => work,
            None => {
                let work = tokio::task::spawn_blocking(move || do_work(federation, &public)).await;
                work.map_err(|error| ClientError::Internal(error.to_string()))?
            }
        };
        let contents = self.backup_contents(about).await?;
        // No two contents under one version, whatever happens; and higher ones than any that is lost, if clocks are right.
        let millis = u64::try_from(now().as_millis()).unwrap_or(u64::MAX);
        written.version = written.version.saturating_add(1).max(millis);
        written.work = Some(work);
        self.note_backup(&written, None).await?;
        let sealed = seal::seal(&keys, federation, written.version, &encode(&contents))?;
        let backup = Backup::sign(federation, &keys.signing, written.version, work, sealed);

        let (kept_by, problems) = self.hand_out(&backup).await?;
        written.kept_by = u16::try_from(kept_by).unwrap_or(u16::MAX);
        written.problem = problems.join("; ");
        let enough = kept_by >= self.inner.config.threshold();
        if enough {
            written.at = now().as_secs();
        }
        self.note_backup(&written, mark.filter(|_| enough)).await?;
        if enough { Ok(()) } else { Err(ClientError::Unreachable(written.problem)) }
    }

    /// Hands one to all guardians: how many took it, and why others did not.
    async fn hand_out(&self, backup: &Backup) -> Result<(usize, Vec<String>)> {
        let api = self.backup_api()?;
        let request = Request::post("/v1/backups", json!(backup));
        let asked = api.drawn().into_iter().map(|peer| {
            let (api, request) = (&api, &request);
            async move { (peer, api.one(peer, request, Duration::ZERO).await) }
        });
        let mut asked: FuturesUnordered<_> = asked.collect();
        let (mut kept_by, mut problems) = (0usize, Vec::new());
        loop {
            let enough = kept_by >= self.inner.config.threshold();
            let limit = if enough { GRACE } else { PATIENCE };
            match tokio::time::timeout(limit, asked.next()).await {
                Ok(Some((_, Ok(_)))) => kept_by = kept_by.saturating_add(1),
                Ok(Some((peer, Err(error)))) => problems.push(format!("guardian {peer}: {error}")),
                Ok(None) => break,
                Err(_) => {
                    problems.push(format!("{} did not answer in time", asked.len()));
                    break;
                }
            }
        }
        Ok((kept_by, problems))
    }

    /// Over connections that carry nothing else.
    pub(super) fn backup_api(&self) -> Result<FederationApi> {
        if let Some(api) = self.inner.backup_api.get() {
            return Ok(api.clone());
        }
        let api = self.inner.api.apart()?;
        Ok(self.inner.backup_api.get_or_init(|| api).clone())
    }

    /// Writes down how it went; what was due at `mark` is done.
    async fn note_backup(&self, written: &Written, mark: Option<u64>) -> Result<()> {
        let _guard = self.inner.money.lock().await;
        let mut batch = WriteBatch::new(self.inner.db.clone());
        BACKUP.put(&mut batch, &(), written);
        if mark.is_some() && BACKUP_DUE.get(&batch, &()).await? == mark {
            BACKUP_DUE.delete(&mut batch, &());
        }
        Ok(batch.commit().await?)
    }
}

/// Marks that something has happened: each time with another mark, so that what comes during a write is not forgotten.
pub(crate) fn due(batch: &mut WriteBatch) {
    BACKUP_DUE.put(batch, &(), &rand::random());
}

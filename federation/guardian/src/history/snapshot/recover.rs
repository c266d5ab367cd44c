//! A guardian without a state, or too far behind, gets one from the others and goes on from there.
//!
//! Links are made for this alone. What the others send beside answers is accepted and dropped: nothing follows from it, and
//! what is lost of the agreement's messages is made good by the past epochs that are caught up with afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use federation_consensus::links::Links;
use federation_core::db::{Database, DbError};
use federation_store::WriteBatch;
use tokio::task::JoinSet;

use super::exchange::{CHANNEL_ANSWER, MAX_ANSWER, drain};
use super::fetch::{Choice, Peers};
use super::mailbox::Mailbox;
use super::plan::Slowness;
use super::restore::{self, Refused};
use super::store::Snapshots;
use crate::error::GuardianError;
use crate::guardian::GuardianConfig;
use crate::history::{Archive, IdentityKeys};
use crate::running::next_epoch;
use crate::setup::stored::StoredSetup;
use crate::state::{self, RESTORE, Restore};

/// How long to wait before the others are asked once more.
const PAUSE: Duration = Duration::from_secs(5);

/// What is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A snapshot if there is one; else the whole history is there to be caught up with.
    State,
    /// A snapshot: the history that is needed is gone.
    Snapshot,
}

/// Whether a restore was begun, or ordered, and is not done.
pub async fn pending(db: &Arc<dyn Database>) -> Result<Option<Need>, DbError> {
    Ok(RESTORE.get(&state::local_reader(Arc::clone(db) as _), &()).await?.map(|_| Need::State))
}

/// Gets a snapshot that is newer than what is here. When this returns, the database holds a whole state.
pub async fn recover<F>(
    config: &GuardianConfig,
    setup: &StoredSetup,
    db: &Arc<dyn Database>,
    need: Need,
    links: impl Fn() -> F,
) -> Result<(), GuardianError>
where
    F: Future<Output = Result<Links, GuardianError>>,
{
    let result =
        setup.result.as_ref().ok_or_else(|| GuardianError::Config("the setup has no result".to_owned()))?;
    let keys = IdentityKeys::new(&result.config, &setup.secrets.identity)?;
    let links = links().await?;
    // They are aborted with this value, and the links with them.
    let mut drains = JoinSet::new();
    for channel in
        (0..u8::MAX).take_while(|channel| *channel < 8).filter(|channel| *channel != CHANNEL_ANSWER)
    {
        if let Some(frames) = links.subscribe(channel) {
            drains.spawn(drain(frames));
        }
    }
    let answers = links.subscribe(CHANNEL_ANSWER);
    let answers = answers.ok_or_else(|| GuardianError::Config("the links are in use".to_owned()))?;
    let mailbox = Arc::new(Mailbox::default());
    drains.spawn(Arc::clone(&mailbox).fill(answers, MAX_ANSWER));
    let mut peers = Peers {
        links: &links,
        answers: &mailbox,
        keys: &keys,
        faulty: result.config.max_faulty(),
        threshold: result.config.threshold(),
        refused: BTreeSet::new(),
        slowness: Slowness::new(),
    };
    tracing::info!("asking the other guardians for a snapshot of the federation's state");
    loop {
        // Half a state is none.
        let writing =
            RESTORE.get(&state::local_reader(Arc::clone(db) as _), &()).await? == Some(Restore::Writing);
        let from = if writing { 0 } else { next_epoch(db).await? };
        match peers.choose(from).await {
            Some(choice) => {
                let restored = attempt(config, db, &mut peers, &choice).await?;
                if restored {
                    break;
                }
            }
            // If it turns out to be pruned after all, consensus says so, and this begins anew.
            None if need == Need::State => {
                tracing::info!("no guardian has a snapshot: the whole history is caught up with");
                restore_nothing(db, writing).await?;
                break;
            }
            // Sooner or later there is one: the others take them as they go on.
            None => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
    links.shutdown().await;
    Ok(())
}

/// Fetches, checks and writes one snapshot; `false` if it did not work out.
async fn attempt(
    config: &GuardianConfig,
    db: &Arc<dyn Database>,
    peers: &mut Peers<'_>,
    choice: &Choice,
) -> Result<bool, GuardianError> {
    let folder = config.data_dir.join("restore");
    let disk = || GuardianError::io(format!("the folder {}", folder.display()));
    let Some(path) = peers.fetch(choice, &folder).await.map_err(disk())? else { return Ok(false) };
    let epoch = choice.header.epoch;
    let sums = match restore::check(&path, &choice.header).await {
        Ok(sums) => sums,
        Err(Refused::Wrong(why)) => {
            tracing::warn!(epoch, "a snapshot is not what guardians have signed: {why}");
            peers.refuse(choice);
            return Ok(false);
        }
        Err(Refused::Io(error)) => return Err(disk()(error)),
    };
    tracing::info!(
        epoch,
        "the snapshot is what {} guardians have signed: it is written",
        choice.signatures.len()
    );
    restore::write(db, path.clone(), &choice.header, &choice.signatures, &sums).await?;
    // It can be handed on as it is.
    let archive = Arc::new(Archive::open(Arc::clone(db)).await?);
    let snapshots = Snapshots::open(&config.data_dir, config.snapshot_interval, peers.threshold, archive)?;
    snapshots.adopt(&path, choice.manifest.clone()).map_err(disk())?;
    tracing::info!(epoch, "the state is restored");
    Ok(true)
}

/// Begins with the first epoch, or with what is there.
async fn restore_nothing(db: &Arc<dyn Database>, writing: bool) -> Result<(), GuardianError> {
    if writing {
        restore::clear(db).await?;
    }
    let mut batch = WriteBatch::new(Arc::clone(db));
    RESTORE.delete(&mut state::local(&mut batch), &());
    Ok(batch.commit().await?)
}

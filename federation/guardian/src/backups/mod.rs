//! The wallets' backups that this guardian keeps: see [`federation_core::backup`].
//!
//! They are this guardian's own, outside of consensus: no part of the state, its digest or a snapshot. A guardian whose disk was
//! lost has none until the wallets write again; wallets ask all guardians for that reason.
//!
//! # Bounds
//!
//! - [`MAX_SEALED`] bytes a key, and [`MAX_KEYS`] keys: 2 GiB in all.
//! - A key may be written [`BURST`] times at once, then once in [`INTERVAL`]; all keys together [`ALL_BURST`] times, then once
//!   in [`ALL_INTERVAL`]: each write is a commit that the epochs' commits may have to wait for.
//! - A new key costs work (a million hashes), and none ever takes another one's place, as long as that one was written within
//!   [`IDLE_DAYS`]. So a flood of keys can at worst keep new wallets from being backed up here, at the price of some CPU hours;
//!   those that have a backup keep it and may renew it.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bitcoin::secp256k1::XOnlyPublicKey;
use bitcoin::secp256k1::schnorr::Signature;
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::FederationId;
use federation_core::api::ApiError;
use federation_core::backup::{Backup, MAX_SEALED};
use federation_core::db::{Database, DbError, Reader};
use federation_store::WriteBatch;
use tokio::sync::{Mutex, Semaphore};

use crate::state::{self, BACKUP_COUNT, BACKUPS, BACKUPS_BY_DAY};

/// The most keys.
pub const MAX_KEYS: u64 = 32_768;
/// Writes of one key at once.
pub const BURST: u32 = 20;
/// One more of them each time that this has passed.
pub const INTERVAL: Duration = Duration::from_secs(15);
/// Writes of all keys at once.
pub const ALL_BURST: u32 = 100;
/// One more of them each time that this has passed.
pub const ALL_INTERVAL: Duration = Duration::from_millis(50);
/// A key that was not written for so many days makes room for a new one, if there is none left.
pub const IDLE_DAYS: u64 = 365;
/// Writes that wait for each other; more are refused.
const QUEUE: usize = 64;

/// What is kept under a key.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Kept {
    version: u64,
    work: u64,
    sealed: Vec<u8>,
    signature: [u8; 64],
    /// The day of the last write, since 1970.
    day: u64,
    rate: Rate,
}

impl Kept {
    /// Whether it is this one; an error if it is newer.
    fn is(&self, backup: &Backup) -> Result<bool, ApiError> {
        if backup.version > self.version {
            return Ok(false);
        }
        if backup.version == self.version && backup.sealed == self.sealed {
            return Ok(true);
        }
        let reason = format!("version {} is kept here: only a higher one replaces it", self.version);
        Err(ApiError::new(409, "backup_old", reason))
    }
}

/// How much was written lately: the moment (milliseconds since 1970) up to which the steady rate is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Rate(u64);

impl Rate {
    /// One more write; or how long that has to wait.
    fn count(self, now: u64, burst: u32, interval: Duration) -> Result<Self, Duration> {
        let interval = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        let ahead = interval.saturating_mul(u64::from(burst));
        // A clock that was put back starts anew.
        let used = if self.0 > now.saturating_add(ahead) { now } else { self.0.max(now) };
        let next = used.saturating_add(interval);
        match next.saturating_sub(now).checked_sub(ahead) {
            None | Some(0) => Ok(Self(next)),
            Some(over) => Err(Duration::from_millis(over)),
        }
    }
}

/// All of them.
pub struct Backups {
    db: Arc<dyn Database>,
    federation: FederationId,
    max_keys: u64,
    /// Held by the one that writes.
    all: Mutex<Rate>,
    queue: Semaphore,
}

impl Backups {
    /// Those in the database.
    pub fn new(db: Arc<dyn Database>, federation: FederationId) -> Self {
        Self {
            db,
            federation,
            max_keys: MAX_KEYS,
            all: Mutex::new(Rate::default()),
            queue: Semaphore::new(QUEUE),
        }
    }

    /// The last one under a key.
    pub async fn get(&self, key: &XOnlyPublicKey) -> Result<Option<Backup>, DbError> {
        let local = state::local_reader(Arc::clone(&self.db) as Arc<dyn Reader>);
        let kept = BACKUPS.get(&local, &key.serialize()).await?;
        Ok(kept.and_then(|kept| {
            let signature = Signature::from_slice(&kept.signature).ok()?;
            Some(Backup { key: *key, version: kept.version, work: kept.work, sealed: kept.sealed, signature })
        }))
    }

    /// Keeps a newer one; durable when it returns. The same one again is fine.
    pub async fn put(&self, backup: Backup) -> Result<(), ApiError> {
        self.put_at(backup, SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()).await
    }

    async fn put_at(&self, backup: Backup, now: Duration) -> Result<(), ApiError> {
        self.check(&backup)?;
        // What was written before takes nobody's place.
        let db = state::local_reader(Arc::clone(&self.db) as Arc<dyn Reader>);
        if let Some(known) = BACKUPS.get(&db, &backup.key.serialize()).await?
            && known.is(&backup)?
        {
            return Ok(());
        }
        let busy = || ApiError::unavailable("backups_busy", "too many backups come in at once: try again");
        let _place = self.queue.try_acquire().map_err(|_| busy())?;
        let mut all = self.all.lock().await;
        let (millis, day) = (u64::try_from(now.as_millis()).unwrap_or(u64::MAX), now.as_secs() / 86_400);
        let mut batch = WriteBatch::new(Arc::clone(&self.db));
        let mut local = state::local(&mut batch);
        let key = backup.key.serialize();
        let known = BACKUPS.get(&local, &key).await?;
        if let Some(known) = &known
            && known.is(&backup)?
        {
            return Ok(());
        }
        let rate = known.as_ref().map(|known| known.rate).unwrap_or_default();
        let rate = rate.count(millis, BURST, INTERVAL).map_err(|wait| {
            let seconds = wait.as_secs().saturating_add(1);
            ApiError::too_many("backup_rate", format!("too many writes: the next one in {seconds} s"))
        })?;
        let next_all = all.count(millis, ALL_BURST, ALL_INTERVAL).map_err(|_| busy())?;
        match &known {
            Some(known) => BACKUPS_BY_DAY.delete(&mut local, &(known.day, key)),
            None => {
                let count = BACKUP_COUNT.get(&local, &()).await?.unwrap_or_default();
                let mut count = count.saturating_add(1);
                if count > self.max_keys {
                    let oldest = BACKUPS_BY_DAY.scan(&local, &(), None, 1).await?.into_iter().next();
                    let idle = oldest.filter(|((last, _), ())| last.saturating_add(IDLE_DAYS) < day);
                    let (oldest, ()) = idle.ok_or_else(|| {
                        ApiError::new(
                            507,
                            "backups_full",
                            "this guardian has no room for the backups of more wallets",
                        )
                    })?;
                    BACKUPS_BY_DAY.delete(&mut local, &oldest);
                    BACKUPS.delete(&mut local, &oldest.1);
                    count = count.saturating_sub(1);
                }
                BACKUP_COUNT.put(&mut local, &(), &count);
            }
        }
        let Backup { version, work, sealed, signature, .. } = backup;
        let kept = Kept { version, work, sealed, signature: signature.serialize(), day, rate };
        BACKUPS.put(&mut local, &key, &kept);
        BACKUPS_BY_DAY.put(&mut local, &(day, key), &());
        // Before: whoever hangs up meanwhile has it written all the same.
        *all = next_all;
        Ok(batch.commit().await?)
    }

    /// What can be told without the database.
    fn check(&self, backup: &Backup) -> Result<(), ApiError> {
        if backup.sealed.len() > MAX_SEALED {
            let detail = format!("a backup of {} bytes: at most {MAX_SEALED} are kept", backup.sealed.len());
            return Err(ApiError::new(413, "backup_too_large", detail));
        }
        if !backup.is_worked(self.federation) {
            let detail = "the work for this key is missing, or was done for another federation";
            return Err(ApiError::refused("backup_work", detail));
        }
        if !backup.is_signed(self.federation) {
            let detail = "the signature is not this key's, for this federation";
            return Err(ApiError::refused("backup_signature", detail));
        }
        Ok(())
    }
}

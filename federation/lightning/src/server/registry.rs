//! Gateways' announcements, as this guardian has got them.
//!
//! There is room for [`MAX_GATEWAYS`]. Who is in keeps the place by renewing; a newcomer is turned away while it is full, so
//! that a flood can't drive out those that are there.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use federation_core::FederationId;
use federation_core::api::ApiError;
use federation_core::db::{
    Changes, Database, DbError, Namespaced, NamespacedReader, Pair, Reader, Table, Writer,
};
use tokio::sync::Mutex;

use crate::Announcement;

/// How many gateways a guardian remembers.
pub const MAX_GATEWAYS: usize = 200;

const GATEWAYS: Table<[u8; 32], Announcement> = Table::new(1, "gateways");

pub(super) struct GatewayRegistry {
    federation: FederationId,
    db: Arc<dyn Database>,
    prefix: Vec<u8>,
    /// Held from reading to commit, so that two announcements don't overwrite each other's bookkeeping.
    writing: Mutex<()>,
}

/// Seconds since 1970.
fn now() -> u64 {
    // A clock before 1970 makes every announcement last too long: all are refused, none is believed.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

impl GatewayRegistry {
    pub(super) fn new(federation: FederationId, db: Arc<dyn Database>, prefix: Vec<u8>) -> Self {
        Self { federation, db, prefix, writing: Mutex::new(()) }
    }

    fn reader(&self) -> NamespacedReader {
        let db: Arc<dyn Reader> = Arc::clone(&self.db) as _;
        NamespacedReader::new(db, self.prefix.clone())
    }

    /// The announcements that are good now.
    pub(super) async fn live(&self) -> Result<Vec<Announcement>, DbError> {
        let now = now();
        let mut all: Vec<_> = GATEWAYS.all(&self.reader()).await?.into_iter().map(|(_, a)| a).collect();
        all.retain(|announcement| announcement.info.expires_at > now);
        Ok(all)
    }

    /// Takes an announcement in place of the same gateway's last one.
    pub(super) async fn announce(&self, announcement: Announcement) -> Result<(), ApiError> {
        let now = now();
        announcement
            .verify(self.federation, now)
            .map_err(|error| ApiError::refused("bad_announcement", error.to_string()))?;
        let key = announcement.info.key.serialize();

        let _writing = self.writing.lock().await;
        let all = GATEWAYS.all(&self.reader()).await?;
        let mut changes = Collected { db: &*self.db, changes: Changes::new() };
        let mut table = Namespaced::new(&mut changes, self.prefix.clone());
        let mut others = 0;
        for (other, known) in &all {
            if *other == key {
                // Else anybody who kept an old announcement could bring old fees back.
                if known.info.expires_at > announcement.info.expires_at {
                    return Err(ApiError::refused("older_announcement", "a newer announcement is known"));
                }
            } else if known.info.expires_at <= now {
                GATEWAYS.delete(&mut table, other);
            } else {
                others += 1;
            }
        }
        if others >= MAX_GATEWAYS && !all.iter().any(|(other, _)| *other == key) {
            return Err(ApiError::too_many(
                "too_many_gateways",
                "this guardian knows as many gateways as it can remember: try again in an hour",
            ));
        }
        GATEWAYS.put(&mut table, &key, &announcement);
        Ok(self.db.commit(changes.changes).await?)
    }
}

/// Collects what a commit changes. Reads see the store as it was.
struct Collected<'a> {
    db: &'a dyn Database,
    changes: Changes,
}

#[async_trait]
impl Reader for Collected<'_> {
    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        self.db.get(key).await
    }
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, DbError> {
        self.db.get_many(keys).await
    }
    async fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, DbError> {
        self.db.scan(prefix, after, limit).await
    }
}

impl Writer for Collected<'_> {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changes.insert(key, Some(value));
    }
    fn delete(&mut self, key: Vec<u8>) {
        self.changes.insert(key, None);
    }
}

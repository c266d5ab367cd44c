//! A guardian whose database fails stops as a whole, says why, and takes nothing more.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::{Block, Network, Transaction};
use federation_core::db::{Changes, Database, DbError, Pair, Reader};
use federation_wallet::chain::{ChainError, ChainSource, Tip};
use zeroize::Zeroizing;

use crate::{FederationParams, Guardian, GuardianConfig, SNAPSHOT_INTERVAL, SealingKey};

/// A chain of one block.
struct OneBlock;

#[async_trait]
impl ChainSource for OneBlock {
    fn describe(&self) -> String {
        "one block".to_owned()
    }
    async fn network(&self) -> Result<Network, ChainError> {
        Ok(Network::Regtest)
    }
    async fn tip(&self) -> Result<Tip, ChainError> {
        Ok(Tip { height: 100, syncing: false })
    }
    async fn block(&self, _: u32) -> Result<Option<Block>, ChainError> {
        Ok(None)
    }
    async fn fee_rate(&self, _: u16) -> Result<Option<u64>, ChainError> {
        Ok(None)
    }
    async fn broadcast(&self, _: &Transaction) -> Result<(), ChainError> {
        Ok(())
    }
}

/// A database that fails at an epoch's commit, once it is told to.
struct Breaking {
    db: Arc<dyn Database>,
    broken: AtomicBool,
}

#[async_trait]
impl Reader for Breaking {
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

#[async_trait]
impl Database for Breaking {
    async fn commit(&self, changes: Changes) -> Result<(), DbError> {
        let is_epoch = changes.keys().any(|key| crate::state::is_agreed(key));
        if is_epoch && self.broken.load(Ordering::Relaxed) {
            return Err(DbError::Engine("database or disk is full".to_owned()));
        }
        self.db.commit(changes).await
    }
    async fn view(&self) -> Result<Arc<dyn Reader>, DbError> {
        self.db.view().await
    }
}

fn config(folder: PathBuf) -> GuardianConfig {
    GuardianConfig {
        data_dir: folder,
        store_url: None,
        api_bind: "127.0.0.1:0".parse().unwrap(),
        api_url: "http://127.0.0.1:1".to_owned(),
        link_bind: "127.0.0.1:0".parse().unwrap(),
        link_address: "127.0.0.1:1".to_owned(),
        network: Network::Regtest,
        snapshot_interval: SNAPSHOT_INTERVAL,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_commit_stops_the_whole_guardian() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = std::env::temp_dir().join(format!("guardian-stop-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let db = Arc::new(Breaking { db: federation_store::memory(), broken: AtomicBool::new(true) });
    let key = SealingKey::new(Zeroizing::new([1; 32]));
    let start =
        || Guardian::start_on(Arc::clone(&db) as _, config(folder.clone()), key.clone(), Arc::new(OneBlock));
    let guardian = start().await.unwrap();
    let params = FederationParams { denominations: 20, ..FederationParams::new("test", 1, Network::Regtest) };
    guardian.setup_code("alone", Some(params)).await.unwrap();
    let client = reqwest::Client::new();
    let url = format!("http://{}/v1/transactions", guardian.api_address());
    // This connection stays open.
    let before = client.post(&url).body("{}").send().await.unwrap();
    assert_eq!(before.status(), 503);
    guardian.start_setup().await.unwrap();

    let reason = tokio::time::timeout(Duration::from_secs(60), guardian.stopped()).await.unwrap();
    assert!(reason.contains("database or disk is full"), "{reason}");
    assert!(guardian.running().is_err());
    match client.post(&url).body("{}").send().await {
        Ok(answer) => {
            assert_eq!(answer.status(), 503);
            assert!(answer.text().await.unwrap().contains("stopped"));
        }
        Err(error) => assert!(error.is_request() || error.is_connect(), "{error}"),
    }

    // With room on the disk it goes on where it was.
    db.broken.store(false, Ordering::Relaxed);
    drop(guardian);
    let guardian = start().await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while guardian.status().await.unwrap().epoch == 0 {
        assert!(tokio::time::Instant::now() < deadline, "no epoch is applied");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    guardian.shutdown().await;
    assert_eq!(guardian.stopped().await, "stopped by its operator");
    std::fs::remove_dir_all(folder).unwrap();
}

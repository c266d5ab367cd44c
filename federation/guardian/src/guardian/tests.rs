//! Ends of the setup that go wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Block, Network, Transaction};
use bytes::Bytes;
use federation_consensus::links::{CHANNEL_SETUP, Identity, LinkConfig, Links, PeerAddress};
use federation_wallet::chain::{ChainError, ChainSource, Tip};
use zeroize::Zeroizing;

use super::resuming::{MAX_RESUMED, answer_resuming};
use super::{Guardian, GuardianConfig, SNAPSHOT_INTERVAL};
use crate::secrets::SealingKey;
use crate::setup::SetupPhase;
use crate::setup::stored::StoredSetup;

/// No chain at all.
struct Nowhere;

fn nowhere<T>() -> Result<T, ChainError> {
    Err(ChainError::Unreachable("there is no node".to_owned()))
}

#[async_trait::async_trait]
impl ChainSource for Nowhere {
    fn describe(&self) -> String {
        "no chain".to_owned()
    }
    async fn network(&self) -> Result<Network, ChainError> {
        nowhere()
    }
    async fn tip(&self) -> Result<Tip, ChainError> {
        nowhere()
    }
    async fn block(&self, _: u32) -> Result<Option<Block>, ChainError> {
        nowhere()
    }
    async fn fee_rate(&self, _: u16) -> Result<Option<u64>, ChainError> {
        nowhere()
    }
    async fn broadcast(&self, _: &Transaction) -> Result<(), ChainError> {
        nowhere()
    }
}

#[tokio::test]
async fn a_stored_result_outlives_a_start_that_fails() {
    let folder = std::env::temp_dir().join(format!("guardian-setup-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = GuardianConfig {
        data_dir: folder.clone(),
        store_url: None,
        api_bind: "127.0.0.1:0".parse().unwrap(),
        api_url: "http://127.0.0.1:1".to_owned(),
        link_bind: taken.local_addr().unwrap(),
        link_address: "127.0.0.1:1".to_owned(),
        network: Network::Regtest,
        snapshot_interval: SNAPSHOT_INTERVAL,
    };
    let key = SealingKey::new(Zeroizing::new([1; 32]));
    {
        let mut setup = crate::setup::tests::with_result().await;
        setup.started = true;
        setup.save(&config.open().await.unwrap(), &key).await.unwrap();
    }
    let guardian = Guardian::start(config, key, Arc::new(Nowhere)).await.unwrap();
    for _ in 0..100 {
        if guardian.setup_status().await.detail.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // (The failure is shown before it is dealt with.)
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(guardian.setup_status().await.detail.unwrap().contains("links"));
    let stored = StoredSetup::load(&guardian.db, &guardian.key).await.unwrap().unwrap();
    assert!(stored.result.is_some() && stored.started);
    assert_eq!(guardian.setup_status().await.phase, SetupPhase::Generating);
    let _ = std::fs::remove_dir_all(&folder);
}

#[tokio::test]
async fn a_guardian_that_resumes_is_answered_and_thanks_come_to_an_end() {
    let identities = [Identity::generate().unwrap(), Identity::generate().unwrap()];
    let addresses: Vec<SocketAddr> =
        (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()).collect();
    let mut links = Vec::new();
    for me in 0..2usize {
        let other = 1 - me;
        let fingerprint = identities[other].fingerprint();
        let peer = PeerAddress { address: addresses[other].to_string(), fingerprint };
        let peers = BTreeMap::from([(u16::try_from(other).unwrap(), peer)]);
        let me16 = u16::try_from(me).unwrap();
        let config = LinkConfig::new(me16, identities[me].clone(), vec![addresses[me]], peers);
        links.push(Links::start(config).await.unwrap());
    }
    let frame = Bytes::from_static(b"confirmed");
    let frames = links[0].subscribe(CHANNEL_SETUP).unwrap();
    tokio::spawn(answer_resuming(links[0].clone(), frames, frame.clone()));
    let mut answers = links[1].subscribe(CHANNEL_SETUP).unwrap();
    let mut answered = 0;
    links[1].send(0, CHANNEL_SETUP, frame.clone()).unwrap();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(2), answers.recv()).await {
        event.accept();
        assert_eq!(event.frame, frame);
        answered += 1;
        links[1].send(0, CHANNEL_SETUP, event.frame.clone()).unwrap();
    }
    assert_eq!(answered, MAX_RESUMED);
}

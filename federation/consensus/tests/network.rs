//! Four guardians over real TLS links on loopback, with journals on disk.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a test may panic

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use federation_consensus::engine::EngineConfig;
use federation_consensus::header::{Header, HeaderKeys, Signature, Signatures};
use federation_consensus::journal::FileJournal;
use federation_consensus::keygen::{self, CoinKeys};
use federation_consensus::links::{Identity, LinkConfig, Links, PeerAddress};
use federation_consensus::runner::{self, ConsensusEvent, ConsensusHandle, History};
use federation_consensus::{Batch, Bytes, NodeId};
use sha2::{Digest, Sha256};

const LIMIT: Duration = Duration::from_secs(30);

/// The "database" of one guardian.
#[derive(Default)]
struct Store {
    epochs: Mutex<Vec<(Header, Bytes)>>,
    signatures: Mutex<BTreeMap<u64, Signatures>>,
    /// From this epoch on the state is computed wrongly.
    wrong_from: Option<u64>,
}

impl Store {
    fn len(&self) -> usize {
        self.epochs.lock().unwrap().len()
    }

    /// "Applies" a batch: the state is the chain of all batches.
    fn commit(&self, batch: &Batch) -> Header {
        let mut epochs = self.epochs.lock().unwrap();
        let previous = epochs.last().map_or(Header::GENESIS, |(header, _)| header.hash());
        let state = Sha256::new().chain_update(previous).chain_update(batch.encode()).finalize().into();
        let state = if self.wrong_from.is_some_and(|from| from <= batch.epoch) { [7; 32] } else { state };
        let header = Header { epoch: batch.epoch, previous, items: batch.items_root(), state };
        epochs.push((header, batch.encode()));
        header
    }
}

#[async_trait]
impl History for Store {
    async fn next_epoch(&self) -> std::io::Result<u64> {
        Ok(self.len() as u64)
    }

    async fn header(&self, epoch: u64) -> std::io::Result<Option<(Header, Signatures)>> {
        let signatures = self.signatures.lock().unwrap().get(&epoch).cloned().unwrap_or_default();
        Ok(self.epochs.lock().unwrap().get(epoch as usize).map(|(header, _)| (*header, signatures)))
    }

    async fn batch(&self, epoch: u64) -> std::io::Result<Option<Bytes>> {
        Ok(self.epochs.lock().unwrap().get(epoch as usize).map(|(_, batch)| batch.clone()))
    }

    async fn first_epoch(&self) -> std::io::Result<u64> {
        Ok(0)
    }
}

/// Signatures that only look like some: each guardian's is a hash with its number.
struct Marks(NodeId);

fn mark(node: NodeId, hash: &[u8; 32]) -> Signature {
    let half: [u8; 32] = Sha256::new().chain_update(node.to_be_bytes()).chain_update(hash).finalize().into();
    [half, half].concat().try_into().unwrap()
}

impl HeaderKeys for Marks {
    fn sign(&self, hash: &[u8; 32]) -> Signature {
        mark(self.0, hash)
    }

    fn verify(&self, node: NodeId, hash: &[u8; 32], signature: &Signature) -> bool {
        *signature == mark(node, hash)
    }
}

struct Federation {
    identities: Vec<Identity>,
    addresses: Vec<SocketAddr>,
    keys: Vec<CoinKeys>,
    folder: tempfile::TempDir,
}

struct Guardian {
    handle: ConsensusHandle,
    links: Links,
    store: Arc<Store>,
    task: tokio::task::JoinHandle<()>,
}

impl Federation {
    fn new(n: u16) -> Self {
        let listeners: Vec<_> = (0..n).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        Self {
            identities: (0..n).map(|_| Identity::generate().unwrap()).collect(),
            addresses: listeners.iter().map(|l| l.local_addr().unwrap()).collect(),
            keys: vec![],
            folder: tempfile::tempdir().unwrap(),
        }
    }

    async fn links(&self, me: NodeId) -> Links {
        let peers = (0..self.addresses.len()).filter(|peer| *peer != me as usize).map(|peer| {
            let fingerprint = self.identities[peer].fingerprint();
            (peer as NodeId, PeerAddress { address: self.addresses[peer].to_string(), fingerprint })
        });
        let identity = self.identities[me as usize].clone();
        let mut config = LinkConfig::new(me, identity, vec![self.addresses[me as usize]], peers.collect());
        config.heartbeat = Duration::from_millis(500);
        Links::start(config).await.unwrap()
    }

    async fn start(&self, me: NodeId, links: Links, store: Arc<Store>) -> Guardian {
        let n = self.addresses.len() as u16;
        let config = EngineConfig::new(me, n, self.keys[me as usize].clone());
        let journal = FileJournal::open(self.folder.path().join(me.to_string())).unwrap();
        let (handle, mut events) =
            runner::start(config, links.clone(), Box::new(journal), store.clone(), Arc::new(Marks(me)))
                .await
                .unwrap();
        let (main, history) = (handle.clone(), store.clone());
        let task = tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let done = match event {
                    ConsensusEvent::Batch { batch, .. } => main.committed(history.commit(&batch)).await,
                    ConsensusEvent::Signatures { epoch, signatures } => {
                        history.signatures.lock().unwrap().insert(epoch, signatures);
                        Ok(())
                    }
                    ConsensusEvent::ProposalWanted { epoch } => main.propose(epoch, Bytes::new()).await,
                    ConsensusEvent::Diverged { epoch, .. } if history.wrong_from == Some(epoch) => Ok(()),
                    other => panic!("{other:?}"),
                };
                if done.is_err() {
                    return;
                }
            }
        });
        Guardian { handle, links, store, task }
    }

    async fn restart(&self, me: NodeId, store: Arc<Store>) -> Guardian {
        self.start(me, self.links(me).await, store).await
    }
}

impl Guardian {
    fn len(&self) -> usize {
        self.store.len()
    }

    async fn stop(self) -> Arc<Store> {
        self.handle.shutdown().await;
        self.links.shutdown().await;
        self.task.abort();
        self.store
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Has `from` propose until all of `all` have `epochs` more batches.
async fn run(epochs: usize, from: &Guardian, all: &[&Guardian]) {
    for _ in 0..epochs {
        let next = from.len();
        from.handle.propose(next as u64, Bytes::from(format!("value {next}"))).await.unwrap();
        let show = || {
            let status: Vec<_> = all.iter().map(|g| g.handle.status()).collect();
            format!("epoch {next}: {status:#?}")
        };
        let deadline = tokio::time::Instant::now() + LIMIT;
        while all.iter().any(|guardian| guardian.len() <= next) {
            assert!(tokio::time::Instant::now() < deadline, "not in time: {}", show());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn same(guardians: &[&Guardian]) {
    let first = guardians[0].store.epochs.lock().unwrap().clone();
    for guardian in guardians {
        assert!(*guardian.store.epochs.lock().unwrap() == first, "a fork");
    }
    for (epoch, (header, bytes)) in (0..).zip(first) {
        assert_eq!((Batch::decode(bytes).unwrap().epoch, header.epoch), (epoch, epoch));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_then_restarts() {
    let mut federation = Federation::new(4);
    let mut links = Vec::new();
    for me in 0..4 {
        let own = federation.links(me).await;
        links.push(own);
    }
    federation.keys = keygen::run_locally(4, None).unwrap();
    let mut guardians = BTreeMap::new();
    for (me, links) in (0..).zip(links) {
        guardians.insert(me, federation.start(me, links, Arc::default()).await);
    }
    let all: Vec<&Guardian> = guardians.values().collect();
    run(5, all[0], &all).await;
    same(&all);
    until("all know that all is final", || {
        all.iter().all(|guardian| guardian.handle.status().last_final == Some(4))
    })
    .await;

    // One is away while the others go on, and finds its way back, though they are idle by then.
    let store = guardians.remove(&3).unwrap().stop().await;
    let three: Vec<&Guardian> = guardians.values().collect();
    run(40, three[1], &three).await;
    let reached = three[1].len();
    let back = federation.restart(3, store).await;
    until("the restarted guardian catches up", || back.len() == reached).await;
    guardians.insert(3, back);

    // It takes part again: without it, three wouldn't be enough now.
    let store = guardians.remove(&0).unwrap().stop().await;
    let three: Vec<&Guardian> = guardians.values().collect();
    run(5, three[2], &three).await;
    same(&three);
    guardians.insert(0, federation.restart(0, store).await);

    // All stop, and go on.
    let mut stores = Vec::new();
    for (me, guardian) in guardians {
        stores.push((me, guardian.stop().await));
    }
    let mut again = Vec::new();
    for (me, store) in stores {
        again.push(federation.restart(me, store).await);
    }
    let all: Vec<&Guardian> = again.iter().collect();
    run(3, all[3], &all).await;
    same(&all);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_are_stopped_in_the_middle_of_an_epoch() {
    let mut federation = Federation::new(4);
    federation.keys = keygen::run_locally(4, None).unwrap();
    let mut stores: Vec<Arc<Store>> = (0..4).map(|_| Arc::default()).collect();
    for round in 0..6u64 {
        let mut guardians = Vec::new();
        for (me, store) in (0..).zip(&stores) {
            guardians.push(federation.restart(me, store.clone()).await);
        }
        let all: Vec<&Guardian> = guardians.iter().collect();
        // Two epochs are finished, and a third is under way for a moment.
        run(2, all[round as usize % 4], &all).await;
        let next = all[0].len() as u64;
        all[0].handle.propose(next, Bytes::from_static(b"cut off")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(round * 4)).await;
        stores = stop_all(guardians).await;
        let lengths: Vec<usize> = stores.iter().map(|store| store.len()).collect();
        let shortest = lengths.iter().min().copied().unwrap();
        let first = stores[0].epochs.lock().unwrap()[..shortest].to_vec();
        for store in &stores {
            assert!(store.epochs.lock().unwrap()[..shortest] == first, "a fork");
        }
    }
}

async fn stop_all(guardians: Vec<Guardian>) -> Vec<Arc<Store>> {
    let tasks: Vec<_> = guardians.into_iter().map(|guardian| tokio::spawn(guardian.stop())).collect();
    let mut stores = Vec::new();
    for task in tasks {
        stores.push(task.await.unwrap());
    }
    stores
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_guardian_keeps_silent_until_it_cannot_contradict_itself() {
    let mut federation = Federation::new(4);
    federation.keys = keygen::run_locally(4, None).unwrap();
    let mut guardians = Vec::new();
    for me in 0..4 {
        guardians.push(federation.restart(me, Arc::default()).await);
    }
    run(6, &guardians[2], &guardians.iter().collect::<Vec<_>>()).await;
    guardians.remove(3).stop().await;
    std::fs::remove_dir_all(federation.folder.path().join("3")).unwrap();
    let wiped = federation.restart(3, Arc::default()).await;
    until("it has the others' history", || wiped.len() == 6).await;
    until("it knows from where it may speak", || wiped.handle.status().speaks_from == 6).await;
    guardians.push(wiped);
    guardians.remove(0).stop().await;
    let three: Vec<&Guardian> = guardians.iter().collect();
    run(3, three[0], &three).await;
    same(&three);
}

/// Copies the files of a folder.
fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_put_back_is_noticed() {
    let mut federation = Federation::new(4);
    federation.keys = keygen::run_locally(4, None).unwrap();
    let mut guardians = Vec::new();
    for me in 0..4 {
        guardians.push(federation.restart(me, Arc::default()).await);
    }
    run(3, &guardians[2], &guardians.iter().collect::<Vec<_>>()).await;
    let store = guardians.remove(3).stop().await;
    let (disk, copied) = (federation.folder.path().join("3"), federation.folder.path().join("copy"));
    copy(&disk, &copied);
    let old = Store::default();
    *old.epochs.lock().unwrap() = store.epochs.lock().unwrap().clone();
    guardians.push(federation.restart(3, store).await);
    run(4, &guardians[1], &guardians.iter().collect::<Vec<_>>()).await;
    guardians.remove(3).stop().await;
    copy(&copied, &disk);
    let back = federation.restart(3, Arc::new(old)).await;
    until("it has caught up", || back.len() == 7).await;
    until("it notices", || (6..=7).contains(&back.handle.status().speaks_from)).await;
    guardians.push(back);
    guardians.remove(0).stop().await;
    let three: Vec<&Guardian> = guardians.iter().collect();
    run(3, three[0], &three).await;
    same(&three);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_differing_state_is_told_and_nothing_more_is_signed() {
    let mut federation = Federation::new(4);
    federation.keys = keygen::run_locally(4, None).unwrap();
    let mut guardians = Vec::new();
    for me in 0..4 {
        let store = Store { wrong_from: (me == 1).then_some(2), ..Store::default() };
        guardians.push(federation.restart(me, Arc::new(store)).await);
    }
    let all: Vec<&Guardian> = guardians.iter().collect();
    run(5, all[0], &all).await;
    until("it knows", || all[1].handle.status().diverged == Some(2)).await;
    until("the others don't mind", || all[3].handle.status().last_final == Some(4)).await;
    assert_eq!(all[1].handle.status().last_final, Some(1));
    assert!(all[0].store.signatures.lock().unwrap().range(3..).all(|(_, s)| !s.contains_key(&1)));
    assert_eq!(all[0].handle.status().diverged, None);
}

#[tokio::test]
async fn open_connections_of_strangers_keep_no_guardian_out() {
    let federation = Federation::new(2);
    let first = federation.links(0).await;
    let mut strangers = Vec::new();
    for _ in 0..300 {
        strangers.push(tokio::net::TcpStream::connect(federation.addresses[0]).await.unwrap());
    }
    let second = federation.links(1).await;
    until("the guardians are connected", || first.status()[&1].connected && second.status()[&0].connected)
        .await;
    drop(strangers);
}

#[tokio::test]
async fn a_stranger_is_turned_away() {
    let federation = Federation::new(2);
    let mut other = Federation::new(2);
    other.addresses.clone_from(&federation.addresses);
    let honest = federation.links(0).await;
    let stranger = other.links(1).await;
    let failed = |links: &Links, peer| links.status()[&peer].last_error.is_some();
    until("both sides refuse", || failed(&honest, 1) && failed(&stranger, 0)).await;
    assert!(!honest.status()[&1].connected && !stranger.status()[&0].connected);
    assert_eq!(honest.status()[&1].last_seen, None);
}

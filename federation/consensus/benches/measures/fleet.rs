//! Guardians' consensus as it really runs: runner, TLS links on loopback, journals on disk, and a main loop that commits each
//! batch durably. What a guardian adds (modules, API, a database) is left out.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use federation_consensus::engine::EngineConfig;
use federation_consensus::header::{Header, HeaderKeys, Signature, Signatures};
use federation_consensus::journal::FileJournal;
use federation_consensus::keygen;
use federation_consensus::links::{Identity, LinkConfig, Links, PeerAddress};
use federation_consensus::runner::{self, ConsensusEvent, ConsensusHandle, History};
use federation_consensus::{Batch, Bytes, NodeId};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::journals::{Watched, Written};

/// An opaque transaction.
pub const TRANSACTION: usize = 300;
/// The most transactions of a proposal: some 600 kB.
const PROPOSAL: usize = 2_000;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The "database": a file that is flushed once an epoch, and everything in memory.
struct Store {
    epochs: Mutex<Vec<(Header, Bytes)>>,
    signatures: Mutex<BTreeMap<u64, Signatures>>,
    file: Mutex<File>,
    delay: Duration,
}

impl Store {
    /// Commits a batch, and waits for the disk.
    fn commit(&self, batch: &Batch) -> Result<Header> {
        let encoded = batch.encode();
        {
            let mut file = lock(&self.file);
            file.write_all(&encoded)?;
            file.sync_data()?;
            if !self.delay.is_zero() {
                std::thread::sleep(self.delay);
            }
        }
        let mut epochs = lock(&self.epochs);
        let previous = epochs.last().map_or(Header::GENESIS, |(header, _)| header.hash());
        let state = Batch::hash(&encoded);
        let header = Header { epoch: batch.epoch, previous, items: batch.items_root(), state };
        epochs.push((header, encoded));
        Ok(header)
    }
}

#[async_trait]
impl History for Store {
    async fn next_epoch(&self) -> std::io::Result<u64> {
        Ok(lock(&self.epochs).len() as u64)
    }

    async fn header(&self, epoch: u64) -> std::io::Result<Option<(Header, Signatures)>> {
        let signatures = lock(&self.signatures).get(&epoch).cloned().unwrap_or_default();
        Ok(lock(&self.epochs).get(epoch as usize).map(|(header, _)| (*header, signatures)))
    }

    async fn batch(&self, epoch: u64) -> std::io::Result<Option<Bytes>> {
        Ok(lock(&self.epochs).get(epoch as usize).map(|(_, batch)| batch.clone()))
    }

    async fn first_epoch(&self) -> std::io::Result<u64> {
        Ok(0)
    }
}

/// Marks in the place of BIP-340 signatures, which this crate doesn't know.
struct Marks(NodeId);

fn mark(node: NodeId, hash: &[u8; 32]) -> Signature {
    let mut signature = [node as u8; 64];
    signature.iter_mut().zip(hash).for_each(|(to, from)| *to ^= from);
    signature
}

impl HeaderKeys for Marks {
    fn sign(&self, hash: &[u8; 32]) -> Signature {
        mark(self.0, hash)
    }

    fn verify(&self, node: NodeId, hash: &[u8; 32], signature: &Signature) -> bool {
        *signature == mark(node, hash)
    }
}

/// What waits to be proposed, and who waits for it.
#[derive(Default)]
struct Pool {
    waiting: Mutex<VecDeque<u64>>,
    clients: Mutex<HashMap<u64, oneshot::Sender<()>>>,
    work: Notify,
}

/// One guardian's consensus.
pub struct Guardian {
    /// Its way in.
    pub handle: ConsensusHandle,
    /// What its journal has written.
    pub written: Arc<Written>,
    links: Links,
    store: Arc<Store>,
    pool: Arc<Pool>,
    next: Arc<AtomicU64>,
}

impl Guardian {
    /// How many epochs it has committed.
    pub fn epochs(&self) -> u64 {
        lock(&self.store.epochs).len() as u64
    }

    /// Hands in a transaction and waits until it is committed here.
    pub async fn submit(&self) -> Result<()> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (done, decided) = oneshot::channel();
        lock(&self.pool.clients).insert(id, done);
        lock(&self.pool.waiting).push_back(id);
        self.pool.work.notify_one();
        decided.await.context("the guardian has stopped")
    }
}

/// A federation in one process.
pub struct Fleet {
    /// Its guardians.
    pub guardians: Vec<Arc<Guardian>>,
    _folder: tempfile::TempDir,
}

impl Fleet {
    /// `n` guardians whose disks take `delay` longer for each flush; all are connected when this returns.
    pub async fn start(n: u16, delay: Duration) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let identities = (0..n).map(|_| Identity::generate()).collect::<Result<Vec<_>, _>>()?;
        let listeners =
            (0..n).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<Vec<_>>>()?;
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<std::io::Result<Vec<_>>>()?;
        drop(listeners);
        let mut guardians = Vec::new();
        for (me, keys) in (0..).zip(keygen::run_locally(n, None)?) {
            let links = links(me, &identities, &addresses).await?;
            let config = EngineConfig::new(me, n, keys);
            guardians.push(Arc::new(start(me, links, config, folder.path(), delay).await?));
        }
        let fleet = Self { guardians, _folder: folder };
        fleet.connected().await?;
        Ok(fleet)
    }

    async fn connected(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        let up = |guardian: &Arc<Guardian>| {
            let status = guardian.handle.status();
            status.speaks_from != u64::MAX && status.peers.values().all(|peer| peer.link.connected)
        };
        while !self.guardians.iter().all(up) {
            ensure!(Instant::now() < deadline, "the guardians don't find each other");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits until all have committed the same epochs, and returns how many.
    pub async fn settled(&self) -> Result<u64> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let epochs: Vec<u64> = self.guardians.iter().map(|guardian| guardian.epochs()).collect();
            if epochs.iter().min() == epochs.iter().max() {
                return Ok(epochs.first().copied().unwrap_or(0));
            }
            ensure!(Instant::now() < deadline, "the guardians don't get to the same epoch: {epochs:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Journal flushes of all guardians so far.
    pub fn flushes(&self) -> u64 {
        self.guardians.iter().map(|guardian| guardian.written.flushes()).sum()
    }

    /// Stops all.
    pub async fn stop(self) {
        for guardian in &self.guardians {
            guardian.handle.shutdown().await;
            guardian.links.shutdown().await;
        }
    }
}

async fn links(me: NodeId, identities: &[Identity], addresses: &[SocketAddr]) -> Result<Links> {
    let peers = (0..).zip(identities.iter().zip(addresses)).filter(|(peer, _)| *peer != me).map(
        |(peer, (identity, address))| {
            (peer, PeerAddress { address: address.to_string(), fingerprint: identity.fingerprint() })
        },
    );
    let own = identities.get(me as usize).context("an identity")?.clone();
    let listen = addresses.get(me as usize).context("an address")?;
    Ok(Links::start(LinkConfig::new(me, own, vec![*listen], peers.collect())).await?)
}

async fn start(
    me: NodeId,
    links: Links,
    config: EngineConfig,
    folder: &Path,
    delay: Duration,
) -> Result<Guardian> {
    let (journal, written) = Watched::new(FileJournal::open(folder.join(format!("{me}.journal")))?, delay);
    let file = OpenOptions::new().create(true).append(true).open(folder.join(format!("{me}.store")))?;
    let (epochs, signatures) = (Mutex::default(), Mutex::default());
    let store = Arc::new(Store { epochs, signatures, file: Mutex::new(file), delay });
    let (handle, events) =
        runner::start(config, links.clone(), Box::new(journal), store.clone(), Arc::new(Marks(me))).await?;
    let pool = Arc::<Pool>::default();
    let guardian = Guardian {
        handle: handle.clone(),
        written,
        links,
        store: Arc::clone(&store),
        pool: Arc::clone(&pool),
        next: Arc::new(AtomicU64::new(u64::from(me) << 48)),
    };
    tokio::spawn(async move {
        if let Err(error) = run(me, handle, events, store, pool).await {
            eprintln!("guardian {me}: {error:#}");
        }
    });
    Ok(guardian)
}

/// The main loop.
async fn run(
    me: NodeId,
    handle: ConsensusHandle,
    mut events: mpsc::UnboundedReceiver<ConsensusEvent>,
    store: Arc<Store>,
    pool: Arc<Pool>,
) -> Result<()> {
    let (mut wanted, mut proposed) = (None, None);
    let mut next = 0;
    let mut flying: Vec<u64> = Vec::new();
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(ConsensusEvent::Batch { batch, .. }) => {
                    let own = batch.contributions.contains_key(&me);
                    let (to, committing) = (Arc::clone(&store), batch);
                    let header = tokio::task::spawn_blocking(move || to.commit(&committing)).await??;
                    next = header.epoch + 1;
                    if own {
                        let mut clients = lock(&pool.clients);
                        for id in flying.drain(..) {
                            clients.remove(&id).map(|client| client.send(()));
                        }
                    } else {
                        let mut waiting = lock(&pool.waiting);
                        flying.drain(..).rev().for_each(|id| waiting.push_front(id));
                    }
                    handle.committed(header).await?;
                }
                Some(ConsensusEvent::ProposalWanted { epoch }) => wanted = wanted.max(Some(epoch)),
                Some(ConsensusEvent::Signatures { epoch, signatures }) => {
                    lock(&store.signatures).insert(epoch, signatures);
                }
                Some(other) => anyhow::bail!("{other:?}"),
                None => return Ok(()),
            },
            () = pool.work.notified() => {}
        }
        if proposed == Some(next) {
            continue;
        }
        {
            let mut waiting = lock(&pool.waiting);
            if waiting.is_empty() && wanted != Some(next) {
                continue;
            }
            let take = waiting.len().min(PROPOSAL);
            flying.extend(waiting.drain(..take));
        }
        proposed = Some(next);
        let mut value = Vec::with_capacity(flying.len() * TRANSACTION);
        for id in &flying {
            value.extend_from_slice(&id.to_be_bytes());
            value.resize(value.len() + TRANSACTION - 8, *id as u8);
        }
        handle.propose(next, value.into()).await?;
    }
}

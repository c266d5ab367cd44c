//! Snapshots over real links: taken, offered, fetched from honest and lying guardians, checked and written.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use federation_consensus::header::{Header, HeaderKeys as _, Signatures};
use federation_consensus::links::{Identity, LinkConfig, Links, PeerAddress};
use federation_core::db::{Database, Pair, Reader, Writer as _};
use federation_store::WriteBatch;

use super::exchange::{Answer, CHANNEL_ANSWER, CHANNEL_REQUEST, MAX_ANSWER, Request, serve};
use super::fetch::Peers;
use super::mailbox::Mailbox;
use super::manifest::{CHUNK, Manifest};
use super::plan::Slowness;
use super::restore::{Refused, check, clear, stream, write};
use super::store::Snapshots;
use crate::history::keys::tests::federation;
use crate::history::lthash::LtHash;
use crate::history::{Archive, IdentityKeys, digest};
use crate::state::{self, NEXT_EPOCH, POOL, RESTORE, Restore};

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("guardian-snapshots-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A guardian as far as snapshots need one.
struct Node {
    folder: Folder,
    db: Arc<dyn Database>,
    archive: Arc<Archive>,
    snapshots: Arc<Snapshots>,
}

const INTERVAL: u64 = 5;

impl Node {
    async fn new(threshold: usize) -> Self {
        let folder = Folder::new();
        let db = federation_store::memory();
        let archive = Arc::new(Archive::open(Arc::clone(&db)).await.unwrap());
        let snapshots = Snapshots::open(&folder.0, INTERVAL, threshold, Arc::clone(&archive)).unwrap();
        Self { folder, db, archive, snapshots: Arc::new(snapshots) }
    }

    /// Applies an epoch that writes some hundred kB, mostly over what is there.
    async fn epoch(&self, epoch: u64) -> Header {
        let mut db = WriteBatch::new(Arc::clone(&self.db));
        for n in 0..300u64 {
            let mut module = state::module(&mut db, federation_core::ModuleId(1));
            module.put(
                (epoch % 3 * 300 + n).to_be_bytes().to_vec(),
                vec![u8::try_from(epoch % 251).unwrap(); 2000],
            );
        }
        POOL.put(&mut state::local(&mut db), &[7; 32], &vec![1]);
        NEXT_EPOCH.put(&mut state::agreed(&mut db), &(), &(epoch + 1));
        let header = self.archive.append(&mut db, epoch, [4; 32], &vec![9].into()).await.unwrap();
        db.commit().await.unwrap();
        header
    }

    /// Applies epochs, signs them with the keys of the last guardians, and takes the snapshots that are due.
    async fn run(&self, epochs: std::ops::Range<u64>, keys: &[IdentityKeys]) {
        for epoch in epochs {
            let header = self.epoch(epoch).await;
            let first = u16::try_from(4 - keys.len()).unwrap();
            let signatures = (first..).zip(keys).map(|(node, keys)| (node, keys.sign(&header.hash())));
            self.archive.signed(epoch, signatures.collect());
            if self.snapshots.due(epoch) {
                self.snapshots.take(header, self.db.view().await.unwrap());
                until("the snapshot is written", || async {
                    self.snapshots.chunk(epoch, 0).await.is_some() || self.snapshots.problem().is_some()
                })
                .await;
            }
        }
        assert_eq!(self.snapshots.problem(), None);
    }

    async fn agreed(&self) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for prefix in state::AGREED_PREFIXES {
            pairs.extend(self.db.scan(&prefix, None, usize::MAX).await.unwrap());
        }
        pairs
    }
}

async fn until<F: Future<Output = bool>>(what: &str, check: impl Fn() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !check().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}: it never happened");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn all_keys(n: u8) -> Vec<IdentityKeys> {
    let (config, secrets) = federation(n);
    secrets.iter().map(|secret| IdentityKeys::new(&config, secret).unwrap()).collect()
}

async fn links(n: u16) -> Vec<Links> {
    let identities: Vec<_> = (0..n).map(|_| Identity::generate().unwrap()).collect();
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners: Vec<_> = (0..n).map(|_| free()).collect();
    let addresses: Vec<SocketAddr> =
        listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    drop(listeners);
    let mut links = Vec::new();
    for me in 0..n {
        let peer = |other: u16| {
            let fingerprint = identities[usize::from(other)].fingerprint();
            (other, PeerAddress { address: addresses[usize::from(other)].to_string(), fingerprint })
        };
        let peers: BTreeMap<_, _> = (0..n).filter(|other| *other != me).map(peer).collect();
        let at = usize::from(me);
        links.push(
            Links::start(LinkConfig::new(me, identities[at].clone(), vec![addresses[at]], peers))
                .await
                .unwrap(),
        );
    }
    links
}

fn mailbox(links: &Links) -> Arc<Mailbox> {
    let mailbox = Arc::new(Mailbox::default());
    tokio::spawn(Arc::clone(&mailbox).fill(links.subscribe(CHANNEL_ANSWER).unwrap(), MAX_ANSWER));
    mailbox
}

fn peers<'a>(links: &'a Links, answers: &'a Mailbox, keys: &'a IdentityKeys) -> Peers<'a> {
    Peers {
        links,
        answers,
        keys,
        faulty: 1,
        threshold: 3,
        refused: BTreeSet::new(),
        slowness: Slowness::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_state_comes_back_from_the_others() {
    let keys = all_keys(4);
    let links = links(4).await;
    let mut nodes = Vec::new();
    for (at, links) in links.iter().enumerate().skip(1) {
        let node = Node::new(3).await;
        node.run(0..12, &keys[1..]).await;
        let requests = links.subscribe(CHANNEL_REQUEST).unwrap();
        // One of them lies: its chunks are rubbish.
        if at == 3 {
            tokio::spawn(rubbish(links.clone(), requests, Arc::clone(&node.snapshots)));
        } else {
            tokio::spawn(serve(links.clone(), requests, Arc::clone(&node.snapshots)));
        }
        nodes.push(node);
    }
    let lost = Node::new(3).await;
    let mailbox = mailbox(&links[0]);
    let mut peers = peers(&links[0], &mailbox, &keys[0]);
    let choice = peers.choose(0).await.unwrap();
    assert_eq!(choice.header.epoch, 9, "the newest");
    assert!(choice.manifest.chunks.len() > 1);
    let path = peers.fetch(&choice, &lost.folder.0.join("restore")).await.unwrap().unwrap();

    // A restart in the middle asks for what is missing only.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[CHUNK] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(check(&path, &choice.header).await, Err(Refused::Wrong(_))));
    let again = peers.fetch(&choice, &lost.folder.0.join("restore")).await.unwrap().unwrap();
    assert_eq!(again, path);

    let sums = check(&path, &choice.header).await.unwrap();
    // What was there of another state goes, what is this guardian's own stays.
    lost.run(0..3, &[]).await;
    write(&lost.db, path.clone(), &choice.header, &choice.signatures, &sums).await.unwrap();
    let reader: Arc<dyn Reader> = Arc::clone(&lost.db) as _;
    assert_eq!(digest::recompute(&reader).await.unwrap().digest(), choice.header.state);
    let local = state::local_reader(Arc::clone(&lost.db) as _);
    assert!(POOL.contains(&local, &[7; 32]).await.unwrap());
    assert_eq!(RESTORE.get(&local, &()).await.unwrap(), None);

    // It goes on as if it had always been there, and hands the snapshot on.
    let archive = Arc::new(Archive::open(Arc::clone(&lost.db)).await.unwrap());
    let snapshots = Snapshots::open(&lost.folder.0, INTERVAL, 3, Arc::clone(&archive)).unwrap();
    snapshots.adopt(&path, choice.manifest.clone()).unwrap();
    assert_eq!(snapshots.best().await.unwrap().manifest.id(), choice.manifest.id());
    let lost = Node { archive, snapshots: Arc::new(snapshots), ..lost };
    lost.run(10..12, &keys[1..]).await;
    assert_eq!(lost.agreed().await, nodes[0].agreed().await);
    assert_eq!(
        lost.archive.signed_header(11).await.unwrap().unwrap(),
        nodes[0].archive.signed_header(11).await.unwrap().unwrap()
    );
}

/// Offers the right manifest and sends wrong chunks.
async fn rubbish(
    links: Links,
    mut requests: tokio::sync::mpsc::Receiver<federation_consensus::links::LinkEvent>,
    snapshots: Arc<Snapshots>,
) {
    while let Some(event) = requests.recv().await {
        event.accept();
        let answer = match federation_core::encoding::decode::<Request>(&event.frame, 100).unwrap() {
            Request::Best => {
                let offer = snapshots.best().await.unwrap();
                let signatures = offer.signatures.into_iter().collect();
                Answer::Best { manifest: offer.manifest.to_bytes(), signatures }
            }
            Request::Chunk { epoch, index } => Answer::Chunk { epoch, index, bytes: vec![0; CHUNK] },
        };
        links.send(event.from, CHANNEL_ANSWER, answer.frame()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offers_that_too_few_have_signed_count_nothing() {
    let keys = all_keys(4);
    let links = links(4).await;
    let header = Header { epoch: 99, previous: [1; 32], items: [2; 32], state: [3; 32] };
    for (at, links) in links.iter().enumerate().skip(1) {
        let mut requests = links.subscribe(CHANNEL_REQUEST).unwrap();
        let right = keys[at].sign(&header.hash());
        // Two right signatures, one twice under another name: n - f are three.
        let signatures =
            Signatures::from([(1, keys[1].sign(&header.hash())), (2, right), (3, right), (0, [1; 64])]);
        let links = links.clone();
        tokio::spawn(async move {
            while let Some(event) = requests.recv().await {
                event.accept();
                let manifest = Manifest::new(&header, 0, Vec::new()).to_bytes();
                let answer = Answer::Best { manifest, signatures: signatures.clone().into_iter().collect() };
                links.send(event.from, CHANNEL_ANSWER, answer.frame()).unwrap();
            }
        });
    }
    let mailbox = mailbox(&links[0]);
    assert!(peers(&links[0], &mailbox, &keys[0]).choose(0).await.is_none());
}

#[tokio::test]
async fn a_snapshot_is_checked_before_it_is_believed() {
    let folder = Folder::new();
    let path = folder.0.join("stream");
    let pair = |key: &[u8]| (key.to_vec(), b"value".to_vec());
    let good = vec![pair(b"\x00\x01"), pair(b"\x01\x00\x01x")];
    let mut sums = LtHash::default();
    for (key, value) in &good {
        sums.insert(key, value);
    }
    let header = Header { epoch: 1, previous: [0; 32], items: [0; 32], state: sums.digest() };
    let verdict = async |bytes: Vec<u8>| {
        std::fs::write(&path, bytes).unwrap();
        check(&path, &header).await.map_err(|error| error.to_string())
    };
    assert_eq!(verdict(stream(&good)).await.unwrap(), sums);
    for (bad, why) in [
        (vec![good[0].clone()], "digest"),
        (vec![good[1].clone(), good[0].clone()], "order"),
        (vec![good[0].clone(), good[0].clone(), good[1].clone()], "order"),
        (vec![good[0].clone(), good[1].clone(), pair(b"\x02\x01")], "not part of the state"),
    ] {
        let error = verdict(stream(&bad)).await.unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    let mut cut = stream(&good);
    cut.pop();
    assert!(verdict(cut).await.unwrap_err().contains("middle"));
    assert!(verdict(vec![0xff; 9]).await.unwrap_err().contains("too long"));
}

#[tokio::test]
async fn the_last_two_signed_ones_are_kept_and_older_epochs_may_go() {
    let keys = all_keys(4);
    let node = Node::new(3).await;
    node.run(0..5, &keys[1..]).await;
    assert_eq!(node.snapshots.tidy().await, 0, "one is not enough to forget anything");
    // Of these, only f + 1 have signed.
    node.run(5..10, &keys[2..]).await;
    assert_eq!(node.snapshots.tidy().await, 0);
    assert_eq!(node.snapshots.best().await.unwrap().manifest.header().unwrap().epoch, 4);
    node.run(10..15, &keys[1..]).await;
    assert_eq!(node.snapshots.tidy().await, 5);
    node.run(15..20, &keys[1..]).await;
    assert_eq!(node.snapshots.tidy().await, 15);
    assert_eq!(node.snapshots.best().await.unwrap().manifest.header().unwrap().epoch, 19);
    let reopened = Snapshots::open(&node.folder.0, INTERVAL, 3, Arc::clone(&node.archive)).unwrap();
    for (epoch, kept) in [(4, false), (9, false), (14, true), (19, true)] {
        assert_eq!(node.snapshots.chunk(epoch, 0).await.is_some(), kept, "{epoch}");
        assert_eq!(reopened.chunk(epoch, 0).await.is_some(), kept, "{epoch}");
    }
    assert!(node.snapshots.chunk(19, 9999).await.is_none());
    // What an interrupted one leaves behind goes at the next start.
    let folder = node.folder.0.join("snapshots");
    std::fs::write(folder.join("24.part"), b"x").unwrap();
    std::fs::remove_file(folder.join("19.manifest")).unwrap();
    let reopened = Snapshots::open(&node.folder.0, INTERVAL, 3, Arc::clone(&node.archive)).unwrap();
    assert_eq!(reopened.best().await.unwrap().manifest.header().unwrap().epoch, 14);
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 2);
}

#[tokio::test]
async fn a_state_that_nobody_could_fetch_is_no_snapshot() {
    let keys = all_keys(4);
    let node = Node::new(3).await;
    // A state of 600 kB after each of the first epochs, then of 1200 kB.
    node.run(0..1, &keys[1..]).await;
    let open = || Snapshots::open(&node.folder.0, 1, 3, Arc::clone(&node.archive)).unwrap();
    let snapshots = Arc::new(open().with_most_chunks(1));
    let take = async |epoch: u64, header: Header| {
        node.archive
            .signed(epoch, (1..).zip(&keys[1..]).map(|(n, keys)| (n, keys.sign(&header.hash()))).collect());
        snapshots.take(header, node.db.view().await.unwrap());
        until("the snapshot is written, or not", || async { snapshots.due(epoch) }).await;
    };
    let header = node.archive.signed_header(0).await.unwrap().unwrap().0;
    take(0, header).await;
    assert_eq!(snapshots.problem(), None);
    for epoch in 1..4 {
        let header = node.epoch(epoch).await;
        take(epoch, header).await;
        let problem = snapshots.problem().unwrap();
        assert!(
            problem.contains(&format!("epoch {epoch}")) && problem.contains("more than 1 MiB"),
            "{problem}"
        );
        assert_eq!(snapshots.tidy().await, 0, "nothing may be forgotten");
    }
    assert_eq!(snapshots.best().await.unwrap().manifest.header().unwrap().epoch, 0);
    let mut names: Vec<_> = std::fs::read_dir(node.folder.0.join("snapshots"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["0.manifest", "0.pairs"], "nothing as large as the state is left behind");
    assert!(open().chunk(0, 0).await.is_some());
}

#[tokio::test]
async fn what_is_not_a_snapshots_is_left_alone() {
    let keys = all_keys(4);
    let node = Node::new(3).await;
    node.run(0..10, &keys[1..]).await;
    let folder = node.folder.0.join("snapshots");
    // What is another's: also under names that look like a snapshot's.
    let kept = ["notes", "5.manifest", "7.pairs", "9.part.d", "old"];
    for name in ["5.manifest", "7.pairs", "old"] {
        std::fs::create_dir_all(folder.join(name).join("deep")).unwrap();
    }
    for name in ["notes", "9.part.d", "old/4.pairs"] {
        std::fs::write(folder.join(name), b"x").unwrap();
    }
    // What is left of this guardian's own.
    for name in ["24.part", "24.new", "14.pairs", "19.manifest"] {
        std::fs::write(folder.join(name), b"x").unwrap();
    }
    let reopened = Snapshots::open(&node.folder.0, INTERVAL, 3, Arc::clone(&node.archive)).unwrap();
    assert_eq!(reopened.best().await.unwrap().manifest.header().unwrap().epoch, 9);
    assert!(reopened.chunk(4, 0).await.is_some() && reopened.chunk(5, 0).await.is_none());
    for name in kept.into_iter().chain(["old/4.pairs", "5.manifest/deep"]) {
        assert!(folder.join(name).exists(), "{name}");
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), kept.len() + 4);
}

#[tokio::test]
async fn half_a_state_is_not_taken_for_a_whole_one() {
    let node = Node::new(3).await;
    node.run(0..2, &[]).await;
    clear(&node.db).await.unwrap();
    assert!(node.agreed().await.is_empty());
    let local = state::local_reader(Arc::clone(&node.db) as _);
    assert_eq!(RESTORE.get(&local, &()).await.unwrap(), Some(Restore::Writing));
    assert_eq!(super::recover::pending(&node.db).await.unwrap(), Some(super::recover::Need::State));
    assert!(POOL.contains(&local, &[7; 32]).await.unwrap());
}

//! Getting a snapshot from the other guardians.
//!
//! All are asked for their best one. What f + 1 offer alike is taken first, since one of them is honest; the header must carry
//! n − f right signatures in any case. Chunks are asked for by [plan](super::plan), and written where they
//! belong in one file, so that what has come is not asked for again, in another attempt or after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use federation_consensus::NodeId;
use federation_consensus::header::{Header, Signatures};
use federation_consensus::links::Links;
use tokio::time::{Instant, timeout_at};

use super::exchange::{Answer, CHANNEL_REQUEST, Request};
use super::mailbox::Mailbox;
use super::manifest::{CHUNK, Manifest};
use super::plan::{Plan, Slowness};
use crate::history::keys::IdentityKeys;

/// How often a peer that does not answer is asked again.
const AGAIN: Duration = Duration::from_secs(5);
/// How long to wait for more answers when the needed ones are there.
const GRACE: Duration = Duration::from_secs(3);
/// How often is looked who is late.
const LOOK: Duration = Duration::from_secs(1);
/// How often peers are asked before a snapshot is taken that fewer than f + 1 offer alike.
const ROUNDS: u32 = 3;

/// A snapshot that was chosen, and who has it.
pub struct Choice {
    /// What it consists of.
    pub manifest: Manifest,
    /// Its header.
    pub header: Header,
    /// At least n − f right signatures of the header.
    pub signatures: Signatures,
    providers: BTreeSet<NodeId>,
}

/// The way to the other guardians.
pub struct Peers<'a> {
    /// The links.
    pub links: &'a Links,
    /// What comes on the channel of answers.
    pub answers: &'a Mailbox,
    /// The keys that headers are signed with.
    pub keys: &'a IdentityKeys,
    /// How many guardians may be faulty.
    pub faulty: usize,
    /// n − f.
    pub threshold: usize,
    /// Guardians that offered a false snapshot: they are not asked any more.
    pub refused: BTreeSet<NodeId>,
    /// What was learned about their links.
    pub slowness: Slowness,
}

impl Peers<'_> {
    /// The best snapshot of an epoch from `from` on, or `None` if at least f + 1 guardians have answered and none has one. Waits
    /// for f + 1 answers for as long as it takes.
    pub async fn choose(&mut self, from: u64) -> Option<Choice> {
        for round in 1..=ROUNDS {
            let mut choices: BTreeMap<[u8; 32], Choice> = BTreeMap::new();
            for (peer, answer) in self.ask_all().await {
                let Some((manifest, signatures)) = answer.offer() else { continue };
                let Some(header) = manifest.header().filter(|header| header.epoch >= from) else { continue };
                let id = manifest.id();
                if self.refused.contains(&peer) || self.keys.count(&header, &signatures) < self.threshold {
                    continue;
                }
                let new =
                    Choice { manifest, header, signatures: Signatures::new(), providers: BTreeSet::new() };
                let choice = choices.entry(id).or_insert(new);
                choice.providers.insert(peer);
                let right = |(node, signature): &(NodeId, _)| {
                    federation_consensus::header::HeaderKeys::verify(
                        self.keys,
                        *node,
                        &header.hash(),
                        signature,
                    )
                };
                choice.signatures.extend(signatures.into_iter().filter(right));
            }
            let trusted = |choice: &Choice| choice.providers.len() > self.faulty;
            let best = choices.into_values().max_by_key(|choice| (trusted(choice), choice.header.epoch))?;
            if trusted(&best) || round == ROUNDS {
                return Some(best);
            }
            tokio::time::sleep(AGAIN).await;
        }
        None
    }

    /// This one turned out to be false.
    pub fn refuse(&mut self, choice: &Choice) {
        self.refused.extend(&choice.providers);
    }

    /// The last answer of each peer, once f + 1 have answered and the others have had their chance.
    async fn ask_all(&mut self) -> BTreeMap<NodeId, Answer> {
        let all = self.links.peers().count();
        let mut answered = BTreeMap::new();
        let mut enough: Option<Instant> = None;
        let mut ask = Instant::now();
        loop {
            let now = Instant::now();
            if answered.len() >= all || enough.is_some_and(|enough| now >= enough) {
                return answered;
            }
            if now >= ask {
                for peer in self.links.peers().filter(|peer| !answered.contains_key(peer)) {
                    // What can't be queued is asked again soon.
                    let _ = self.links.send(peer, CHANNEL_REQUEST, Request::Best.frame());
                }
                ask = later(now, AGAIN);
            }
            let until = enough.map_or(ask, |enough| enough.min(ask));
            let Ok((from, frame)) = timeout_at(until, self.answers.next()).await else { continue };
            match Answer::read(&frame) {
                Some(answer @ (Answer::None | Answer::Best { .. })) => {
                    answered.insert(from, answer);
                }
                _ => continue,
            }
            if answered.len() > self.faulty {
                enough.get_or_insert_with(|| later(Instant::now(), GRACE));
            }
        }
    }

    /// Gets all chunks into a file in `folder`. An error is one of this guardian's disk; `None`: the peers that offered it
    /// do not have it any more, or do not answer.
    pub async fn fetch(&mut self, choice: &Choice, folder: &Path) -> io::Result<Option<PathBuf>> {
        let manifest = &choice.manifest;
        let path = folder.join(format!("{}.part", hex::encode(manifest.id())));
        let (prepared, known) = (path.clone(), manifest.clone());
        let missing = blocking(move || prepare(&prepared, &known)).await?;
        tracing::info!(
            epoch = choice.header.epoch,
            "fetching a snapshot of {} bytes, {} of {} chunks are missing",
            manifest.size,
            missing.len(),
            manifest.chunks.len()
        );
        let epoch = choice.header.epoch;
        let mut plan = Plan::new(manifest, missing, choice.providers.clone(), &mut self.slowness);
        while !plan.is_done() {
            for (peer, index) in plan.requests(Instant::now()) {
                // What can't be queued is as good as not answered.
                let _ = self.links.send(peer, CHANNEL_REQUEST, Request::Chunk { epoch, index }.frame());
            }
            if plan.is_hopeless() {
                return Ok(None);
            }
            let until = later(Instant::now(), LOOK);
            let Ok((from, frame)) = timeout_at(until, self.answers.next()).await else { continue };
            let Some(Answer::Chunk { epoch: of, index, bytes }) = Answer::read(&frame) else {
                continue;
            };
            if of != epoch {
                continue;
            }
            // A right one is welcome from anybody, also if it is late.
            if plan.wants(index) && manifest.is_chunk(index, &bytes) {
                let path = path.clone();
                blocking(move || put_chunk(&path, index, &bytes)).await?;
                plan.arrived(from, index);
            } else if plan.expects(from, index) {
                if plan.wants(index) {
                    plan.give_up(from);
                } else {
                    // Somebody else was faster.
                    plan.arrived(from, index);
                }
            }
        }
        let file = path.clone();
        blocking(move || File::open(file)?.sync_all()).await?;
        Ok(Some(path))
    }
}

fn later(now: Instant, by: Duration) -> Instant {
    now.checked_add(by).unwrap_or(now)
}

/// Runs file work where it may wait.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Makes the file of a snapshot, or looks which chunks an earlier life has got: the missing ones. Files of other snapshots go.
fn prepare(path: &Path, manifest: &Manifest) -> io::Result<BTreeSet<u32>> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
        for entry in fs::read_dir(folder)? {
            let other = entry?.path();
            if other != path
                && is_ours(&other)
                && let Err(error) = fs::remove_file(&other)
            {
                tracing::warn!("the file {} was not removed: {error}", other.display());
            }
        }
    }
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    file.set_len(manifest.size)?;
    let mut missing = BTreeSet::new();
    for index in (0u32..).take(manifest.chunks.len()) {
        let mut bytes = vec![0; manifest.chunk_length(index).unwrap_or_default()];
        file.read_exact(&mut bytes)?;
        if !manifest.is_chunk(index, &bytes) {
            missing.insert(index);
        }
    }
    Ok(missing)
}

/// Whether it is a file of a snapshot that was being fetched.
fn is_ours(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    path.extension().is_some_and(|extension| extension == "part")
        && stem.is_some_and(|stem| stem.len() == 64 && stem.bytes().all(|byte| byte.is_ascii_hexdigit()))
        && path.is_file()
}

fn put_chunk(path: &Path, index: u32, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.seek(SeekFrom::Start(u64::from(index).saturating_mul(CHUNK as u64)))?;
    file.write_all(bytes)
}

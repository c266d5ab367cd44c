//! The snapshots of this guardian: taken after every so many epochs, kept as files, offered to others.
//!
//! | file in `snapshots` | what |
//! |---|---|
//! | `EPOCH.pairs` | the stream of pairs |
//! | `EPOCH.manifest` | the manifest; it is written last, so what has none is no snapshot |
//! | `EPOCH.part`, `EPOCH.new` | one of them, unfinished |
//!
//! Whatever else is in that folder is somebody else's, and left alone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::hashes::{Hash as _, sha256};
use federation_consensus::header::{Header, Signatures};
use federation_core::db::Reader;

use super::manifest::{CHUNK, MAX_CHUNKS, MAX_MANIFEST, Manifest, put_pair};
use crate::error::GuardianError;
use crate::history::archive::Archive;
use crate::history::lthash::LtHash;
use crate::state::AGREED_PREFIXES;

/// How many are kept that n − f guardians have signed; what is older than the last of them is pruned.
const KEPT: usize = 2;
/// How many others may wait for signatures.
const WAITING: usize = 2;
/// Pairs read with one query.
const PAGE: usize = 1000;

/// This guardian's snapshots.
pub struct Snapshots {
    folder: PathBuf,
    /// Every so many epochs.
    interval: u64,
    /// n − f.
    threshold: usize,
    /// The most chunks that can be handed on.
    most: usize,
    archive: Arc<Archive>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: BTreeMap<u64, Kept>,
    /// One is being written.
    busy: bool,
    problem: Option<String>,
}

#[derive(Clone)]
struct Kept {
    manifest: Arc<Manifest>,
    /// n − f have signed its header.
    complete: bool,
}

/// A snapshot that others can have.
pub struct Offer {
    /// What it consists of.
    pub manifest: Arc<Manifest>,
    /// Who has signed its header.
    pub signatures: Signatures,
}

impl Snapshots {
    /// Finds what is there; what is left of an interrupted one is removed.
    pub fn open(
        data_dir: &Path,
        interval: u64,
        threshold: usize,
        archive: Arc<Archive>,
    ) -> Result<Self, GuardianError> {
        let folder = data_dir.join("snapshots");
        let kept = find(&folder).map_err(GuardianError::io(folder.display().to_string()))?;
        let kept = kept
            .into_iter()
            .map(|(epoch, manifest)| (epoch, Kept { manifest: Arc::new(manifest), complete: false }));
        let state = Mutex::new(State { kept: kept.collect(), ..State::default() });
        Ok(Self { folder, interval: interval.max(1), threshold, most: MAX_CHUNKS, archive, state })
    }

    /// With a limit that tests can reach.
    #[cfg(test)]
    pub(super) fn with_most_chunks(self, most: usize) -> Self {
        Self { most, ..self }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one is due after this epoch.
    pub fn due(&self, epoch: u64) -> bool {
        epoch.saturating_add(1).is_multiple_of(self.interval) && !self.state().busy
    }

    /// Whether a header is kept for ever: it is a snapshot's.
    pub fn is_milestone(&self, epoch: u64) -> bool {
        epoch.saturating_add(1).is_multiple_of(self.interval)
    }

    /// Why the last one could not be written.
    pub fn problem(&self) -> Option<String> {
        self.state().problem.clone()
    }

    /// Writes a snapshot of the state after the header's epoch, beside the main loop.
    pub fn take(self: &Arc<Self>, header: Header, view: Arc<dyn Reader>) {
        let this = Arc::clone(self);
        self.state().busy = true;
        tokio::spawn(async move {
            let result = this.write(&header, view).await;
            let mut state = this.state();
            state.busy = false;
            state.problem = None;
            match result {
                Ok(manifest) => {
                    tracing::info!(epoch = header.epoch, bytes = manifest.size, "a snapshot is written");
                    state.kept.insert(header.epoch, Kept { manifest: Arc::new(manifest), complete: false });
                }
                Err(error) => {
                    tracing::error!("the snapshot of epoch {} was not written: {error}", header.epoch);
                    state.problem =
                        Some(format!("the snapshot of epoch {} was not written: {error}", header.epoch));
                }
            }
        });
    }

    async fn write(&self, header: &Header, view: Arc<dyn Reader>) -> Result<Manifest, String> {
        let part = self.folder.join(format!("{}.part", header.epoch));
        let written = self.write_to(part.clone(), header, view).await;
        if written.is_err() {
            // It is as large as the state.
            let _ = blocking(move || fs::remove_file(part)).await;
        }
        written
    }

    async fn write_to(
        &self,
        part: PathBuf,
        header: &Header,
        view: Arc<dyn Reader>,
    ) -> Result<Manifest, String> {
        let mut stream = {
            let (folder, part, most) = (self.folder.clone(), part.clone(), self.most);
            blocking(move || fs::create_dir_all(folder).and_then(|()| Stream::create(&part, most))).await?
        };
        for prefix in AGREED_PREFIXES {
            let mut after: Option<Vec<u8>> = None;
            loop {
                let page = view.scan(&prefix, after.as_deref(), PAGE).await.map_err(|e| e.to_string())?;
                let done = page.len() < PAGE;
                after = page.last().map(|(key, _)| key.clone());
                stream = blocking(move || {
                    for (key, value) in page {
                        stream.put(&key, &value)?;
                    }
                    Ok(stream)
                })
                .await?;
                if done {
                    break;
                }
            }
        }
        drop(view);
        let (folder, header) = (self.folder.clone(), *header);
        blocking(move || {
            let (size, chunks, digest) = stream.finish()?;
            if digest != header.state {
                return Err(io::Error::other(
                    "the database does not hold what its digest says: is it damaged?",
                ));
            }
            let manifest = Manifest::new(&header, size, chunks);
            publish(&folder, &part, &manifest)?;
            Ok(manifest)
        })
        .await
    }

    /// Makes one of a stream that was fetched and checked.
    pub fn adopt(&self, part: &Path, manifest: Manifest) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        publish(&self.folder, part, &manifest)?;
        if let Some(header) = manifest.header() {
            let kept = Kept { manifest: Arc::new(manifest), complete: false };
            self.state().kept.insert(header.epoch, kept);
        }
        Ok(())
    }

    /// The newest one that n − f have signed.
    pub async fn best(&self) -> Option<Offer> {
        let kept = self.state().kept.clone();
        for (epoch, kept) in kept.into_iter().rev() {
            let signed = self.archive.signed_header(epoch).await;
            let Ok(Some((header, signatures))) = signed else { continue };
            // After a restore from another snapshot, an old file may be of a header that is not known any more.
            if signatures.len() >= self.threshold && Some(header) == kept.manifest.header() {
                return Some(Offer { manifest: kept.manifest, signatures });
            }
        }
        None
    }

    /// A chunk; `None` if the snapshot is gone, or never was.
    pub async fn chunk(&self, epoch: u64, index: u32) -> Option<Vec<u8>> {
        let length = self.state().kept.get(&epoch)?.manifest.chunk_length(index)?;
        let path = pairs(&self.folder, epoch);
        let read = blocking(move || {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(u64::from(index).saturating_mul(CHUNK as u64)))?;
            let mut bytes = vec![0; length];
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        });
        read.await.inspect_err(|error| tracing::warn!("a snapshot's chunk: {error}")).ok()
    }

    /// The epoch that nothing before needs to be kept of, for a restore from the older of the last two signed snapshots.
    /// Older snapshots are removed.
    pub async fn tidy(&self) -> u64 {
        let incomplete: Vec<u64> =
            self.state().kept.iter().filter(|(_, kept)| !kept.complete).map(|(epoch, _)| *epoch).collect();
        for epoch in incomplete {
            let Ok(Some((_, signatures))) = self.archive.signed_header(epoch).await else { continue };
            if let Some(kept) = self.state().kept.get_mut(&epoch) {
                kept.complete = signatures.len() >= self.threshold;
            }
        }
        let (below, gone) = {
            let mut state = self.state();
            let newest_first = || state.kept.iter().rev();
            let complete: Vec<u64> = newest_first()
                .filter(|(_, kept)| kept.complete)
                .map(|(epoch, _)| *epoch)
                .take(KEPT)
                .collect();
            let waiting = newest_first().filter(|(_, kept)| !kept.complete).map(|(epoch, _)| *epoch);
            let oldest = complete.last().copied();
            let waiting = waiting.filter(|epoch| oldest.is_none_or(|oldest| *epoch > oldest)).take(WAITING);
            let keep: Vec<u64> = complete.iter().copied().chain(waiting).collect();
            let gone: Vec<u64> = state.kept.keys().filter(|epoch| !keep.contains(epoch)).copied().collect();
            state.kept.retain(|epoch, _| keep.contains(epoch));
            let below = complete.get(KEPT.saturating_sub(1)).map_or(0, |epoch| epoch.saturating_add(1));
            (below, gone)
        };
        if !gone.is_empty() {
            let folder = self.folder.clone();
            let removed = blocking(move || {
                for epoch in gone {
                    remove(&manifest(&folder, epoch));
                    remove(&pairs(&folder, epoch));
                }
                Ok(())
            });
            if let Err(error) = removed.await {
                tracing::warn!("old snapshots were not removed: {error}");
            }
        }
        below
    }
}

/// Runs file work where it may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn pairs(folder: &Path, epoch: u64) -> PathBuf {
    folder.join(format!("{epoch}.pairs"))
}

fn manifest(folder: &Path, epoch: u64) -> PathBuf {
    folder.join(format!("{epoch}.manifest"))
}

/// Removes a file that is not needed any more; if it can't be, it takes room and nothing else.
fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("the file {} was not removed: {error}", path.display());
        }
        _ => {}
    }
}

/// The epoch of a file, if its name is one that this guardian gives.
fn epoch_of(path: &Path) -> Option<u64> {
    let (stem, kind) = path.file_name()?.to_str()?.split_once('.')?;
    let epoch: u64 = stem.parse().ok()?;
    (["pairs", "manifest", "part", "new"].contains(&kind) && epoch.to_string() == stem).then_some(epoch)
}

/// The snapshots that are whole. What is left of others goes; what this guardian hasn't made stays, and is in nobody's way.
fn find(folder: &Path) -> io::Result<BTreeMap<u64, Manifest>> {
    let mut found = BTreeMap::new();
    if !folder.exists() {
        return Ok(found);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        match epoch_of(&path).filter(|_| entry.file_type().is_ok_and(|kind| kind.is_file())) {
            Some(epoch) => files.push((epoch, path)),
            None => tracing::warn!("{} is no file of a snapshot: it is left alone", path.display()),
        }
    }
    for epoch in
        files.iter().filter(|(epoch, path)| *path == manifest(folder, *epoch)).map(|(epoch, _)| *epoch)
    {
        match read_manifest(folder, epoch) {
            Ok(read) => drop(found.insert(epoch, read)),
            Err(error) => tracing::warn!("the snapshot of epoch {epoch} is not whole: {error}"),
        }
    }
    let known = |(epoch, path): &&(u64, PathBuf)| {
        found.contains_key(epoch) && (*path == pairs(folder, *epoch) || *path == manifest(folder, *epoch))
    };
    files.iter().filter(|file| !known(file)).for_each(|(_, path)| remove(path));
    Ok(found)
}

fn read_manifest(folder: &Path, epoch: u64) -> io::Result<Manifest> {
    let mut bytes = Vec::new();
    // Not more than can be one.
    let file = File::open(manifest(folder, epoch))?;
    file.take(MAX_MANIFEST as u64 + 1).read_to_end(&mut bytes)?;
    let read = Manifest::from_bytes(&bytes).map_err(io::Error::other)?;
    if fs::metadata(pairs(folder, epoch))?.len() != read.size {
        return Err(io::Error::other("its pairs are not all there"));
    }
    Ok(read)
}

/// Gives a complete stream its name, then a manifest; both survive a power cut when this returns.
fn publish(folder: &Path, part: &Path, read: &Manifest) -> io::Result<()> {
    let header = read.header().ok_or_else(|| io::Error::other("a manifest without a header"))?;
    fs::rename(part, pairs(folder, header.epoch))?;
    let temporary = folder.join(format!("{}.new", header.epoch));
    let mut file = File::create(&temporary)?;
    file.write_all(&read.to_bytes())?;
    file.sync_all()?;
    File::open(folder)?.sync_all()?;
    fs::rename(temporary, manifest(folder, header.epoch))?;
    File::open(folder)?.sync_all()
}

/// A stream that is being written.
struct Stream {
    file: File,
    chunk: Vec<u8>,
    chunks: Vec<[u8; 32]>,
    size: u64,
    sums: LtHash,
    /// More chunks than these can't be handed on.
    most: usize,
}

impl Stream {
    fn create(path: &Path, most: usize) -> io::Result<Self> {
        let file = File::create(path)?;
        Ok(Self { file, chunk: Vec::new(), chunks: Vec::new(), size: 0, sums: LtHash::default(), most })
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.sums.insert(key, value);
        put_pair(&mut self.chunk, key, value);
        while self.chunk.len() >= CHUNK {
            let rest = self.chunk.split_off(CHUNK);
            self.write()?;
            self.chunk = rest;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        if self.chunks.len() >= self.most {
            return Err(io::Error::other(format!(
                "the state has more than {} MiB, which no other guardian could fetch; the last snapshots and all \
                 epochs since are kept",
                self.most.saturating_mul(CHUNK) >> 20
            )));
        }
        self.file.write_all(&self.chunk)?;
        self.chunks.push(sha256::Hash::hash(&self.chunk).to_byte_array());
        self.size = self.size.saturating_add(self.chunk.len() as u64);
        Ok(())
    }

    fn finish(mut self) -> io::Result<(u64, Vec<[u8; 32]>, [u8; 32])> {
        if !self.chunk.is_empty() {
            self.write()?;
        }
        self.file.sync_all()?;
        Ok((self.size, self.chunks, self.sums.digest()))
    }
}

//! A file of key-value batches: each is there as a whole or not at all.
//!
//! Appended and `fdatasync`ed once a batch. A batch is its length (4 bytes, little-endian), the
//! first 8 bytes of the SHA-256 of its body, and its body: borsh of `Vec<(String, Option<Vec<u8>>)>`,
//! `None` deleting the key. A torn last batch was never acknowledged and is cut off. The file is
//! written anew when most of it is history.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bitcoin::hashes::{Hash as _, sha256};

use super::seed::sync_parent;

/// First bytes of the file: what it is, and the version of its format.
const MAGIC: &[u8; 16] = b"cln-fed ldk log1";
/// Length and checksum.
const HEADER: usize = 12;
/// Below this size, history does not matter.
const COMPACT_FROM: u64 = 16 << 20;

/// What a batch changes: values to write, and keys to delete (`None`).
pub(super) type Batch = BTreeMap<String, Option<Vec<u8>>>;

/// The open file and what it holds.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// Bytes in the file.
    size: u64,
    /// Bytes of current keys and values.
    live: u64,
    values: BTreeMap<String, Vec<u8>>,
}

impl Log {
    /// Opens or creates the file.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut log = Log { path: path.to_path_buf(), file, size: 0, live: 0, values: BTreeMap::new() };
        if bytes.len() < MAGIC.len() && MAGIC.starts_with(&bytes) {
            // New, or torn while it was made: nothing was ever acknowledged.
            log.rewrite()?;
            return Ok(log);
        }
        let Some(mut rest) = bytes.strip_prefix(MAGIC.as_slice()) else {
            return Err(invalid("not a log of this version"));
        };
        log.size = MAGIC.len() as u64;
        while let Some((batch, length, tail)) = next_batch(rest) {
            log.apply(batch);
            log.size += length;
            rest = tail;
        }
        if !rest.is_empty() {
            tracing::warn!(bytes = rest.len(), "cut a torn commit off the log");
            log.file.set_len(log.size)?;
            log.file.sync_all()?;
        }
        drop(bytes);
        log.rewrite_if_worth()?;
        Ok(log)
    }

    /// A current value.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.values.get(key).map(Vec::as_slice)
    }

    /// Keys and values whose key begins with `prefix`.
    pub fn scan<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.values
            .range(prefix.to_owned()..)
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.as_str(), value.as_slice()))
    }

    /// Makes a batch durable. After an error the file may hold it or not: don't go on.
    pub fn commit(&mut self, batch: Batch) -> std::io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let frame = frame(&batch)?;
        // Not by append mode: a failed write must not leave a hole before the next one.
        write_at(&mut self.file, self.size, &frame)?;
        self.size += frame.len() as u64;
        self.apply(batch);
        self.rewrite_if_worth()
    }

    fn apply(&mut self, batch: Batch) {
        for (key, value) in batch {
            let new = value.as_ref().map_or(0, |value| (key.len() + value.len()) as u64);
            let old = match value {
                Some(value) => self.values.insert(key.clone(), value),
                None => self.values.remove(&key),
            };
            let old = old.map_or(0, |old| (key.len() + old.len()) as u64);
            self.live = (self.live + new).saturating_sub(old);
        }
    }

    fn rewrite_if_worth(&mut self) -> std::io::Result<()> {
        if self.size > COMPACT_FROM && self.size / 4 > self.live { self.rewrite() } else { Ok(()) }
    }

    /// Writes the current values to a new file that takes this one's name.
    fn rewrite(&mut self) -> std::io::Result<()> {
        let new_path = self.path.with_extension("new");
        let mut new = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new_path)?;
        new.write_all(MAGIC)?;
        let mut size = MAGIC.len() as u64;
        for (key, value) in &self.values {
            let one = Batch::from([(key.clone(), Some(value.clone()))]);
            let frame = frame(&one)?;
            new.write_all(&frame)?;
            size += frame.len() as u64;
        }
        new.sync_all()?;
        std::fs::rename(&new_path, &self.path)?;
        sync_parent(&self.path)?;
        self.file = new;
        self.size = size;
        Ok(())
    }
}

fn write_at(file: &mut File, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    file.write_all_at(bytes, offset)?;
    file.sync_data()
}

fn frame(batch: &Batch) -> std::io::Result<Vec<u8>> {
    let pairs: Vec<_> = batch.iter().collect();
    let body = borsh::to_vec(&pairs)?;
    let length = u32::try_from(body.len()).map_err(|_| invalid("a commit over 4 GiB"))?;
    let mut frame = Vec::with_capacity(HEADER + body.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend(sha256::Hash::hash(&body).as_byte_array().iter().take(8));
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// The first batch of `bytes`, its length in the file, and what follows; `None` if it is torn.
fn next_batch(bytes: &[u8]) -> Option<(Batch, u64, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let (body, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    if !sha256::Hash::hash(body).as_byte_array().starts_with(sum) {
        return None;
    }
    let pairs: Vec<(String, Option<Vec<u8>>)> = borsh::from_slice(body).ok()?;
    Some((pairs.into_iter().collect(), (HEADER + body.len()) as u64, rest))
}

fn invalid(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, value: Option<&[u8]>) -> Batch {
        Batch::from([(key.to_owned(), value.map(<[u8]>::to_vec))])
    }

    #[test]
    fn keeps_what_was_committed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::open(&path).unwrap();
        log.commit(one("a/1", Some(b"x"))).unwrap();
        log.commit(one("a/2", Some(b"y"))).unwrap();
        log.commit(one("b", Some(b"z"))).unwrap();
        log.commit(one("a/1", None)).unwrap();
        drop(log);
        let log = Log::open(&path).unwrap();
        assert_eq!(log.get("a/1"), None);
        assert_eq!(log.scan("a/").collect::<Vec<_>>(), [("a/2", b"y".as_slice())]);
        assert_eq!(log.get("b"), Some(b"z".as_slice()));
    }

    #[test]
    fn a_commit_torn_at_any_byte_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::open(&path).unwrap();
        log.commit(one("k", Some(b"old"))).unwrap();
        let before = log.size;
        log.commit(one("k", Some(b"new"))).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for end in before as usize..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            let mut log = Log::open(&path).unwrap();
            assert_eq!(log.get("k"), Some(b"old".as_slice()), "cut at {end}");
            log.commit(one("k", Some(b"next"))).unwrap();
            assert_eq!(Log::open(&path).unwrap().get("k"), Some(b"next".as_slice()));
        }
    }

    #[test]
    fn history_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::open(&path).unwrap();
        for round in 0..40_u8 {
            log.commit(one("k", Some(&vec![round; 1 << 20]))).unwrap();
        }
        assert!(log.size < COMPACT_FROM + (4 << 20), "{}", log.size);
        assert_eq!(Log::open(&path).unwrap().get("k"), Some(vec![39; 1 << 20].as_slice()));
    }

    #[test]
    fn another_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "something else entirely").unwrap();
        assert!(Log::open(&path).is_err());
    }
}

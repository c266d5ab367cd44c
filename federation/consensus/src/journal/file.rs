//! The journal on disk: a folder of append-only segments.
//!
//! A record is `length u32 · checksum (8 bytes of SHA-256) · record`. A segment that has grown large is closed
//! and a new one begun; closed segments are deleted when all their epochs are done with. Before that, the
//! first epoch that is still whole is written down: replaying half of an epoch's inputs could make
//! the engine contradict what it said on all of them. A crash can
//! tear the last records of the last segment only: they are cut off, since nothing that followed
//! from them was sent. If it was damage after all, the others tell (amnesia rule). A bad record in
//! a closed segment is an error.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{Journal, Record};

const SEGMENT: u64 = 4 << 20;
const HEAD: usize = 4 + 8;
const VOICE: &str = "speaks-from";
const BASE: &str = "first-epoch";

#[derive(Debug)]
struct Segment {
    number: u64,
    /// The highest epoch in it.
    highest: Option<u64>,
}

/// A journal in a folder of its own.
#[derive(Debug)]
pub struct FileJournal {
    folder: PathBuf,
    closed: Vec<Segment>,
    current: Segment,
    file: File,
    size: u64,
    /// Epochs below may be incomplete here.
    base: u64,
}

impl FileJournal {
    /// Opens the journal in `folder`, which is made if it isn't there.
    ///
    /// # Errors
    /// The file system's; `InvalidData` if a segment other than the last is damaged.
    pub fn open(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder)?;
        let mut numbers: Vec<u64> = fs::read_dir(&folder)?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".journal")?.parse().ok())
            .collect();
        numbers.sort_unstable();
        let last = numbers.pop().unwrap_or(0);
        let mut closed = Vec::new();
        for number in numbers {
            let (records, torn) = read(&folder, number)?;
            if torn.is_some() {
                let what = format!(
                    "journal segment {number} in {} is damaged. Look after the disk, then move the folder away: \
                     with a new journal the guardian asks the others what it has said",
                    folder.display()
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            closed.push(Segment { number, highest: records.iter().map(Record::epoch).max() });
        }
        let file = segment(&folder, last, false)?;
        let (records, torn) = read(&folder, last)?;
        if let Some(whole) = torn {
            tracing::warn!(segment = last, "the journal's last record is torn; dropping it");
            file.set_len(whole)?;
        }
        file.sync_all()?;
        sync_folder(&folder)?;
        let size = file.metadata()?.len();
        let current = Segment { number: last, highest: records.iter().map(Record::epoch).max() };
        let base = read_number(&folder, BASE)?.unwrap_or(0);
        Ok(Self { folder, closed, current, file, size, base })
    }
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016}.journal"))
}

/// Opens a segment for appending. What guardians say to each other is nobody else's business.
fn segment(folder: &Path, number: u64, new: bool) -> io::Result<File> {
    OpenOptions::new().create(true).create_new(new).append(true).mode(0o600).open(path(folder, number))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn checksum(record: &[u8]) -> [u8; 8] {
    Sha256::digest(record).first_chunk::<8>().copied().unwrap_or_default()
}

/// A segment's records, and where the whole ones end if something else follows.
fn read(folder: &Path, number: u64) -> io::Result<(Vec<Record>, Option<u64>)> {
    let bytes = Bytes::from(fs::read(path(folder, number))?);
    let mut records = Vec::new();
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        let Some(record) = next(&mut rest) else {
            return Ok((records, Some((bytes.len() - rest.len()) as u64)));
        };
        records.push(record);
    }
    Ok((records, None))
}

/// Takes one whole record off `rest`, or leaves it as it is.
fn next(rest: &mut Bytes) -> Option<Record> {
    let len = u32::from_be_bytes(*rest.first_chunk::<4>()?) as usize;
    let end = HEAD.checked_add(len)?;
    let sum = rest.get(4..HEAD)?;
    let body = rest.get(HEAD..end)?;
    if checksum(body) != sum {
        return None;
    }
    let record = Record::decode(rest.slice(HEAD..end)).ok()?;
    *rest = rest.split_off(end);
    Some(record)
}

impl Journal for FileJournal {
    fn replay(&mut self) -> io::Result<Vec<Record>> {
        let mut all = Vec::new();
        for segment in self.closed.iter().chain([&self.current]) {
            all.extend(read(&self.folder, segment.number)?.0);
        }
        all.retain(|record| record.epoch() >= self.base);
        Ok(all)
    }

    fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let size = records.iter().map(|record| HEAD + record.size()).sum();
        let mut buffer = Vec::with_capacity(size);
        for record in records {
            let start = buffer.len();
            buffer.extend_from_slice(&[0; HEAD]);
            record.encode(&mut buffer);
            let (_, written) = buffer.split_at_mut(start);
            if let Some((head, body)) = written.split_first_chunk_mut::<HEAD>() {
                let len = u32::try_from(body.len()).map_err(io::Error::other)?.to_be_bytes();
                let sum = checksum(body);
                head.iter_mut().zip(len.into_iter().chain(sum)).for_each(|(to, from)| *to = from);
            }
            self.current.highest = self.current.highest.max(Some(record.epoch()));
        }
        self.file.write_all(&buffer)?;
        self.file.sync_data()?;
        self.size += buffer.len() as u64;
        if self.size >= SEGMENT {
            let number = self.current.number + 1;
            self.file = segment(&self.folder, number, true)?;
            sync_folder(&self.folder)?;
            self.size = 0;
            self.closed.push(std::mem::replace(&mut self.current, Segment { number, highest: None }));
        }
        Ok(())
    }

    fn truncate(&mut self, epoch: u64) -> io::Result<()> {
        if self.closed.first().is_some_and(|segment| segment.highest < Some(epoch)) {
            write_number(&self.folder, BASE, epoch)?;
            self.base = epoch;
        }
        // From the front only, and up to the first that is still needed.
        while self.closed.first().is_some_and(|segment| segment.highest < Some(epoch)) {
            let segment = self.closed.remove(0);
            fs::remove_file(path(&self.folder, segment.number))?;
        }
        Ok(())
    }

    fn speaks_from(&mut self) -> io::Result<Option<u64>> {
        read_number(&self.folder, VOICE)
    }

    fn set_speaks_from(&mut self, epoch: u64) -> io::Result<()> {
        write_number(&self.folder, VOICE, epoch)
    }
}

fn read_number(folder: &Path, name: &str) -> io::Result<Option<u64>> {
    match fs::read_to_string(folder.join(name)) {
        Ok(text) => text.trim().parse().map(Some).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces a number, durably and at once.
fn write_number(folder: &Path, name: &str, number: u64) -> io::Result<()> {
    let temporary = folder.join(format!("{name}.new"));
    let mut file = File::create(&temporary)?;
    writeln!(file, "{number}")?;
    file.sync_all()?;
    fs::rename(temporary, folder.join(name))?;
    sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(epoch: u64, len: usize) -> Record {
        Record::Frame { epoch, from: 3, frame: vec![epoch as u8; len].into() }
    }

    #[test]
    fn records_come_back_and_a_torn_tail_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let records = vec![
            frame(1, 10),
            Record::Proposal { epoch: 2, value: Bytes::from_static(b"mine") },
            frame(2, 0),
        ];
        FileJournal::open(folder.path()).unwrap().append(&records).unwrap();
        let file = path(folder.path(), 0);
        let whole = fs::read(&file).unwrap();
        for cut in 1..HEAD {
            fs::write(&file, &whole[..whole.len() - cut]).unwrap();
            let mut journal = FileJournal::open(folder.path()).unwrap();
            assert_eq!(journal.replay().unwrap(), records[..2]);
            journal.append(&records[2..]).unwrap();
            assert_eq!(FileJournal::open(folder.path()).unwrap().replay().unwrap(), records);
        }
    }

    #[test]
    fn old_epochs_are_deleted_by_segment() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = FileJournal::open(folder.path()).unwrap();
        for epoch in 0..6 {
            journal.append(&[frame(epoch, 3 << 20)]).unwrap();
        }
        // Epochs 0 and 1 share a segment, as do 2 and 3: the latter's goes when both are done with.
        journal.truncate(2).unwrap();
        let left = FileJournal::open(folder.path()).unwrap().replay().unwrap();
        assert_eq!(left.iter().map(Record::epoch).collect::<Vec<_>>(), [2, 3, 4, 5]);
        journal.truncate(3).unwrap();
        journal.append(&[frame(2, 1)]).unwrap();
        journal.truncate(5).unwrap();
        // The late record of epoch 2 is all that is left of it, so it isn't replayed.
        let left = FileJournal::open(folder.path()).unwrap().replay().unwrap();
        assert!(left.iter().all(|record| record.epoch() >= 4), "{:?}", left.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_damaged_segment_gives_a_part_of_its_records_or_an_error(at in 0usize..400, with: u8, closed: bool) {
            let folder = tempfile::tempdir().unwrap();
            let records: Vec<_> = (0..6).map(|epoch| frame(epoch, 40)).collect();
            FileJournal::open(folder.path()).unwrap().append(&records).unwrap();
            let file = path(folder.path(), 0);
            let mut bytes = fs::read(&file).unwrap();
            let at = at % bytes.len();
            let damaged = bytes[at] != with;
            bytes[at] = with;
            fs::write(&file, &bytes).unwrap();
            if closed {
                fs::write(path(folder.path(), 1), []).unwrap();
                prop_assert_eq!(FileJournal::open(folder.path()).is_err(), damaged);
            } else {
                let left = FileJournal::open(folder.path()).unwrap().replay().unwrap();
                prop_assert!(records.starts_with(&left) && (left.len() < records.len()) == damaged);
            }
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let folder = tempfile::tempdir().unwrap();
            fs::write(path(folder.path(), 0), bytes).unwrap();
            let _ = FileJournal::open(folder.path()).unwrap().replay().unwrap();
        }
    }

    #[test]
    fn what_may_be_said_is_settled_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = FileJournal::open(folder.path()).unwrap();
        assert_eq!(journal.speaks_from().unwrap(), None);
        journal.set_speaks_from(17).unwrap();
        assert_eq!(FileJournal::open(folder.path()).unwrap().speaks_from().unwrap(), Some(17));
    }
}

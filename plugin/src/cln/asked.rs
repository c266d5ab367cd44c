//! Which payments `xpay` was asked for: one for each payment hash, for ever.
//!
//! lightningd's own records are no proof that a payment was never begun: `delpay` and autoclean remove them, and a second
//! `xpay` would pay again. So each hash is written down here, on disk, before the first `xpay`, and no second one follows.
//! What has become of it is written too as soon as it is proved, so that no cleaning can change it later.
//!
//! The file is a log of lines with checksums. A torn last line is what a crash leaves of a row that nobody has acted on,
//! and is dropped; any other damage is an error.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::checked::{line, lines};

/// A row is kept this long after its invoice has expired, in seconds: neither gateway nor `xpay` pays an expired invoice.
pub const KEPT_SECONDS: u64 = 180 * 24 * 3600;

/// What was known when `xpay` was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// What is paid.
    #[serde(with = "hex::serde")]
    pub payment_hash: [u8; 32],
    /// When, in seconds since 1970.
    pub at: u64,
    /// Until when `xpay` may begin something by itself, with a margin.
    pub until: u64,
    /// When the invoice expires.
    pub expires_at: u64,
    /// lightningd had no row of this hash before.
    pub fresh: bool,
    /// The number of lightningd's last row before, of any hash: it numbers them without gaps, and removed ones leave one.
    /// `None` if it can't tell.
    pub last_row: Option<u64>,
}

/// What has become of a payment, as it was proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// Paid.
    Paid {
        /// The proof.
        #[serde(with = "hex::serde")]
        preimage: [u8; 32],
        /// What routing cost, in msat.
        fee_msat: u64,
    },
    /// Every HTLC of it failed, or there was none.
    Failed {
        /// What `xpay` said.
        reason: String,
    },
}

/// All that the file says about a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// How it began.
    pub asked: Asked,
    /// How it ended, once that is proved.
    pub outcome: Option<Outcome>,
}

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "op")]
enum Line {
    Asked(Asked),
    Ended {
        #[serde(with = "hex::serde")]
        payment_hash: [u8; 32],
        #[serde(flatten)]
        outcome: Outcome,
    },
}

/// Why the file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AskedError {
    /// The disk.
    #[error("cannot use {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A line other than the last does not check.
    #[error(
        "{path} is damaged at line {line}: it says which payments were begun, and without it one could be made twice; restore it from a copy of the disk"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first line that does not check.
        line: usize,
    },
    /// There is a gateway's data, but not this.
    #[error(
        "{0} is missing: it says which payments were begun, and without it one could be made twice; restore it from a copy of the disk, or make an empty file if no payment was under way"
    )]
    Missing(PathBuf),
    /// A write has failed, so nobody knows what is on disk.
    #[error("{0} could not be written: nothing more is paid until the gateway is started again")]
    Broken(PathBuf),
}

/// The open file. Every write is on disk when it returns. Its users are one process at a time.
#[derive(Debug)]
pub struct AskedFile {
    path: PathBuf,
    records: Mutex<HashMap<[u8; 32], Record>>,
    /// Held during writes; `None` after one that failed.
    file: Mutex<Option<File>>,
}

impl AskedFile {
    /// Reads the file. If there is none it is made, or with `must_exist` is an error. Rows that can't matter any more go.
    pub fn open(path: &Path, now: u64, must_exist: bool) -> Result<Self, AskedError> {
        let io = |source| AskedError::Io { path: path.to_owned(), source };
        let text = match fs::read(path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound && must_exist => {
                return Err(AskedError::Missing(path.to_owned()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io(error)),
        };
        let written = text.as_deref().unwrap_or_default();
        let damaged = |line| AskedError::Damaged { path: path.to_owned(), line };
        let (parsed, length) = lines(written).map_err(damaged)?;
        let mut records = replay(parsed).map_err(damaged)?;
        let before = records.len();
        // A clock that is ahead must not make them old: what was asked last is no later than now.
        let newest = records.values().map(|record| record.asked.at).max().unwrap_or_default();
        let now = now.min(newest);
        records.retain(|_, record| !is_over(&record.asked, now));
        // Nothing is copied without need: what stays in place can't be lost on the way.
        let file = if text.is_none() || records.len() < before {
            rewrite(path, &records)
        } else {
            reopen(path, length)
        };
        let file = Mutex::new(Some(file.map_err(io)?));
        Ok(Self { path: path.to_owned(), records: Mutex::new(records), file })
    }

    /// What is written about a payment.
    pub fn get(&self, payment_hash: &[u8; 32]) -> Option<Record> {
        self.records().get(payment_hash).cloned()
    }

    /// Writes that `xpay` is about to be asked; `false` if it was before, and must not be again. Waits for the disk.
    pub fn ask(&self, asked: Asked) -> Result<bool, AskedError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if self.records().contains_key(&asked.payment_hash) {
            return Ok(false);
        }
        self.append(&mut file, &Line::Asked(asked.clone()))?;
        self.records().insert(asked.payment_hash, Record { asked, outcome: None });
        Ok(true)
    }

    /// Writes what is proved; the first proof stays. Waits for the disk.
    pub fn end(&self, payment_hash: [u8; 32], outcome: Outcome) -> Result<(), AskedError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if self.get(&payment_hash).is_none_or(|record| record.outcome.is_some()) {
            return Ok(());
        }
        self.append(&mut file, &Line::Ended { payment_hash, outcome: outcome.clone() })?;
        if let Some(record) = self.records().get_mut(&payment_hash) {
            record.outcome = Some(outcome);
        }
        Ok(())
    }

    /// After a failure nothing is known about the end of the file, and a later `fsync` may lie: it is not used again.
    fn append(&self, file: &mut Option<File>, row: &Line) -> Result<(), AskedError> {
        let mut open = file.take().ok_or_else(|| AskedError::Broken(self.path.clone()))?;
        let done = open.write_all(&line(row)).and_then(|()| open.sync_data());
        done.map_err(|source| AskedError::Io { path: self.path.clone(), source })?;
        *file = Some(open);
        Ok(())
    }

    fn records(&self) -> MutexGuard<'_, HashMap<[u8; 32], Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_over(asked: &Asked, now: u64) -> bool {
    let last = asked.at.max(asked.until).max(asked.expires_at);
    now > last.saturating_add(KEPT_SECONDS)
}

/// The records of all lines, or the number of the first that can't be where it is.
fn replay(parsed: Vec<Line>) -> Result<HashMap<[u8; 32], Record>, usize> {
    let mut records = HashMap::new();
    for (at, row) in parsed.into_iter().enumerate() {
        match row {
            Line::Asked(asked) => match records.entry(asked.payment_hash) {
                Slot::Vacant(slot) => {
                    slot.insert(Record { asked, outcome: None });
                }
                Slot::Occupied(_) => return Err(at + 1),
            },
            Line::Ended { payment_hash, outcome } => {
                records.get_mut(&payment_hash).ok_or(at + 1)?.outcome = Some(outcome);
            }
        }
    }
    Ok(records)
}

/// Opens the file behind its last whole line.
fn reopen(path: &Path, length: usize) -> io::Result<File> {
    let file = OpenOptions::new().append(true).open(path)?;
    let length = length as u64;
    if file.metadata()?.len() != length {
        file.set_len(length)?;
    }
    // What an earlier process wrote and did not see confirmed counts from now on.
    file.sync_all()?;
    Ok(file)
}

fn rewrite(path: &Path, records: &HashMap<[u8; 32], Record>) -> io::Result<File> {
    let draft = path.with_extension("new");
    // It holds preimages.
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    let mut sorted: Vec<_> = records.values().collect();
    sorted.sort_by_key(|record| record.asked.at);
    for record in sorted {
        file.write_all(&line(&Line::Asked(record.asked.clone())))?;
        if let Some(outcome) = record.outcome.clone() {
            let payment_hash = record.asked.payment_hash;
            file.write_all(&line(&Line::Ended { payment_hash, outcome }))?;
        }
    }
    file.sync_all()?;
    fs::rename(&draft, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    OpenOptions::new().append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(hash: u8, at: u64) -> Asked {
        let payment_hash = [hash; 32];
        Asked { payment_hash, at, until: at + 180, expires_at: at + 3600, fresh: true, last_row: Some(4) }
    }

    fn open(path: &Path) -> AskedFile {
        AskedFile::open(path, u64::MAX, false).unwrap()
    }

    const PAID: Outcome = Outcome::Paid { preimage: [9; 32], fee_msat: 3 };

    #[test]
    fn it_is_asked_once_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("asked");
        let file = open(&path);
        assert_eq!(file.get(&[1; 32]), None);
        assert!(file.ask(asked(1, 5)).unwrap());
        assert!(!file.ask(asked(1, 6)).unwrap());
        assert!(file.ask(asked(2, 7)).unwrap());
        file.end([2; 32], PAID).unwrap();
        file.end([2; 32], Outcome::Failed { reason: "late".into() }).unwrap();
        // Of what was never asked there is no end.
        file.end([3; 32], PAID).unwrap();
        drop(file);
        for _ in 0..2 {
            let file = open(&path);
            assert_eq!(file.get(&[1; 32]), Some(Record { asked: asked(1, 5), outcome: None }));
            assert_eq!(file.get(&[2; 32]), Some(Record { asked: asked(2, 7), outcome: Some(PAID) }));
            assert_eq!(file.get(&[3; 32]), None);
            assert!(!file.ask(asked(1, 8)).unwrap());
        }
    }

    #[test]
    fn every_torn_end_is_survived_and_other_damage_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("asked");
        let file = open(&path);
        file.ask(asked(1, 5)).unwrap();
        let first = fs::read(&path).unwrap().len();
        file.ask(asked(2, 5)).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in first..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let file = open(&path);
            assert!(file.get(&[1; 32]).is_some() && file.get(&[2; 32]).is_none(), "{length}");
            // What follows is readable.
            assert!(file.ask(asked(3, 5)).unwrap());
            drop(file);
            assert!(open(&path).get(&[3; 32]).is_some(), "{length}");
        }
        for at in 0..whole.len() - 1 {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            let error = AskedFile::open(&path, 0, false).unwrap_err();
            assert!(matches!(error, AskedError::Damaged { .. }), "{at}");
            assert!(error.to_string().contains("damaged at line"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), damaged, "it is left for people to look at");
        }
        // A row twice, and an end without a beginning.
        fs::write(&path, [&whole[..], &whole[..]].concat()).unwrap();
        assert!(matches!(AskedFile::open(&path, 0, false), Err(AskedError::Damaged { line: 3, .. })));
        fs::write(&path, line(&Line::Ended { payment_hash: [1; 32], outcome: PAID })).unwrap();
        assert!(matches!(AskedFile::open(&path, 0, false), Err(AskedError::Damaged { line: 1, .. })));
    }

    #[test]
    fn old_rows_go_but_not_by_a_wrong_clock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("asked");
        let file = open(&path);
        file.ask(asked(1, 5)).unwrap();
        drop(file);
        assert!(open(&path).get(&[1; 32]).is_some());
        let file = open(&path);
        file.ask(asked(2, 5 + 3600 + KEPT_SECONDS)).unwrap();
        drop(file);
        assert!(open(&path).get(&[1; 32]).is_some());
        let file = open(&path);
        file.ask(asked(3, 5 + 3601 + KEPT_SECONDS)).unwrap();
        file.end([3; 32], PAID).unwrap();
        drop(file);
        let rows = |file: &AskedFile| [1, 2, 3].map(|hash| file.get(&[hash; 32]).is_some());
        // This clock is behind.
        assert_eq!(rows(&AskedFile::open(&path, 5, false).unwrap()), [true, true, true]);
        assert_eq!(rows(&open(&path)), [false, true, true]);
        let file = AskedFile::open(&path, 5, true).unwrap();
        assert_eq!(rows(&file), [false, true, true]);
        assert_eq!(file.get(&[3; 32]).unwrap().outcome, Some(PAID));
    }

    #[test]
    fn a_lost_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("asked");
        assert!(matches!(AskedFile::open(&path, 0, true), Err(AskedError::Missing(_))));
        fs::write(&path, "").unwrap();
        assert!(AskedFile::open(&path, 0, true).is_ok());
    }

    #[test]
    fn after_a_failed_write_nothing_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("asked");
        let file = open(&path);
        *file.file.lock().unwrap() = Some(File::open(&path).unwrap());
        assert!(matches!(file.ask(asked(1, 5)), Err(AskedError::Io { .. })));
        assert!(matches!(file.ask(asked(1, 5)), Err(AskedError::Broken(_))));
        assert_eq!(file.get(&[1; 32]), None);
    }
}

//! Live payment hashes: what is on disk about each, and the file itself.
//!
//! The file is a log: one line a change, each with a checksum and on disk before anyone acts on it. It is read before
//! `init` is answered, since lightningd asks about held HTLCs again right afterwards. A torn last line is what a crash
//! leaves of a change that nobody has acted on, and is dropped; any other damage is an error.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::request::Part;
use super::resolution::Terms;
use crate::checked::{line, lines};

/// How long a hash is remembered after it can no longer be paid: longer than any HTLC lives (2016 blocks).
pub const KEPT_SECONDS: u64 = 30 * 24 * 3600;

/// An invoice whose preimage this node does not know, or has just learnt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveInvoice {
    /// SHA-256 of the preimage.
    #[serde(with = "hex::serde")]
    pub payment_hash: [u8; 32],
    /// What it asks for, in msat.
    pub amount_msat: u64,
    /// What a payer must show.
    #[serde(with = "hex::serde")]
    pub payment_secret: [u8; 32],
    /// When it expires, in seconds since 1970.
    pub expires_at: u64,
    /// Where it stands.
    pub state: LiveState,
}

/// Where an invoice stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum LiveState {
    /// Waits for HTLCs.
    Open,
    /// A complete set has come: these HTLCs, and no others, pay it. They may be funded.
    Held {
        /// The set.
        parts: Vec<Part>,
    },
    /// The preimage is known: these HTLCs are claimed whenever lightningd asks.
    Settled {
        /// The preimage.
        #[serde(with = "hex::serde")]
        preimage: [u8; 32],
        /// The set.
        parts: Vec<Part>,
        /// When, in seconds since 1970.
        at: u64,
    },
}

impl LiveInvoice {
    /// What a payment must bring.
    pub fn terms(&self) -> Terms {
        Terms { amount_msat: self.amount_msat, payment_secret: self.payment_secret }
    }

    /// Whether no HTLC can be asked about any more.
    fn is_over(&self, now: u64) -> bool {
        let since = match self.state {
            LiveState::Settled { at, .. } => at.max(self.expires_at),
            _ => self.expires_at,
        };
        now > since.saturating_add(KEPT_SECONDS)
    }
}

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "op")]
enum Change {
    Put(Box<LiveInvoice>),
    Remove {
        #[serde(with = "hex::serde")]
        payment_hash: [u8; 32],
    },
}

/// Why the file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
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
        "{path} is damaged at line {line}: restore it from a copy of the disk; payments may be held by it"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first line that does not check.
        line: usize,
    },
}

/// The open file. Every write is on disk when it returns.
#[derive(Debug)]
pub struct LiveFile {
    path: PathBuf,
    file: File,
}

impl LiveFile {
    /// Reads the file, making it if there is none, and writes it anew without what is over.
    pub fn open(path: &Path, now: u64) -> Result<(Self, Vec<LiveInvoice>), LiveError> {
        let io = |source| LiveError::Io { path: path.to_owned(), source };
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(io(error)),
        };
        let mut invoices =
            replay(&text).map_err(|line| LiveError::Damaged { path: path.to_owned(), line })?;
        invoices.retain(|_, invoice| !invoice.is_over(now));
        let invoices: Vec<_> = invoices.into_values().collect();
        let file = rewrite(path, &invoices).map_err(io)?;
        Ok((Self { path: path.to_owned(), file }, invoices))
    }

    /// Puts an invoice as it stands now.
    pub fn put(&mut self, invoice: &LiveInvoice) -> Result<(), LiveError> {
        self.append(&Change::Put(Box::new(invoice.clone())))
    }

    /// Forgets an invoice.
    pub fn remove(&mut self, payment_hash: [u8; 32]) -> Result<(), LiveError> {
        self.append(&Change::Remove { payment_hash })
    }

    fn append(&mut self, change: &Change) -> Result<(), LiveError> {
        let before = self.file.metadata().map(|data| data.len());
        let done = self.file.write_all(&line(change)).and_then(|()| self.file.sync_data());
        done.map_err(|source| {
            // Half a line in the middle would make the file unreadable: a later line must not follow it.
            if let Ok(length) = before {
                let _ = self.file.set_len(length);
            }
            LiveError::Io { path: self.path.clone(), source }
        })
    }
}

fn rewrite(path: &Path, invoices: &[LiveInvoice]) -> io::Result<File> {
    let draft = path.with_extension("new");
    let mut file = File::create(&draft)?;
    for invoice in invoices {
        file.write_all(&line(&Change::Put(Box::new(invoice.clone()))))?;
    }
    file.sync_all()?;
    fs::rename(&draft, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    OpenOptions::new().append(true).open(path)
}

/// The state after all lines, or the number of the first damaged one.
fn replay(text: &[u8]) -> Result<BTreeMap<[u8; 32], LiveInvoice>, usize> {
    let mut invoices = BTreeMap::new();
    for change in lines(text)?.0 {
        match change {
            Change::Put(invoice) => invoices.insert(invoice.payment_hash, *invoice),
            Change::Remove { payment_hash } => invoices.remove(&payment_hash),
        };
    }
    Ok(invoices)
}

#[cfg(test)]
mod tests {
    use super::super::request::HtlcKey;
    use super::*;

    fn invoice(hash: u8, state: LiveState) -> LiveInvoice {
        LiveInvoice {
            payment_hash: [hash; 32],
            amount_msat: 5,
            payment_secret: [1; 32],
            expires_at: 1000,
            state,
        }
    }

    fn part() -> Part {
        Part { key: HtlcKey { channel: "1x2x3".into(), id: 4 }, amount_msat: 5, cltv_expiry: 6 }
    }

    #[test]
    fn it_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("live");
        let (mut file, invoices) = LiveFile::open(&path, 0).unwrap();
        assert!(invoices.is_empty());
        file.put(&invoice(1, LiveState::Open)).unwrap();
        file.put(&invoice(2, LiveState::Open)).unwrap();
        file.put(&invoice(1, LiveState::Held { parts: vec![part()] })).unwrap();
        file.remove([2; 32]).unwrap();
        let settled = LiveState::Settled { preimage: [9; 32], parts: vec![part()], at: 7 };
        file.put(&invoice(3, settled.clone())).unwrap();
        for _ in 0..2 {
            let (_, invoices) = LiveFile::open(&path, 0).unwrap();
            let held = invoice(1, LiveState::Held { parts: vec![part()] });
            assert_eq!(invoices, [held, invoice(3, settled.clone())]);
        }
        assert!(LiveFile::open(&path, 1001 + KEPT_SECONDS).unwrap().1.is_empty());
    }

    #[test]
    fn every_torn_end_is_survived_and_other_damage_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("live");
        let (mut file, _) = LiveFile::open(&path, 0).unwrap();
        file.put(&invoice(1, LiveState::Open)).unwrap();
        let first = fs::read(&path).unwrap().len();
        file.put(&invoice(2, LiveState::Open)).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in first..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(LiveFile::open(&path, 0).unwrap().1.len(), 1, "{length}");
        }
        for at in [0, 20, first - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            assert!(matches!(LiveFile::open(&path, 0), Err(LiveError::Damaged { .. })), "{at}");
        }
    }
}

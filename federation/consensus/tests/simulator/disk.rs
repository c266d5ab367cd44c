//! What survives a crash: journal and database.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use federation_consensus::header::Signatures;
use federation_consensus::journal::{Journal, Record};
use federation_consensus::runner::History;
use federation_consensus::{Batch, Bytes, Header};
use sha2::{Digest, Sha256};

use crate::life::{Life, Manner};

pub type TxId = u64;

#[derive(Debug, Clone, Default)]
pub struct JournalDisk {
    pub records: Vec<Record>,
    pub speaks_from: Option<u64>,
}

/// A committed epoch.
#[derive(Debug, Clone)]
pub struct Entry {
    pub header: Header,
    pub signatures: Signatures,
    pub batch: Bytes,
}

#[derive(Debug, Clone, Default)]
pub struct Database {
    pub history: Vec<Entry>,
    /// Transactions that have been applied.
    pub applied: BTreeSet<TxId>,
    pub state: [u8; 32],
    /// Transactions that are to get in.
    pub pool: BTreeMap<TxId, Bytes>,
}

/// A batch applied and not committed yet.
#[derive(Debug)]
pub struct Staged {
    pub header: Header,
    pub batch: Bytes,
    pub new: Vec<TxId>,
}

impl Database {
    pub fn next_epoch(&self) -> u64 {
        self.history.len() as u64
    }

    /// Applies a batch to the state as it will be.
    pub fn stage(&self, batch: &Batch) -> Staged {
        let mut new = Vec::new();
        let mut seen = BTreeSet::new();
        for contribution in batch.contributions.values() {
            // What doesn't decode is nobody's but its proposer's loss.
            for (id, _) in decode(contribution).unwrap_or_default() {
                if !self.applied.contains(&id) && seen.insert(id) {
                    new.push(id);
                }
            }
        }
        let mut state = Sha256::new().chain_update(self.state);
        for id in &new {
            state.update(id.to_be_bytes());
        }
        let header = Header {
            epoch: batch.epoch,
            previous: self.history.last().map_or(Header::GENESIS, |last| last.header.hash()),
            items: batch.items_root(),
            state: state.finalize().into(),
        };
        Staged { header, batch: batch.encode(), new }
    }

    pub fn commit(&mut self, staged: Staged) {
        self.state = staged.header.state;
        for id in staged.new {
            self.applied.insert(id);
            self.pool.remove(&id);
        }
        self.history.push(Entry {
            header: staged.header,
            signatures: Signatures::new(),
            batch: staged.batch,
        });
    }
}

/// A proposal's transactions: `id u64 · length u16 · bytes`, one after another.
pub fn encode(transactions: &[(TxId, Bytes)]) -> Bytes {
    let mut out = Vec::new();
    for (id, bytes) in transactions {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        out.extend_from_slice(bytes);
    }
    out.into()
}

pub fn decode(mut bytes: &[u8]) -> Option<Vec<(TxId, Bytes)>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let (id, rest) = bytes.split_first_chunk::<8>()?;
        let (len, rest) = rest.split_first_chunk::<2>()?;
        let (body, rest) = rest.split_at_checked(u16::from_be_bytes(*len) as usize)?;
        out.push((u64::from_be_bytes(*id), Bytes::copy_from_slice(body)));
        bytes = rest;
    }
    Some(out)
}

#[derive(Debug, Clone, Default)]
pub struct Contents {
    pub journal: JournalDisk,
    pub database: Database,
}

/// Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<Contents>>);

impl Disk {
    pub fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap()
    }
}

/// The journal as one life of a guardian sees it.
pub struct SimJournal {
    pub disk: Disk,
    pub life: Life,
}

impl SimJournal {
    /// Does `write` with so many of the records as the guardian lives to see written.
    fn write(&self, records: usize, write: impl FnOnce(&mut JournalDisk, usize)) -> io::Result<()> {
        let end = self.life.operation();
        let written = match end {
            None | Some(Manner::After) => records,
            Some(Manner::Torn(some)) => some.min(records),
            Some(Manner::Before) => 0,
        };
        if written > 0 {
            write(&mut self.disk.lock().journal, written);
        }
        if end.is_none() { Ok(()) } else { Err(io::Error::other("crashed")) }
    }
}

impl Journal for SimJournal {
    fn replay(&mut self) -> io::Result<Vec<Record>> {
        Ok(self.disk.lock().journal.records.clone())
    }

    fn append(&mut self, records: &[Record]) -> io::Result<()> {
        self.write(records.len(), |journal, count| journal.records.extend_from_slice(&records[..count]))
    }

    fn truncate(&mut self, epoch: u64) -> io::Result<()> {
        self.write(1, |journal, _| journal.records.retain(|record| record.epoch() >= epoch))
    }

    fn speaks_from(&mut self) -> io::Result<Option<u64>> {
        Ok(self.disk.lock().journal.speaks_from)
    }

    fn set_speaks_from(&mut self, epoch: u64) -> io::Result<()> {
        self.write(1, |journal, _| journal.speaks_from = Some(epoch))
    }
}

/// The database as consensus and peers read it.
pub struct View(pub Disk);

#[async_trait]
impl History for View {
    async fn next_epoch(&self) -> io::Result<u64> {
        Ok(self.0.lock().database.next_epoch())
    }

    async fn header(&self, epoch: u64) -> io::Result<Option<(Header, Signatures)>> {
        let contents = self.0.lock();
        let entry = contents.database.history.get(epoch as usize);
        Ok(entry.map(|entry| (entry.header, entry.signatures.clone())))
    }

    async fn batch(&self, epoch: u64) -> io::Result<Option<Bytes>> {
        Ok(self.0.lock().database.history.get(epoch as usize).map(|entry| entry.batch.clone()))
    }

    async fn first_epoch(&self) -> io::Result<u64> {
        Ok(0)
    }
}

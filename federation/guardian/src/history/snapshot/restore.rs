//! A fetched snapshot becomes this guardian's state.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use federation_consensus::header::{Header, Signatures};
use federation_core::db::{Changes, Database, Pair};
use federation_store::WriteBatch;

use super::fetch::blocking;
use super::manifest::read_pair;
use crate::error::GuardianError;
use crate::history::archive::put_signatures;
use crate::history::lthash::LtHash;
use crate::running::next_epoch;
use crate::state::{
    self, DIVERGED, FEDERATION_PREFIXES, FIRST_BATCH, FIRST_HEADER, HEADERS, RESTORE, Restore, SUMS,
};

/// About the most bytes of one commit, and the most keys.
const COMMIT_BYTES: usize = 8 << 20;
const COMMIT_KEYS: usize = 10_000;

/// Why a stream is not the state that a header names.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It isn't.
    #[error("{0}")]
    Wrong(&'static str),
    /// It can't be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads a whole stream and compares it with the header's digest; the sums that the digest is made of.
pub async fn check(path: &Path, header: &Header) -> Result<LtHash, Refused> {
    let (path, state) = (path.to_owned(), header.state);
    let checked = blocking(move || Ok(check_stream(&path, &state)));
    checked.await?
}

fn check_stream(path: &Path, state: &[u8; 32]) -> Result<LtHash, Refused> {
    let mut stream = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut sums = LtHash::default();
    let mut last: Option<Vec<u8>> = None;
    loop {
        let pair = match read_pair(&mut stream) {
            Ok(Some(pair)) => pair,
            Ok(None) => break,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(Refused::Wrong("a key or value is too long"));
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Refused::Wrong("it ends in the middle of a pair"));
            }
            Err(error) => return Err(error.into()),
        };
        if !state::is_agreed(&pair.0) {
            return Err(Refused::Wrong("it holds keys that are not part of the state"));
        }
        // Twice the same pair would be summed twice.
        if last.as_ref().is_some_and(|last| *last >= pair.0) {
            return Err(Refused::Wrong("its keys are out of order"));
        }
        sums.insert(&pair.0, &pair.1);
        last = Some(pair.0);
    }
    if sums.digest() != *state { Err(Refused::Wrong("its digest is not the signed one")) } else { Ok(sums) }
}

/// Puts the state of a checked stream into the database, in place of what was there of the federation. This guardian's own
/// tables stay. A crash in between leaves [`Restore::Writing`] behind, and all begins anew.
pub async fn write(
    db: &Arc<dyn Database>,
    path: PathBuf,
    header: &Header,
    signatures: &Signatures,
    sums: &LtHash,
) -> Result<(), GuardianError> {
    clear(db).await?;
    let mut stream = {
        let open = blocking(move || Ok(BufReader::with_capacity(1 << 20, File::open(path)?)));
        open.await.map_err(GuardianError::io("the snapshot"))?
    };
    loop {
        let read = blocking(move || {
            let page = read_page(&mut stream)?;
            Ok((stream, page))
        });
        let (rest, page) = read.await.map_err(GuardianError::io("the snapshot"))?;
        stream = rest;
        if page.is_empty() {
            break;
        }
        db.commit(page.into_iter().map(|(key, value)| (key, Some(value))).collect()).await?;
    }
    let next = header.epoch.saturating_add(1);
    if next_epoch(db).await? != next {
        // n - f guardians have signed this state: one of them is honest, and would not have.
        return Err(GuardianError::Consensus(format!("the snapshot of epoch {} is not of it", header.epoch)));
    }
    let mut batch = WriteBatch::new(Arc::clone(db));
    SUMS.put(&mut state::local(&mut batch), &(), &sums.to_bytes());
    RESTORE.delete(&mut state::local(&mut batch), &());
    // It is the others' state now.
    DIVERGED.delete(&mut state::local(&mut batch), &());
    let mut history = state::history(&mut batch);
    HEADERS.put(&mut history, &header.epoch, &header.encode());
    put_signatures(&mut history, header.epoch, signatures);
    FIRST_BATCH.put(&mut history, &(), &next);
    FIRST_HEADER.put(&mut history, &(), &header.epoch);
    Ok(batch.commit().await?)
}

/// Removes all that came from the federation, in bounded steps.
pub async fn clear(db: &Arc<dyn Database>) -> Result<(), GuardianError> {
    let mut batch = WriteBatch::new(Arc::clone(db));
    RESTORE.put(&mut state::local(&mut batch), &(), &Restore::Writing);
    SUMS.delete(&mut state::local(&mut batch), &());
    batch.commit().await?;
    for prefix in FEDERATION_PREFIXES {
        loop {
            let page = db.scan(&prefix, None, 1000).await?;
            if page.is_empty() {
                break;
            }
            let changes: Changes = page.into_iter().map(|(key, _)| (key, None)).collect();
            db.commit(changes).await?;
        }
    }
    Ok(())
}

fn read_page(stream: &mut BufReader<File>) -> io::Result<Vec<Pair>> {
    let mut page = Vec::new();
    let mut bytes = 0usize;
    while bytes < COMMIT_BYTES && page.len() < COMMIT_KEYS {
        let Some((key, value)) = read_pair(stream)? else { break };
        bytes = bytes.saturating_add(key.len()).saturating_add(value.len());
        page.push((key, value));
    }
    Ok(page)
}

/// The stream of some pairs, for tests.
#[cfg(test)]
pub(super) fn stream(pairs: &[Pair]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in pairs {
        super::manifest::put_pair(&mut out, key, value);
    }
    out
}

//! The batches of past epochs, cut into pieces.
//!
//! A value that doesn't fit into a page of SQLite gets pages of its own, the last of which is half empty: some 2 kB an epoch, while
//! most batches are not much larger themselves. So what fills whole pages is one piece, and the rest goes in small ones, of which
//! several share a page. Of batches of 2.6 kB that saved 1.5 kB each.

use bytes::Bytes;
use federation_core::db::{DbError, Namespaced, Reader};

use crate::state::BATCHES;

/// A page of the store: piece 0 has a multiple of this, if any.
const PAGE: usize = 4096;
/// The size of the pieces from 1 on; the last may be shorter.
const PIECE: usize = 512;
/// How many pieces a batch has at most.
const PIECES: u8 = 1 + (PAGE / PIECE) as u8;

/// Sets an epoch's batch.
pub(super) fn put(history: &mut Namespaced<'_>, epoch: u64, batch: &[u8]) {
    let (pages, rest) = batch.split_at(batch.len() - batch.len() % PAGE);
    let pieces = (1..PIECES).zip(rest.chunks(PIECE));
    for (piece, bytes) in std::iter::once((0, pages)).chain(pieces).filter(|(_, bytes)| !bytes.is_empty()) {
        BATCHES.put(history, &(epoch, piece), &bytes.to_vec());
    }
}

/// An epoch's batch, if it is (still) there.
pub(super) async fn get(history: &dyn Reader, epoch: u64) -> Result<Option<Bytes>, DbError> {
    let pieces = BATCHES.scan(history, &epoch, None, usize::from(PIECES)).await?;
    let pieces: Vec<_> = pieces.into_iter().map(|(_, bytes)| bytes).collect();
    Ok((!pieces.is_empty()).then(|| pieces.concat().into()))
}

/// Forgets an epoch's batch.
pub(super) fn delete(history: &mut Namespaced<'_>, epoch: u64) {
    for piece in 0..PIECES {
        BATCHES.delete(history, &(epoch, piece));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use federation_store::WriteBatch;

    use super::*;
    use crate::state;

    #[tokio::test]
    async fn a_batch_of_any_size_comes_back_and_goes() {
        let db = federation_store::memory();
        let sizes = [1, 10, 511, 512, 513, 4095, 4096, 4097, 4608, 8191, 8192, 1 << 20, (1 << 20) + 4095];
        let bytes = |size: usize| (0..size).map(|at| (at * 7 + at / 256) as u8).collect::<Vec<_>>();
        let mut batch = WriteBatch::new(Arc::clone(&db));
        for (epoch, size) in (0..).zip(sizes) {
            put(&mut state::history(&mut batch), epoch, &bytes(size));
        }
        batch.commit().await.unwrap();
        let history = state::history_reader(Arc::clone(&db) as _);
        for (epoch, size) in (0..).zip(sizes) {
            assert_eq!(get(&history, epoch).await.unwrap().unwrap(), bytes(size), "{size}");
        }
        assert_eq!(get(&history, 13).await.unwrap(), None);
        let mut batch = WriteBatch::new(Arc::clone(&db));
        for epoch in 0..12 {
            delete(&mut state::history(&mut batch), epoch);
        }
        batch.commit().await.unwrap();
        assert_eq!(get(&history, 11).await.unwrap(), None);
        assert_eq!(get(&history, 12).await.unwrap().unwrap(), bytes((1 << 20) + 4095));
        let left = BATCHES.all(&history).await.unwrap();
        let sizes: Vec<_> = left.into_iter().map(|(key, bytes)| (key, bytes.len())).collect();
        let expected = std::iter::once(((12, 0), 1 << 20)).chain((1..9).map(|piece| ((12, piece), 512)));
        assert_eq!(
            sizes,
            expected.map(|(key, size)| (key, if key.1 == 8 { 511 } else { size })).collect::<Vec<_>>()
        );
    }
}

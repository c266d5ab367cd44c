//! Old epochs are forgotten, a bounded number in each commit.
//!
//! What goes: batches, rejections and headers before the older of the last two signed snapshots. What stays: the last 256 headers, since
//! their signatures may still be asked for; and the header of every snapshot, with its signatures: so an
//! auditor can follow the digests through the years at a few hundred bytes a thousand epochs.

use federation_core::db::DbError;
use federation_store::WriteBatch;

use super::batches;
use crate::state::{
    self, Decided, FIRST_BATCH, FIRST_HEADER, FIRST_REJECTIONS, HEADERS, REJECTED, REJECTIONS, SIGNATURES,
};

/// How many epochs one commit forgets: more than it adds, so that it catches up.
const STEP: u64 = 32;
/// Rejections of so many epochs stay in any case: somebody may still ask.
const REJECTIONS_KEPT: u64 = 1000;
/// Headers that stay in any case.
const HEADERS_KEPT: u64 = 256;

/// Forgets some of what is before `below`; `epoch` is being committed.
pub async fn step(
    db: &mut WriteBatch,
    epoch: u64,
    below: u64,
    is_milestone: impl Fn(u64) -> bool,
) -> Result<(), DbError> {
    let below = below.min(epoch);
    let mut history = state::history(db);
    let first = FIRST_BATCH.get(&history, &()).await?.unwrap_or_default();
    let end = below.min(first.saturating_add(STEP));
    if end > first {
        for gone in first..end {
            batches::delete(&mut history, gone);
        }
        FIRST_BATCH.put(&mut history, &(), &end);
    }
    let first = FIRST_REJECTIONS.get(&history, &()).await?.unwrap_or_default();
    let end = below.min(epoch.saturating_sub(REJECTIONS_KEPT)).min(first.saturating_add(STEP));
    if end > first {
        for gone in first..end {
            for txid in REJECTIONS.get(&history, &gone).await?.unwrap_or_default() {
                // Unless it was rejected once more since.
                if matches!(REJECTED.get(&history, &txid).await?, Some(Decided::Rejected { epoch, .. }) if epoch == gone)
                {
                    REJECTED.delete(&mut history, &txid);
                }
            }
            REJECTIONS.delete(&mut history, &gone);
        }
        FIRST_REJECTIONS.put(&mut history, &(), &end);
    }
    let first = FIRST_HEADER.get(&history, &()).await?.unwrap_or_default();
    let end = below.min(epoch.saturating_sub(HEADERS_KEPT)).min(first.saturating_add(STEP));
    if end > first {
        for gone in (first..end).filter(|gone| !is_milestone(*gone)) {
            HEADERS.delete(&mut history, &gone);
            SIGNATURES.delete(&mut history, &gone);
        }
        FIRST_HEADER.put(&mut history, &(), &end);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use federation_core::TxId;

    use super::*;
    use crate::state::BATCHES;

    #[tokio::test]
    async fn it_goes_in_steps_and_spares_what_is_needed() {
        let db = federation_store::memory();
        for epoch in 0..1600u64 {
            let mut batch = WriteBatch::new(Arc::clone(&db));
            let mut history = state::history(&mut batch);
            batches::put(&mut history, epoch, &[1]);
            HEADERS.put(&mut history, &epoch, &vec![2]);
            SIGNATURES.put(&mut history, &epoch, &Vec::new());
            // One is rejected in every epoch, one in each once.
            let txids = vec![TxId([0; 32]), TxId([u8::try_from(epoch % 250).unwrap() + 1; 32])];
            for txid in &txids {
                let rejected = Decided::Rejected { epoch, code: String::new(), reason: String::new() };
                REJECTED.put(&mut history, txid, &rejected);
            }
            REJECTIONS.put(&mut history, &epoch, &txids);
            let below = if epoch < 600 { 0 } else { 500 };
            let before = batch.changes().len();
            step(&mut batch, epoch, below, |epoch| (epoch + 1).is_multiple_of(100)).await.unwrap();
            assert!(batch.changes().len() - before <= (4 + 9) * 32 + 3);
            batch.commit().await.unwrap();
        }
        let history = state::history_reader(db as _);
        let batches = BATCHES.all(&history).await.unwrap();
        assert_eq!((batches.len(), batches.first().unwrap().0), (1100, (500, 1)));
        let headers: Vec<u64> =
            HEADERS.all(&history).await.unwrap().into_iter().map(|(epoch, _)| epoch).collect();
        assert_eq!(headers, [99, 199, 299, 399, 499].into_iter().chain(500..1600).collect::<Vec<_>>());
        assert_eq!(REJECTIONS.all(&history).await.unwrap().len(), 1100);
        assert_eq!(REJECTED.all(&history).await.unwrap().len(), 251);
        assert_eq!(SIGNATURES.all(&history).await.unwrap().len(), headers.len());
        assert_eq!(FIRST_BATCH.get(&history, &()).await.unwrap(), Some(500));
    }
}

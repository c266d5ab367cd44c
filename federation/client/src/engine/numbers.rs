//! The numbers that notes are derived from.
//!
//! A number is asked for once only; and numbers that were issued lie close enough to each other for a restore to find them:
//! none is handed out [`GAP`] or more beyond the highest that was surely issued. Transactions that are refused leave holes.
//! Fresh numbers are preferred; only where they would go beyond the gap, those of refused transactions are used again. (Who has
//! kept a refused transaction may hand it in again. Then ours is refused as one that uses a number twice, and gets others.)

use federation_store::WriteBatch;

use crate::client::Client;
use crate::restore::GAP;
use crate::store::{BURNT, NEXT, TxRecord, counter};
use crate::{ClientError, Result};

/// Burnt numbers that are looked at at once.
const PAGE: usize = 1000;

impl Client {
    /// Takes numbers for so many notes. The caller holds the money lock.
    ///
    /// # Errors
    /// [`ClientError::TooManyPending`] if too much is undecided.
    pub(crate) async fn take_numbers(&self, batch: &mut WriteBatch, count: usize) -> Result<Vec<u64>> {
        let next = NEXT.get(batch, &counter::NOTES).await?.unwrap_or_default();
        let issued = match NEXT.get(batch, &counter::ISSUED).await? {
            Some(issued) => issued,
            // A wallet of an older version has not counted; what it has used lies close.
            None => {
                NEXT.put(batch, &counter::ISSUED, &next);
                next
            }
        };
        let none_left = || ClientError::Internal("no note numbers are left".to_owned());
        let end = issued.checked_add(GAP).ok_or_else(none_left)?;
        let mut numbers: Vec<u64> = (next..end).take(count).collect();
        let after = next.checked_add(numbers.len() as u64).ok_or_else(none_left)?;
        NEXT.put(batch, &counter::NOTES, &after);
        let missing = count.saturating_sub(numbers.len());
        if missing > 0 {
            let burnt = BURNT.scan(batch, &(), None, missing).await?;
            if burnt.len() < missing {
                return Err(ClientError::TooManyPending);
            }
            for (number, ()) in burnt {
                BURNT.delete(batch, &number);
                numbers.push(number);
            }
        }
        Ok(numbers)
    }

    /// Counts an accepted transaction's numbers as issued.
    pub(super) async fn count_issued(&self, batch: &mut WriteBatch, record: &TxRecord) -> Result<()> {
        let Some(highest) = record.issues.iter().map(|issue| issue.index).max() else { return Ok(()) };
        let before = NEXT.get(batch, &counter::ISSUED).await?.unwrap_or_default();
        let issued = before.max(highest.saturating_add(1));
        NEXT.put(batch, &counter::ISSUED, &issued);
        // What lies below is of no use any more: fresh numbers are to be had again.
        for (number, ()) in BURNT.scan(batch, &(), None, PAGE).await? {
            if number < issued {
                BURNT.delete(batch, &number);
            }
        }
        Ok(())
    }

    /// The numbers of a refused transaction.
    pub(super) fn burn(&self, batch: &mut WriteBatch, record: &TxRecord) {
        for issue in &record.issues {
            BURNT.put(batch, &issue.index, &());
        }
    }
}

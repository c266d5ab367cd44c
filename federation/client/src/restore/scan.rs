//! Searching for notes by their numbers, a batch a commit.

use std::collections::BTreeSet;

use federation_core::TxId;
use federation_store::WriteBatch;

use super::lookup::Fate;
use super::{Found, GAP, Scan};
use crate::Result;
use crate::api::FederationApi;
use crate::client::Client;
use crate::store::{BURNT, FOUND, NEXT, NOTES, RESERVED, RESTORE, SENT, TRANSACTIONS, UNFINISHED, counter};

/// The most numbers of one lookup: what guardians take.
pub(crate) const BATCH: u64 = 512;

impl Client {
    /// Looks up the next batch and writes down what is found; with `restoring` also how far it is, else the wallet's next
    /// number. How far it is then, and how many it found.
    pub(super) async fn scan_batch(
        &self,
        api: &FederationApi,
        scan: Scan,
        restoring: bool,
    ) -> Result<(Scan, usize)> {
        let left = GAP.saturating_sub(scan.next.saturating_sub(scan.top));
        let end = scan.next.saturating_add(left.min(BATCH));
        let numbers: Vec<u64> = (scan.next..end).collect();
        let fates = self.fates(api, &numbers).await?;

        let _guard = self.inner.money.lock().await;
        let mut batch = WriteBatch::new(self.inner.db.clone());
        let own = if restoring { Own::default() } else { self.own().await? };
        let (mut scan, mut count) = (Scan { next: end, top: scan.top }, 0usize);
        for (number, fate) in numbers.into_iter().zip(fates) {
            let found = match fate {
                Fate::Unknown => continue,
                Fate::Pending(denomination, point) => Found { denomination, point, signature: None },
                Fate::Issued(point, note) => {
                    Found { denomination: note.denomination, point, signature: Some(note.signature.clone()) }
                }
            };
            scan.top = number.saturating_add(1);
            count = count.saturating_add(1);
            BURNT.delete(&mut batch, &number);
            if !own.numbers.contains(&number) && !own.asked.contains(&(number, found.point.txid)) {
                FOUND.put(&mut batch, &number, &found);
            }
        }
        if restoring {
            RESTORE.put(&mut batch, &(), &scan);
        } else {
            for which in [counter::NOTES, counter::ISSUED] {
                let before = NEXT.get(&batch, &which).await?.unwrap_or_default();
                NEXT.put(&mut batch, &which, &before.max(scan.top));
            }
        }
        batch.commit().await?;
        self.touch();
        Ok((scan, count))
    }

    /// Brings in the notes that a transaction of an earlier life has issued under these numbers, all of them, unless they are
    /// known; `false`: the guardians do not show them all (yet).
    pub(crate) async fn find_issued(&self, txid: TxId, numbers: &[u64]) -> Result<bool> {
        let api = self.inner.api.apart()?;
        let mut found = Vec::new();
        for numbers in numbers.chunks(usize::try_from(BATCH).unwrap_or(1)) {
            for (number, fate) in numbers.iter().zip(self.fates(&api, numbers).await?) {
                found.push(match fate {
                    Fate::Pending(denomination, point) if point.txid == txid => {
                        (*number, Found { denomination, point, signature: None })
                    }
                    Fate::Issued(point, note) if point.txid == txid => {
                        let (denomination, signature) = (note.denomination, Some(note.signature.clone()));
                        (*number, Found { denomination, point, signature })
                    }
                    _ => return Ok(false),
                });
            }
        }
        let _guard = self.inner.money.lock().await;
        let mut batch = WriteBatch::new(self.inner.db.clone());
        let own = self.own().await?;
        let issued = NEXT.get(&batch, &counter::ISSUED).await?.unwrap_or_default();
        let last = numbers.iter().max().map_or(0, |last| last.saturating_add(1));
        NEXT.put(&mut batch, &counter::ISSUED, &issued.max(last));
        for (number, found) in found.iter().filter(|(number, _)| !own.numbers.contains(number)) {
            FOUND.put(&mut batch, number, found);
        }
        batch.commit().await?;
        self.touch();
        self.spawn_found();
        Ok(true)
    }

    /// What this wallet knows of already: numbers of notes that it holds or has handed out, and transactions whose notes it is
    /// about to get. The caller holds the money lock.
    async fn own(&self) -> Result<Own> {
        let mut own = Own::default();
        own.numbers.extend(NOTES.all(self.db()).await?.into_iter().map(|(_, held)| held.index));
        own.numbers.extend(RESERVED.all(self.db()).await?.into_iter().map(|(_, held)| held.index));
        own.numbers.extend(SENT.all(self.db()).await?.into_iter().map(|(_, held)| held.index));
        for (op, ()) in UNFINISHED.all(self.db()).await? {
            if let Some(record) = TRANSACTIONS.get(self.db(), &op).await? {
                own.asked.extend(record.issues.iter().map(|issue| (issue.index, record.txid)));
            }
        }
        Ok(own)
    }
}

#[derive(Default)]
struct Own {
    numbers: BTreeSet<u64>,
    /// Numbers that are asked for, and by which transaction.
    asked: BTreeSet<(u64, TxId)>,
}

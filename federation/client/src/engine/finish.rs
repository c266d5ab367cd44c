//! The last commit of a transaction.

use std::collections::BTreeMap;

use federation_core::rest::{OutputStatus, TransactionResponse};
use federation_mint::PointBytes;
use federation_mint::client::{Note, finish_all};
use federation_store::WriteBatch;
use federation_tbs::BlindedSignature;

use crate::client::Client;
use crate::store::{
    Destination, Held, KEYS, NOTES, OpId, RESERVED, SENT, TRANSACTIONS, TxRecord, TxState, UNFINISHED,
};
use crate::{ClientError, Result};

/// A note that has come: nonce, note, what for.
pub(super) type Arrived = ([u8; 32], Held, Destination);

/// What an answer makes of the notes that a transaction asked for.
pub(super) enum Finished {
    /// They are here, and right.
    All(Vec<Arrived>),
    /// Some are not signed yet.
    NotYet,
    /// Some signature is wrong.
    Wrong,
}

/// The notes of a transaction, in the order of its issues.
pub(super) fn arrived(record: &TxRecord, notes: Vec<Note>) -> Vec<Arrived> {
    let arrived = record.issues.iter().zip(notes).map(|(issue, note)| {
        let held =
            Held { index: issue.index, denomination: issue.denomination, signature: note.signature.clone() };
        (note.nonce().serialize(), held, issue.destination)
    });
    arrived.collect()
}

impl Client {
    /// Unblinds and checks.
    pub(super) async fn finished(
        &self,
        record: &TxRecord,
        response: &TransactionResponse,
    ) -> Result<Finished> {
        let mut signatures: Vec<BlindedSignature> = Vec::with_capacity(record.issues.len());
        for issue in &record.issues {
            match response.outputs.get(usize::from(issue.output)) {
                Some(OutputStatus::Ready { bytes, .. }) => {
                    let point = <[u8; 48]>::try_from(bytes.as_slice()).ok().map(PointBytes);
                    match point.and_then(|point| point.decode().ok()) {
                        Some(signature) => signatures.push(signature),
                        None => return Ok(Finished::Wrong),
                    }
                }
                Some(OutputStatus::Pending) | None => return Ok(Finished::NotYet),
            }
        }
        let requests = self.requests(&record.issues).await?;
        let inner = self.inner.clone();
        let notes = tokio::task::spawn_blocking(move || {
            let pairs: Vec<_> = requests.iter().zip(&signatures).collect();
            finish_all(&pairs, &inner.mint.config).into_iter().collect::<std::result::Result<Vec<_>, _>>()
        })
        .await
        .map_err(|error| ClientError::Internal(error.to_string()))?;
        let Ok(notes) = notes else { return Ok(Finished::Wrong) };
        Ok(Finished::All(arrived(record, notes)))
    }

    pub(super) async fn commit_accepted(&self, op: OpId, mut record: TxRecord) -> Result<()> {
        let _guard = self.inner.money.lock().await;
        let mut batch = WriteBatch::new(self.inner.db.clone());
        self.count_issued(&mut batch, &record).await?;
        record.state = TxState::Accepted;
        TRANSACTIONS.put(&mut batch, &op, &record);
        batch.commit().await?;
        self.touch();
        Ok(())
    }

    pub(super) async fn commit_done(
        &self,
        op: OpId,
        mut record: TxRecord,
        arrived: Vec<Arrived>,
    ) -> Result<()> {
        let _guard = self.inner.money.lock().await;
        let mut batch = WriteBatch::new(self.inner.db.clone());
        for (nonce, held, destination) in arrived {
            match destination {
                Destination::Keep => NOTES.put(&mut batch, &nonce, &held),
                Destination::Send(send) => SENT.put(&mut batch, &(send, nonce), &held),
            }
        }
        for (key, _) in RESERVED.all_under(&batch, &op).await? {
            RESERVED.delete(&mut batch, &key);
        }
        self.count_issued(&mut batch, &record).await?;
        KEYS.delete(&mut batch, &op);
        record.state = TxState::Done;
        TRANSACTIONS.put(&mut batch, &op, &record);
        UNFINISHED.delete(&mut batch, &op);
        batch.commit().await?;
        self.touch();
        Ok(())
    }

    pub(super) async fn commit_rejected(
        &self,
        op: OpId,
        mut record: TxRecord,
        code: String,
        reason: String,
    ) -> Result<()> {
        let reserved: BTreeMap<_, _> = RESERVED.all_under(self.db(), &op).await?.into_iter().collect();
        // One spent note has the whole transaction refused: the others are still good.
        let mut spent = Vec::new();
        if code == DOUBLE_SPEND {
            for (_, nonce) in reserved.keys() {
                if self.is_spent(nonce).await? {
                    spent.push(*nonce);
                }
            }
        }
        let _guard = self.inner.money.lock().await;
        let mut batch = WriteBatch::new(self.inner.db.clone());
        for ((_, nonce), held) in reserved {
            RESERVED.delete(&mut batch, &(op, nonce));
            if spent.contains(&nonce) {
                tracing::warn!("a note of {} was spent by another copy of this wallet", held.denomination);
            } else {
                NOTES.put(&mut batch, &nonce, &held);
            }
        }
        self.burn(&mut batch, &record);
        KEYS.delete(&mut batch, &op);
        record.state = TxState::Rejected { code, reason };
        TRANSACTIONS.put(&mut batch, &op, &record);
        UNFINISHED.delete(&mut batch, &op);
        batch.commit().await?;
        self.touch();
        Ok(())
    }

    /// Whether f + 1 guardians say that a note was spent. Tells them its nonce, so ask only for what they have seen.
    pub(crate) async fn is_spent(&self, nonce: &[u8; 32]) -> Result<bool> {
        let nonce = hex::encode(nonce);
        let prefix = nonce.get(..8).unwrap_or_default().to_owned();
        let request = crate::api::Request::module_get(federation_mint::KIND, "spent", &[("prefix", prefix)]);
        self.inner
            .api
            .agreed(&request, std::time::Duration::ZERO, |answer| {
                let nonces = answer.get("nonces")?.as_array()?;
                Some(nonces.iter().any(|found| found.as_str() == Some(&nonce)))
            })
            .await
    }
}

/// The mint's code for a note that was spent before.
pub(crate) const DOUBLE_SPEND: &str = "double_spend";

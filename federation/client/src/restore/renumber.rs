//! When a transaction is refused because the numbers of its notes were used before: by another copy of this wallet, or by this
//! one before it was put back from a backup.

use std::collections::BTreeMap;

use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use federation_core::Transaction;
use federation_store::WriteBatch;

use super::Scan;
use super::lookup::Fate;
use crate::client::Client;
use crate::store::{KEYS, OpId, RESERVED, TRANSACTIONS, TxRecord, TxState};
use crate::{ClientError, Result};

/// The mint's code for a blinded nonce that was issued before.
pub(crate) const REUSED: &str = "blinded_nonce_reused";

/// What came of it.
pub(crate) enum Renumbered {
    /// The transaction asks for other notes now: submit it.
    Done,
    /// The guardians do not show (yet) that its numbers were used by another one.
    NotUsed,
    /// It cannot be signed again.
    Impossible,
}

impl Client {
    /// Looks up what became of the numbers from the first used one on, takes in what is unspent, and asks for the same notes
    /// under fresh numbers, with the same inputs. The refused transaction stays refused for ever, since its numbers stay used;
    /// and both spend the same inputs.
    pub(crate) async fn renumber(&self, op: OpId, record: TxRecord) -> Result<Renumbered> {
        let api = self.inner.api.apart()?;
        let numbers: Vec<u64> = record.issues.iter().map(|issue| issue.index).collect();
        let fates = self.fates(&api, &numbers).await?;
        let mut first: Option<u64> = None;
        for (number, fate) in numbers.iter().zip(&fates) {
            let point = match fate {
                Fate::Unknown => continue,
                Fate::Pending(_, point) | Fate::Issued(point, _) => point,
            };
            if point.txid == record.txid {
                // It was accepted itself; who refuses it lags.
                return Ok(Renumbered::NotUsed);
            }
            first = Some(first.map_or(*number, |first| first.min(*number)));
        }
        let Some(first) = first else { return Ok(Renumbered::NotUsed) };
        tracing::warn!("another copy of this wallet has used its numbers from {first} on: looking them up");
        let mut scan = Scan::from(first);
        while !scan.is_over() {
            scan = self.scan_batch(&api, scan, false).await?.0;
        }
        self.spawn_found();

        let _guard = self.inner.money.lock().await;
        let mut batch = WriteBatch::new(self.inner.db.clone());
        let Some(mut record) = TRANSACTIONS.get(&batch, &op).await? else { return Ok(Renumbered::NotUsed) };
        if record.state != TxState::Pending {
            return Ok(Renumbered::Done);
        }
        let Some(keys) = self.input_keys(&op, &record.transaction).await? else {
            return Ok(Renumbered::Impossible);
        };
        let numbers = self.take_numbers(&mut batch, record.issues.len()).await?;
        for (issue, number) in record.issues.iter_mut().zip(numbers) {
            issue.index = number;
        }
        let mut outputs = record.transaction.outputs;
        for (issue, request) in record.issues.iter().zip(self.requests(&record.issues).await?) {
            let output = outputs.get_mut(usize::from(issue.output));
            let output = output.ok_or_else(|| ClientError::Internal("a note has no output".to_owned()))?;
            *output = request.output(self.inner.mint.id);
        }
        record.transaction =
            Transaction::sign(self.federation_id(), record.transaction.inputs, outputs, &keys);
        record.txid = record.transaction.txid(self.federation_id());
        TRANSACTIONS.put(&mut batch, &op, &record);
        // A backup names it.
        crate::backup::due(&mut batch);
        batch.commit().await?;
        self.touch();
        Ok(Renumbered::Done)
    }

    /// The keys that sign for a transaction's inputs, in their order; `None`: one is not here.
    async fn input_keys(&self, op: &OpId, transaction: &Transaction) -> Result<Option<Vec<Keypair>>> {
        let mut known: BTreeMap<[u8; 32], Keypair> = BTreeMap::new();
        for bytes in KEYS.get(self.db(), op).await?.unwrap_or_default() {
            let key = SecretKey::from_slice(&bytes).map_err(|error| ClientError::Db(error.to_string()))?;
            let key = Keypair::from_secret_key(SECP256K1, &key);
            known.insert(key.x_only_public_key().0.serialize(), key);
        }
        for ((_, nonce), held) in RESERVED.all_under(self.db(), op).await? {
            known.insert(nonce, self.note(&held).keypair());
        }
        let keys = transaction.inputs.iter().map(|input| known.get(&input.key.serialize()).copied());
        Ok(keys.collect())
    }
}

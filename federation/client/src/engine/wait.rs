//! Waiting for a transaction: on what is written, so that it works across restarts.

use federation_core::TxId;

use crate::client::Client;
use crate::store::{OpId, TRANSACTIONS, TxRecord, TxState};
use crate::{ClientError, Result};

impl Client {
    /// Waits until a transaction is accepted, with `done` until its notes are here too.
    ///
    /// # Errors
    /// [`ClientError::Rejected`]; [`ClientError::Unreachable`] and the like when it does not get on for now.
    pub(crate) async fn wait_transaction(&self, op: OpId, done: bool) -> Result<TxRecord> {
        let mut changes = self.inner.changes.subscribe();
        let known = self.inner.troubles.count(&op);
        self.inner.nudge.notify_waiters();
        loop {
            changes.borrow_and_update();
            let record = TRANSACTIONS.get(self.db(), &op).await?;
            let record = record.ok_or_else(|| ClientError::NoOperation(hex::encode(op)))?;
            match &record.state {
                TxState::Done => return Ok(record),
                TxState::Accepted if !done => return Ok(record),
                TxState::Rejected { code, reason } => {
                    return Err(ClientError::Rejected { code: code.clone(), reason: reason.clone() });
                }
                TxState::Accepted | TxState::Pending => self.spawn_driver(op),
            }
            if let Some(error) = self.inner.troubles.since(&op, known) {
                return Err(error);
            }
            if changes.changed().await.is_err() {
                return Err(ClientError::Internal("the wallet was closed".to_owned()));
            }
        }
    }

    /// The transaction of an operation that [`transact`](Self::transact) was called for, whatever its state; `None`: never
    /// begun.
    ///
    /// # Errors
    /// [`ClientError::Db`].
    pub async fn transaction(&self, operation_id: OpId) -> Result<Option<TxId>> {
        Ok(TRANSACTIONS.get(self.db(), &operation_id).await?.map(|record| record.txid))
    }
}

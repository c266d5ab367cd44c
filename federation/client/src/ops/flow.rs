//! Brings operations to their end, in the background.

use std::time::Duration;

use federation_store::WriteBatch;

use super::{Kind, Operation};
use crate::backup::due;
use crate::client::Client;
use crate::store::{HISTORY, NEXT, OPEN, OPERATIONS, OpId, RESERVED};
use crate::{ClientError, Result};

/// The pause after a failure, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What a step came to.
pub(super) enum Flow {
    /// This is where the operation stands now.
    Become(Kind),
    /// Nothing new yet: go on after this time.
    Wait(Duration),
    /// Over.
    Finished,
}

impl Client {
    /// Drives an operation in the background, unless that is under way.
    pub(crate) fn spawn_flow(&self, op: OpId) {
        if !self.inner.flows.enter(op) {
            return;
        }
        let client = self.for_task();
        self.spawn(async move {
            client.flow(op).await;
            client.inner.flows.leave(&op);
        });
    }

    async fn flow(&self, op: OpId) {
        let (mut pause, longest) = PAUSE;
        loop {
            match self.flow_step(op).await {
                Ok(Flow::Finished) => {
                    self.inner.troubles.clear(&op);
                    return;
                }
                Ok(Flow::Wait(time)) => {
                    self.inner.troubles.clear(&op);
                    pause = PAUSE.0;
                    tokio::time::sleep(time).await;
                }
                Ok(Flow::Become(kind)) => {
                    self.inner.troubles.clear(&op);
                    pause = PAUSE.0;
                    if let Err(error) = self.become_kind(op, kind).await {
                        tracing::error!("operation {}: {error}", hex::encode(op));
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!("operation {}: {error}", hex::encode(op));
                    self.inner.troubles.add(op, error);
                    self.touch();
                    self.rest(pause).await;
                    pause = pause.saturating_mul(2).min(longest);
                }
            }
        }
    }

    async fn flow_step(&self, op: OpId) -> Result<Flow> {
        let Some(operation) = OPERATIONS.get(self.db(), &op).await?.filter(Operation::is_open) else {
            return Ok(Flow::Finished);
        };
        match operation.kind {
            Kind::Send(send) => self.send_step(op, send).await,
            Kind::Receive(receive) => self.receive_step(op, receive).await,
            Kind::Pay(pay) => self.pay_step(op, *pay).await,
            Kind::Invoice(invoice) => self.invoice_step(op, *invoice).await,
            Kind::Deposit(deposit) => self.deposit_step(op, deposit).await,
            Kind::Withdraw(withdraw) => self.withdraw_step(op, withdraw).await,
        }
    }

    /// Writes where an operation stands now. Notes that were reserved for the operation itself (see [`lost`](super::lost)) are
    /// spent then.
    pub(super) async fn become_kind(&self, op: OpId, kind: Kind) -> Result<()> {
        let _guard = self.inner.money.lock().await;
        let mut batch = WriteBatch::new(self.inner.db.clone());
        let operation = OPERATIONS.get(&batch, &op).await?;
        let mut operation = operation.ok_or_else(|| ClientError::NoOperation(hex::encode(op)))?;
        operation.kind = kind;
        for (key, _) in RESERVED.all_under(&batch, &op).await? {
            RESERVED.delete(&mut batch, &key);
        }
        put(&mut batch, &op, &operation);
        batch.commit().await?;
        self.touch();
        Ok(())
    }

    /// An operation.
    pub(crate) async fn operation(&self, op: &OpId) -> Result<Operation> {
        let operation = OPERATIONS.get(self.db(), op).await?;
        operation.ok_or_else(|| ClientError::NoOperation(hex::encode(op)))
    }

    /// Waits until `result` makes something of an operation.
    pub(super) async fn wait_operation<T>(
        &self,
        op: OpId,
        mut result: impl FnMut(Operation) -> Option<Result<T>> + Send,
    ) -> Result<T> {
        let mut changes = self.inner.changes.subscribe();
        let known = self.inner.troubles.count(&op);
        self.inner.nudge.notify_waiters();
        loop {
            changes.borrow_and_update();
            let operation = self.operation(&op).await?;
            let open = operation.is_open();
            if let Some(result) = result(operation) {
                return result;
            }
            if let Some(error) = self.inner.troubles.since(&op, known) {
                return Err(error);
            }
            if open {
                self.spawn_flow(op);
            }
            if changes.changed().await.is_err() {
                return Err(ClientError::Internal("the wallet was closed".to_owned()));
            }
        }
    }

    /// The next number of a [`counter`](crate::store::counter), used up even if nothing comes of it.
    pub(super) async fn next_number(&self, counter: u8) -> Result<u64> {
        let _guard = self.inner.money.lock().await;
        let mut batch = WriteBatch::new(self.inner.db.clone());
        let next = NEXT.get(&batch, &counter).await?.unwrap_or_default();
        let after =
            next.checked_add(1).ok_or_else(|| ClientError::Internal("no numbers are left".to_owned()))?;
        NEXT.put(&mut batch, &counter, &after);
        batch.commit().await?;
        Ok(next)
    }
}

/// Writes an operation into a batch; the next backup has it.
pub(crate) fn put(batch: &mut WriteBatch, op: &OpId, operation: &Operation) {
    OPERATIONS.put(batch, op, operation);
    HISTORY.put(batch, &(operation.created, *op), &());
    if operation.is_open() {
        OPEN.put(batch, op, &());
    } else {
        OPEN.delete(batch, op);
    }
    due(batch);
}

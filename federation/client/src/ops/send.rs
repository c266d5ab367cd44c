//! Notes handed out as a string, and taken back if nobody wants them.

use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::Amount;
use federation_mint::MintError;
use federation_mint::client::{ECash, Note, represent, select_exact};
use federation_store::WriteBatch;

use super::flow::{Flow, put};
use super::take::Taken;
use super::{Kind, Operation, fresh_id, step_id};
use crate::client::Client;
use crate::engine::Plan;
use crate::store::{Destination, NOTES, OpId, SENT};
use crate::{ClientError, Result};

/// A send.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Send {
    /// What the notes are worth.
    pub amount: Amount,
    /// Where it stands.
    pub state: State,
}

/// Where a send stands.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum State {
    /// Exact change is being made.
    Preparing,
    /// The string can be handed out; whether anybody has received it shows when it is taken back.
    Ready,
    /// Being taken back.
    Reclaiming,
    /// Taken back.
    Reclaimed {
        /// What came back.
        amount: Amount,
    },
    /// It could not be taken back: somebody has received it.
    Claimed,
    /// No exact change could be made; nothing was sent.
    Failed {
        /// The stable code.
        code: String,
        /// The reason.
        reason: String,
    },
}

impl State {
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Preparing | Self::Reclaiming)
    }
}

/// E-cash to be handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The operation, for taking it back.
    pub operation: OpId,
    /// `clnecash1…`: whoever reads it first can have the money.
    pub ecash: String,
}

const STEP: &str = "change";

/// The name of the transaction that makes the notes.
pub(crate) fn change_id(op: &OpId) -> OpId {
    step_id(op, STEP, 0)
}

impl Client {
    /// Hands out notes worth exactly `amount`: at once where the notes at hand allow it, else after reissuing some.
    ///
    /// # Errors
    /// [`ClientError::ZeroAmount`], [`ClientError::InsufficientFunds`]; [`ClientError::Unreachable`] if exact change cannot be
    /// made now (what was begun goes on; the history shows the string).
    pub async fn send(&self, amount: Amount, memo: &str) -> Result<Sent> {
        if amount.is_zero() {
            return Err(ClientError::ZeroAmount);
        }
        let op = fresh_id();
        if self.send_from_hand(op, amount, memo).await? {
            return self.sent(op).await;
        }
        let notes = represent(amount, &self.inner.mint.config).map_err(|error| match error {
            MintError::TooManyNotes(_) => ClientError::TooManyNotes,
            other => ClientError::Internal(other.to_string()),
        })?;
        let destination = Destination::Send(op);
        let plan = Plan { notes, destination, ..Plan::new(change_id(&op), Vec::new(), Vec::new()) };
        let operation = Operation::new(Kind::Send(Send { amount, state: State::Preparing }), memo);
        self.begin(plan, |batch, _| {
            put(batch, &op, &operation);
            Ok(())
        })
        .await?;
        self.wait_operation(op, |operation| match operation.kind {
            Kind::Send(Send { state: State::Preparing, .. }) => None,
            Kind::Send(Send { state: State::Failed { code, reason }, .. }) => {
                Some(Err(ClientError::Rejected { code, reason }))
            }
            _ => Some(Ok(())),
        })
        .await?;
        self.sent(op).await
    }

    /// Moves notes from NOTES to SENT, if there are such that fit.
    async fn send_from_hand(&self, op: OpId, amount: Amount, memo: &str) -> Result<bool> {
        let _guard = self.inner.money.lock().await;
        let mut batch = WriteBatch::new(self.inner.db.clone());
        let free = NOTES.all(&batch).await?;
        let denominations: Vec<_> = free.iter().map(|(_, held)| held.denomination).collect();
        let Some(places) = select_exact(&denominations, amount) else { return Ok(false) };
        for (nonce, held) in places.into_iter().filter_map(|place| free.get(place)) {
            NOTES.delete(&mut batch, nonce);
            SENT.put(&mut batch, &(op, *nonce), held);
        }
        put(&mut batch, &op, &Operation::new(Kind::Send(Send { amount, state: State::Ready }), memo));
        batch.commit().await?;
        self.touch();
        Ok(true)
    }

    pub(super) async fn send_step(&self, op: OpId, send: Send) -> Result<Flow> {
        let state = match send.state {
            State::Preparing => match self.wait_transaction(change_id(&op), true).await {
                Ok(_) => State::Ready,
                Err(ClientError::Rejected { code, reason }) => State::Failed { code, reason },
                Err(error) => return Err(error),
            },
            State::Reclaiming => {
                let notes = self.sent_notes(op).await?;
                self.begin_take(&op, &notes, |_, _| Ok(())).await?;
                match self.finish_take(&op, &notes).await? {
                    Taken::Notes { amount, .. } => State::Reclaimed { amount },
                    Taken::Spent => State::Claimed,
                    // Not now: the string stays good.
                    Taken::Refused { code, reason } => {
                        tracing::warn!("taking back was refused: {reason} ({code})");
                        State::Ready
                    }
                }
            }
            _ => return Ok(Flow::Finished),
        };
        Ok(Flow::Become(Kind::Send(Send { state, ..send })))
    }

    /// Takes back what nobody has received. Returns what came back.
    ///
    /// # Errors
    /// [`ClientError::EcashClaimed`], [`ClientError::NoOperation`]; [`ClientError::BelowFees`].
    pub async fn reclaim(&self, op: OpId) -> Result<Amount> {
        let operation = self.operation(&op).await?;
        let Kind::Send(send) = operation.kind else { return Err(ClientError::NoOperation(hex::encode(op))) };
        if send.state == State::Ready {
            self.become_kind(op, Kind::Send(Send { state: State::Reclaiming, ..send })).await?;
        }
        self.wait_operation(op, |operation| match operation.kind {
            Kind::Send(Send { state: State::Reclaimed { amount }, .. }) => Some(Ok(amount)),
            Kind::Send(Send { state: State::Claimed, .. }) => Some(Err(ClientError::EcashClaimed)),
            Kind::Send(Send { state: State::Failed { code, reason }, .. }) => {
                Some(Err(ClientError::Rejected { code, reason }))
            }
            Kind::Send(Send { state: State::Ready, .. }) => Some(Err(ClientError::Rejected {
                code: "not_reclaimed".to_owned(),
                reason: "the federation did not reissue the notes now; try again later".to_owned(),
            })),
            _ => None,
        })
        .await
    }

    /// The string of a send, again.
    ///
    /// # Errors
    /// [`ClientError::NoOperation`] if it has no notes (yet).
    pub async fn sent(&self, op: OpId) -> Result<Sent> {
        let notes = self.sent_notes(op).await?;
        if notes.is_empty() {
            return Err(ClientError::NoOperation(hex::encode(op)));
        }
        let ecash = ECash { federation: self.federation_id(), notes }.to_string();
        Ok(Sent { operation: op, ecash })
    }

    async fn sent_notes(&self, op: OpId) -> Result<Vec<Note>> {
        let held = SENT.all_under(self.db(), &op).await?;
        Ok(held.iter().map(|(_, held)| self.note(held)).collect())
    }
}

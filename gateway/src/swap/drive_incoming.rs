//! The steps of an incoming swap.

use std::sync::Arc;
use std::time::Duration;

use federation_client::ClientError;
use federation_core::Amount;
use federation_lightning::{ContractState, Preimage};

use super::drive::{Memory, Step};
use super::incoming::{Incoming, IncomingState, Payer, operation};
use super::outgoing::OutgoingState;
use super::pay::Refusal;
use super::{SwapId, Swaps};
use crate::GatewayError;
use crate::node::NodeError;
use crate::store::{INCOMING, OUTGOING, PAYMENTS, Totals};

/// How many blocks must be left for a payment to be taken on: time to fund, open and settle with.
pub(super) const MIN_BLOCKS_LEFT: u32 = 60;
/// How long a held payment waits for a federation or for e-cash that is under way, before it is failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one question for the preimage may be held back.
const PREIMAGE_WAIT: Duration = Duration::from_secs(20);
/// How long a federation may take to say that it is there.
const PING: Duration = Duration::from_secs(5);

impl Swaps {
    /// Takes one step.
    pub(super) async fn step_incoming(
        self: &Arc<Self>,
        hash: [u8; 32],
        memory: &mut Memory,
    ) -> Result<Step, GatewayError> {
        let Some(swap) = self.store.incoming(&hash).await? else { return Ok(Step::End) };
        match swap.state.clone() {
            IncomingState::Waiting => self.step_waiting(swap, memory).await,
            IncomingState::Funding(payer) => self.step_funding(swap, payer, memory).await,
            IncomingState::Funded(payer) => self.step_funded(swap, payer).await,
            IncomingState::Settling { preimage, deadline } => {
                self.step_settling(swap, preimage, deadline).await
            }
            IncomingState::Invalid => self.step_invalid(swap).await,
            IncomingState::Refusing { code, reason } => self.step_refusing(swap, code, reason).await,
            IncomingState::Offered
            | IncomingState::Done { .. }
            | IncomingState::Failed { .. }
            | IncomingState::Lost { .. } => Ok(Step::End),
        }
    }

    /// Something is held: take it on or refuse it.
    async fn step_waiting(
        self: &Arc<Self>,
        swap: Incoming,
        memory: &mut Memory,
    ) -> Result<Step, GatewayError> {
        let hash = swap.payment_hash();
        let Some(held) = self.held_payment(&hash) else { return Ok(Step::End) };
        if held.amount_msat < swap.amount.msat() {
            // The node should not have reported it.
            return self
                .refuse(hash, Refusal::new("underpaid", "the payment is less than the invoice"))
                .await;
        }
        let height = self.node.info().await?.block_height;
        if let Err(refusal) = self.judge_funding(&swap, Some(held.claim_deadline_height), height) {
            return self.refuse(hash, refusal).await;
        }
        // Funding can't be taken back once it is begun: a federation that is down is not asked to.
        let federation = self.federation(&swap.federation)?;
        if !matches!(tokio::time::timeout(PING, federation.height()).await, Ok(Ok(_))) {
            if !memory.is_over(PATIENCE) {
                return Ok(Step::Later);
            }
            return self
                .refuse(hash, Refusal::new("federation_down", "the federation does not answer"))
                .await;
        }
        let mut change = self.store.change().await;
        let Some(mut swap) = INCOMING.get(&change.batch, &hash).await? else { return Ok(Step::End) };
        if swap.state != IncomingState::Waiting {
            return Ok(Step::Next);
        }
        // With the change open, so that two swaps can't both take the last of it.
        if !self.is_within_cap(&swap) {
            drop(change);
            if !memory.is_over(PATIENCE) {
                return Ok(Step::Later);
            }
            return self
                .refuse(hash, Refusal::new("exposure", "too much is under way at this gateway"))
                .await;
        }
        swap.state = IncomingState::Funding(Payer::Lightning { deadline: held.claim_deadline_height });
        change.put_incoming(&swap);
        self.note_exposure(&swap);
        self.commit(change, &[SwapId::Incoming(hash)]).await?;
        memory.fresh = true;
        Ok(Step::Next)
    }

    /// Whether there is time to fund.
    pub(super) fn judge_funding(
        &self,
        swap: &Incoming,
        deadline: Option<u32>,
        height: u32,
    ) -> Result<(), Refusal> {
        if let Some(deadline) = deadline
            && deadline.saturating_sub(height) < MIN_BLOCKS_LEFT
        {
            return Err(Refusal::new("expiry_near", "the payment's HTLCs expire too soon"));
        }
        // The federation refuses to be late by itself; this only spares it the question.
        if swap.contract.terms.fund_before_height <= height.saturating_add(1) {
            return Err(Refusal::new("too_late", "the contract can't be funded any more"));
        }
        Ok(())
    }

    /// Whether the cap has room for it.
    pub(super) fn is_within_cap(&self, swap: &Incoming) -> bool {
        let sum = self.exposure().checked_add(swap.contract.terms.amount);
        sum.is_some_and(|sum| sum <= self.limits.max_exposure)
    }

    /// Funds the contract, or finds out that it can't be.
    async fn step_funding(
        self: &Arc<Self>,
        swap: Incoming,
        payer: Payer,
        memory: &mut Memory,
    ) -> Result<Step, GatewayError> {
        let federation = self.federation(&swap.federation)?;
        let name = swap.funding_operation();
        // In a later process than the one that decided to fund, and nothing was begun: decide again.
        if !std::mem::take(&mut memory.fresh)
            && !federation.has_begun(name).await?
            && let Err(refusal) = self.judge_again(&swap, payer).await?
        {
            return self.refuse_funding(swap, payer, refusal).await;
        }
        let refusal = match federation.fund_incoming(name, &swap.contract).await {
            Ok(_) => return self.write_incoming(swap, IncomingState::Funded(payer)).await,
            Err(ClientError::Rejected { code, reason }) => {
                let funded = federation.contract(swap.contract_id(), Duration::ZERO, None).await?.is_some();
                if funded {
                    // By an earlier transaction of ours that the wallet has forgotten, or by somebody generous.
                    return self.write_incoming(swap, IncomingState::Funded(payer)).await;
                }
                // The answer of f + 1 guardians that are behind must not count.
                if code == "contract_exists" {
                    return Ok(Step::Later);
                }
                Refusal::new("funding_rejected", reason)
            }
            Err(error) => {
                if federation.has_begun(name).await? || !memory.is_over(PATIENCE) {
                    tracing::info!(hash = hex::encode(swap.payment_hash()), %error, "a contract is not funded yet");
                    return Ok(Step::Later);
                }
                match error {
                    ClientError::InsufficientFunds { .. } | ClientError::TooManyNotes => {
                        Refusal::new("no_ecash", "the gateway does not have enough e-cash now")
                    }
                    error => Refusal::new("funding_failed", error.to_string()),
                }
            }
        };
        self.refuse_funding(swap, payer, refusal).await
    }

    async fn judge_again(&self, swap: &Incoming, payer: Payer) -> Result<Result<(), Refusal>, GatewayError> {
        let (held, info) = tokio::join!(self.node.held_payments(), self.node.info());
        let (held, height) = (held?, info?.block_height);
        Ok(match payer {
            Payer::Lightning { .. } => {
                match held.iter().find(|held| held.payment_hash == swap.payment_hash()) {
                    Some(held) => self.judge_funding(swap, Some(held.claim_deadline_height), height),
                    None => Err(Refusal::new("not_held", "the payment is no longer held")),
                }
            }
            Payer::Inside { .. } => self.judge_funding(swap, None, height),
        })
    }

    /// Nothing is funded and nothing will be.
    async fn refuse_funding(
        self: &Arc<Self>,
        mut swap: Incoming,
        payer: Payer,
        refusal: Refusal,
    ) -> Result<Step, GatewayError> {
        let hash = swap.payment_hash();
        let Payer::Inside { contract } = payer else {
            let Refusal { code, reason } = refusal;
            return self
                .write_incoming(swap, IncomingState::Refusing { code: code.to_owned(), reason })
                .await;
        };
        // The payer is refunded; the invoice may still be paid, by anybody, and the hash was never given to the node.
        let mut change = self.store.change().await;
        swap.attempt = swap.attempt.saturating_add(1);
        swap.state = IncomingState::Waiting;
        change.put_incoming(&swap);
        PAYMENTS.delete(&mut change.batch, &hash);
        self.cancel_inside(&mut change, contract, refusal.code, refusal.reason).await?;
        self.note_exposure(&swap);
        self.commit(change, &[SwapId::Incoming(hash), SwapId::Outgoing(contract)]).await?;
        Ok(Step::Next)
    }

    /// Within a change: cancels the outgoing swap that paid from inside.
    async fn cancel_inside(
        &self,
        change: &mut crate::store::Change<'_>,
        contract: federation_lightning::ContractId,
        code: &str,
        reason: String,
    ) -> Result<(), GatewayError> {
        let Some(mut outgoing) = OUTGOING.get(&change.batch, &contract).await? else { return Ok(()) };
        outgoing.state = self.cancelled(outgoing.federation, contract, code, reason);
        change.put_outgoing(&contract, &outgoing);
        change.totals(|totals| totals.cancelled = totals.cancelled.saturating_add(1)).await?;
        Ok(())
    }

    /// Waits for the preimage, or for the proof that it is wrong.
    async fn step_funded(self: &Arc<Self>, swap: Incoming, payer: Payer) -> Result<Step, GatewayError> {
        let federation = self.federation(&swap.federation)?;
        let leaves = Some(ContractState::Funded);
        let Some(report) = federation.contract(swap.contract_id(), PREIMAGE_WAIT, leaves).await? else {
            return Ok(Step::Later);
        };
        match (report.state, report.preimage) {
            (ContractState::Decrypted | ContractState::Claimed, Some(preimage)) => {
                // Guardians are believed on states, not on this: it costs nothing to check.
                if preimage.payment_hash() != swap.contract.terms.payment_hash {
                    tracing::error!(contract = %swap.contract_id(), "guardians tell a wrong preimage");
                    return Ok(Step::Later);
                }
                self.opened(swap, payer, preimage).await
            }
            (ContractState::Invalid | ContractState::Refunded, _) => self.found_invalid(swap, payer).await,
            _ => Ok(Step::Later),
        }
    }

    /// The preimage is right.
    async fn opened(
        self: &Arc<Self>,
        mut swap: Incoming,
        payer: Payer,
        preimage: Preimage,
    ) -> Result<Step, GatewayError> {
        let hash = swap.payment_hash();
        let contract = match payer {
            Payer::Lightning { deadline } => {
                return self.write_incoming(swap, IncomingState::Settling { preimage, deadline }).await;
            }
            Payer::Inside { contract } => contract,
        };
        // Both sides in one commit: there is nothing to settle in between.
        let mut change = self.store.change().await;
        swap.state = IncomingState::Done { preimage };
        change.put_incoming(&swap);
        count_received(&mut change, &swap).await?;
        if let Some(mut outgoing) = OUTGOING.get(&change.batch, &contract).await?
            && let OutgoingState::Inside(terms) = outgoing.state
        {
            outgoing.state =
                OutgoingState::Paid { preimage, amount: terms.amount, routing_fee: Amount::ZERO, attempt: 0 };
            change.put_outgoing(&contract, &outgoing);
        }
        self.note_exposure(&swap);
        self.commit(change, &[SwapId::Incoming(hash), SwapId::Outgoing(contract)]).await?;
        self.drive(SwapId::Outgoing(contract), false);
        Ok(Step::End)
    }

    /// The preimage is wrong: the money is ours again.
    async fn found_invalid(self: &Arc<Self>, mut swap: Incoming, payer: Payer) -> Result<Step, GatewayError> {
        let Payer::Inside { contract } = payer else {
            return self.write_incoming(swap, IncomingState::Invalid).await;
        };
        let mut change = self.store.change().await;
        swap.state = IncomingState::Invalid;
        change.put_incoming(&swap);
        let reason = "the payee's preimage was wrong".to_owned();
        self.cancel_inside(&mut change, contract, "wrong_preimage", reason).await?;
        let ids = [SwapId::Incoming(swap.payment_hash()), SwapId::Outgoing(contract)];
        self.commit(change, &ids).await?;
        Ok(Step::Next)
    }

    /// Takes the payment.
    async fn step_settling(
        self: &Arc<Self>,
        swap: Incoming,
        preimage: Preimage,
        deadline: u32,
    ) -> Result<Step, GatewayError> {
        let hash = swap.payment_hash();
        match self.node.settle(hash, preimage.0).await {
            Ok(()) => {
                let mut swap = swap;
                swap.state = IncomingState::Done { preimage };
                let mut change = self.store.change().await;
                change.put_incoming(&swap);
                count_received(&mut change, &swap).await?;
                self.note_exposure(&swap);
                self.commit(change, &[SwapId::Incoming(hash)]).await?;
                Ok(Step::End)
            }
            // A node that has just started may not have its HTLCs back yet.
            Err(NodeError::NotHeld(_)) => {
                let height = self.node.info().await?.block_height;
                if height <= deadline {
                    tracing::error!(
                        hash = hex::encode(hash),
                        "a payment to be settled is not held: it is tried again"
                    );
                    return Ok(Step::Later);
                }
                tracing::error!(
                    hash = hex::encode(hash),
                    "a funded payment was lost: the node let it expire"
                );
                self.write_incoming(swap, IncomingState::Lost { preimage }).await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Fails the payment and takes the contract back.
    async fn step_invalid(self: &Arc<Self>, mut swap: Incoming) -> Result<Step, GatewayError> {
        self.cancel_held(swap.payment_hash()).await?;
        let (id, federation) = (swap.contract_id(), self.federation(&swap.federation)?);
        let name = operation("reclaim", &id, swap.attempt);
        let done =
            match federation.reclaim_incoming(name, id, swap.contract.terms.amount, self.keypair()).await {
                Ok(_) => true,
                Err(ClientError::Rejected { code, reason }) => {
                    let report = federation.contract(id, Duration::ZERO, None).await?;
                    let done = report.is_some_and(|report| report.state == ContractState::Refunded);
                    if !done {
                        tracing::error!(contract = %id, code, reason, "taking a contract back was rejected");
                    }
                    done
                }
                Err(error) => return Err(error.into()),
            };
        if done {
            let reason = "the preimage that the payee encrypted was wrong".to_owned();
            let state = IncomingState::Failed { code: "wrong_preimage".to_owned(), reason };
            return self.write_incoming(swap, state).await;
        }
        swap.attempt = swap.attempt.saturating_add(1);
        self.write_incoming(swap, IncomingState::Invalid).await?;
        Ok(Step::Later)
    }

    /// Fails what is held.
    async fn step_refusing(
        self: &Arc<Self>,
        swap: Incoming,
        code: String,
        reason: String,
    ) -> Result<Step, GatewayError> {
        self.cancel_held(swap.payment_hash()).await?;
        tracing::info!(hash = hex::encode(swap.payment_hash()), code, reason, "an invoice is closed unpaid");
        self.write_incoming(swap, IncomingState::Failed { code, reason }).await
    }

    async fn cancel_held(&self, hash: [u8; 32]) -> Result<(), GatewayError> {
        match self.node.cancel(hash).await {
            Err(NodeError::AlreadySettled(_)) => {
                tracing::error!(hash = hex::encode(hash), "a payment that was to be failed is settled");
                Ok(())
            }
            result => Ok(result?),
        }
    }

    /// From `Offered` or `Waiting` to `Refusing`, if it still is there.
    pub(super) async fn refuse(
        self: &Arc<Self>,
        hash: [u8; 32],
        refusal: Refusal,
    ) -> Result<Step, GatewayError> {
        let mut change = self.store.change().await;
        let Some(mut swap) = INCOMING.get(&change.batch, &hash).await? else { return Ok(Step::End) };
        if !matches!(swap.state, IncomingState::Offered | IncomingState::Waiting) {
            return Ok(Step::Next);
        }
        swap.state = IncomingState::Refusing { code: refusal.code.to_owned(), reason: refusal.reason };
        change.put_incoming(&swap);
        self.commit(change, &[SwapId::Incoming(hash)]).await?;
        Ok(Step::Next)
    }

    async fn write_incoming(&self, mut swap: Incoming, state: IncomingState) -> Result<Step, GatewayError> {
        let hash = swap.payment_hash();
        swap.state = state;
        let mut change = self.store.change().await;
        change.put_incoming(&swap);
        self.note_exposure(&swap);
        self.commit(change, &[SwapId::Incoming(hash)]).await?;
        Ok(Step::Next)
    }
}

async fn count_received(change: &mut crate::store::Change<'_>, swap: &Incoming) -> Result<(), GatewayError> {
    let (amount, paid) = (swap.contract.terms.amount, swap.amount);
    change
        .totals(|totals| {
            totals.received = totals.received.saturating_add(1);
            Totals::add(&mut totals.received_amount, amount);
            Totals::add(&mut totals.received_fees, paid.checked_sub(amount).unwrap_or(Amount::ZERO));
        })
        .await?;
    Ok(())
}

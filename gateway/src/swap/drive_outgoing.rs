//! The steps of an outgoing swap.

use std::sync::Arc;
use std::time::Duration;

use federation_client::ClientError;
use federation_core::Amount;
use federation_lightning::{ContractId, ContractState, Preimage};
use lightning_invoice::Bolt11Invoice;

use super::drive::{Memory, Step};
use super::incoming::operation;
use super::outgoing::{Outgoing, OutgoingState, Terms};
use super::pay::PayOrder;
use super::{SwapId, Swaps};
use crate::GatewayError;
use crate::federation::Federation;
use crate::node::{NodeError, PayRequest, PaymentStatus};
use crate::store::{Totals, now};

/// How long the node looks for routes.
const RETRY_FOR: Duration = Duration::from_secs(60);

/// No HTLC is under way for longer: BOLT 4's `max_htlc_cltv` is 2016 blocks, two weeks, and blocks may be slow.
const LONGEST_HTLC: Duration = Duration::from_secs(30 * 24 * 3600);

impl Swaps {
    /// Takes one step.
    pub(super) async fn step_outgoing(
        self: &Arc<Self>,
        id: ContractId,
        memory: &mut Memory,
    ) -> Result<Step, GatewayError> {
        let Some(swap) = self.store.outgoing(&id).await? else { return Ok(Step::End) };
        match swap.state.clone() {
            OutgoingState::Started(terms) => self.step_started(swap, terms, memory).await,
            OutgoingState::Paid { preimage, amount, routing_fee, attempt } => {
                self.step_claim(swap, preimage, amount, routing_fee, attempt).await
            }
            // Its incoming swap goes on.
            OutgoingState::Inside(_) => Ok(Step::End),
            OutgoingState::Done { .. }
            | OutgoingState::Cancelled { .. }
            | OutgoingState::Lost { .. }
            | OutgoingState::Lapsed => Ok(Step::End),
        }
    }

    /// Pays, or asks for the result.
    ///
    /// Only the task of a swap that was written just now calls `pay` without asking first. A task of a later process asks,
    /// and calls `pay` only if the node has not begun the payment, while the contract still covers it. A node that can't
    /// tell what became of a payment says `Pending`: it is asked again, and nothing else is done. One that has answered a
    /// call of `pay` with `Unknown` breaks its promise, and is not asked to pay again.
    async fn step_started(
        self: &Arc<Self>,
        swap: Outgoing,
        terms: Terms,
        memory: &mut Memory,
    ) -> Result<Step, GatewayError> {
        let fresh = std::mem::take(&mut memory.fresh);
        let invoice: Bolt11Invoice = swap
            .invoice
            .parse()
            .map_err(|_| GatewayError::refused("corrupt", "the stored invoice can't be read"))?;
        let hash = swap.contract.payment_hash.0;
        let status = if fresh {
            self.ask_to_pay(&invoice, terms, memory).await
        } else {
            match self.node.payment(hash).await {
                Ok(PaymentStatus::Unknown) if !memory.asked => match self.terms_again(&swap, &invoice).await?
                {
                    Some(terms) => {
                        tracing::warn!(contract = %swap.id(), "the node has not begun a payment: it is asked to make it");
                        self.ask_to_pay(&invoice, terms, memory).await
                    }
                    None => Ok(PaymentStatus::Unknown),
                },
                status => status,
            }
        };
        match status {
            Ok(PaymentStatus::Succeeded { preimage, fee_msat }) => {
                self.paid(swap, Preimage(preimage), terms.amount, Amount::from_msat(fee_msat)).await?;
                Ok(Step::Next)
            }
            Ok(PaymentStatus::Failed { reason }) => {
                self.cancel_outgoing(swap, "payment_failed", reason).await?;
                Ok(Step::End)
            }
            // The only call that was ever made, and it says that it did nothing.
            Err(NodeError::Refused(reason)) if fresh => {
                self.cancel_outgoing(swap, "node_refused", reason).await?;
                Ok(Step::End)
            }
            Ok(PaymentStatus::Pending | PaymentStatus::Unknown) => self.still_unknown(swap).await,
            Err(error) => {
                tracing::warn!(contract = %swap.id(), %error, "the node can't tell about a payment");
                self.still_unknown(swap).await
            }
        }
    }

    async fn ask_to_pay(
        &self,
        invoice: &Bolt11Invoice,
        terms: Terms,
        memory: &mut Memory,
    ) -> Result<PaymentStatus, NodeError> {
        let request = PayRequest {
            invoice: invoice.clone(),
            amount_msat: terms.amount.msat(),
            max_fee_msat: terms.max_fee.msat(),
            max_delay_blocks: terms.max_delay,
            retry_for: RETRY_FOR,
        };
        let answer = self.node.pay(request).await;
        memory.asked = answer.is_ok();
        answer
    }

    /// The terms now, if the contract still covers a payment.
    async fn terms_again(
        &self,
        swap: &Outgoing,
        invoice: &Bolt11Invoice,
    ) -> Result<Option<Terms>, GatewayError> {
        let federation = self.federation(&swap.federation)?;
        let (view, height, info) = tokio::join!(
            federation.contract(swap.id(), Duration::ZERO, None),
            federation.height(),
            self.node.info(),
        );
        let (Some(view), height, info) = (view?, height?, info?) else { return Ok(None) };
        if view.state != ContractState::Funded {
            return Ok(None);
        }
        let order = PayOrder {
            federation: swap.federation,
            contract: swap.contract.clone(),
            invoice: invoice.clone(),
        };
        let height = height.max(info.block_height);
        Ok(self.terms(&order, &*federation, height).await?.ok())
    }

    /// No result yet. If the user has taken the money back at the expiry, waiting for one that can't come has an end.
    async fn still_unknown(self: &Arc<Self>, swap: Outgoing) -> Result<Step, GatewayError> {
        let federation = self.federation(&swap.federation)?;
        let report = federation.contract(swap.id(), Duration::ZERO, None).await?;
        if report.is_none_or(|report| report.state != ContractState::Refunded) {
            return Ok(Step::Later);
        }
        let status = self.node.payment(swap.contract.payment_hash.0).await?;
        // A payment that is really under way is still worth its result: a loss is counted as one.
        let lived = now().as_secs().saturating_sub(swap.began_at);
        let is_over = match status {
            PaymentStatus::Unknown => true,
            PaymentStatus::Pending => lived > LONGEST_HTLC.as_secs(),
            PaymentStatus::Succeeded { .. } | PaymentStatus::Failed { .. } => false,
        };
        if !is_over {
            return Ok(Step::Later);
        }
        tracing::error!(contract = %swap.id(), "the node never told what became of a payment, and the user has the money back: check by hand whether it was paid");
        self.write_outgoing(swap, OutgoingState::Lapsed).await?;
        Ok(Step::End)
    }

    /// Writes the preimage at once: it is the money.
    async fn paid(
        &self,
        swap: Outgoing,
        preimage: Preimage,
        amount: Amount,
        routing_fee: Amount,
    ) -> Result<(), GatewayError> {
        self.write_outgoing(swap, OutgoingState::Paid { preimage, amount, routing_fee, attempt: 0 }).await
    }

    /// Claims the contract.
    async fn step_claim(
        &self,
        swap: Outgoing,
        preimage: Preimage,
        amount: Amount,
        routing_fee: Amount,
        attempt: u32,
    ) -> Result<Step, GatewayError> {
        let (id, federation) = (swap.id(), self.federation(&swap.federation)?);
        let name = operation("claim", &id, attempt);
        match federation.claim_outgoing(name, id, swap.contract.amount, self.keypair(), preimage).await {
            Ok(_) => {
                self.claimed(swap, preimage, amount, routing_fee).await?;
                Ok(Step::End)
            }
            Err(ClientError::Rejected { code, reason }) => {
                match self.state_of(&*federation, id).await? {
                    // By an earlier claim of ours that the wallet has forgotten: nobody else can.
                    Some(ContractState::Claimed) => {
                        self.claimed(swap, preimage, amount, routing_fee).await?;
                        Ok(Step::End)
                    }
                    Some(ContractState::Refunded) => {
                        tracing::error!(contract = %id, "a contract was paid for, and the user has the money back");
                        self.write_outgoing(swap, OutgoingState::Lost { preimage }).await?;
                        Ok(Step::End)
                    }
                    _ => {
                        tracing::error!(contract = %id, code, reason, "a claim was rejected: it is tried again");
                        let attempt = attempt.saturating_add(1);
                        let state = OutgoingState::Paid { preimage, amount, routing_fee, attempt };
                        self.write_outgoing(swap, state).await?;
                        Ok(Step::Later)
                    }
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn state_of(
        &self,
        federation: &dyn Federation,
        id: ContractId,
    ) -> Result<Option<ContractState>, GatewayError> {
        Ok(federation.contract(id, Duration::ZERO, None).await?.map(|report| report.state))
    }

    async fn claimed(
        &self,
        mut swap: Outgoing,
        preimage: Preimage,
        amount: Amount,
        routing_fee: Amount,
    ) -> Result<(), GatewayError> {
        let id = swap.id();
        let fee = swap.contract.amount.checked_sub(amount).unwrap_or(Amount::ZERO);
        swap.state = OutgoingState::Done { preimage };
        let mut change = self.store.change().await;
        change.put_outgoing(&id, &swap);
        change
            .totals(|totals| {
                totals.sent = totals.sent.saturating_add(1);
                Totals::add(&mut totals.sent_amount, amount);
                Totals::add(&mut totals.sent_fees, fee);
                Totals::add(&mut totals.routing_fees, routing_fee);
            })
            .await?;
        self.commit(change, &[SwapId::Outgoing(id)]).await
    }

    async fn cancel_outgoing(
        &self,
        mut swap: Outgoing,
        code: &str,
        reason: String,
    ) -> Result<(), GatewayError> {
        let id = swap.id();
        swap.state = self.cancelled(swap.federation, id, code, reason);
        let mut change = self.store.change().await;
        change.put_outgoing(&id, &swap);
        change.totals(|totals| totals.cancelled = totals.cancelled.saturating_add(1)).await?;
        self.commit(change, &[SwapId::Outgoing(id)]).await
    }

    async fn write_outgoing(&self, mut swap: Outgoing, state: OutgoingState) -> Result<(), GatewayError> {
        let id = swap.id();
        swap.state = state;
        let mut change = self.store.change().await;
        change.put_outgoing(&id, &swap);
        self.commit(change, &[SwapId::Outgoing(id)]).await
    }
}

//! How an incoming swap begins: a user hands in a contract and gets a hold invoice for it.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::Hash as _;
use federation_core::api::ApiError;
use federation_core::{Amount, FederationId};
use federation_lightning::IncomingContract;
use federation_lightning::client::{IncomingCheck, check_incoming};

use super::incoming::{Incoming, IncomingState};
use super::{SwapId, Swaps};
use crate::GatewayError;
use crate::node::HoldInvoiceRequest;
use crate::store::{INCOMING, PAYMENTS, now};

/// For how long an invoice can be paid. Its contract can be funded for about eight hours (`FUND_WINDOW_BLOCKS`).
const EXPIRY: Duration = Duration::from_secs(3600);
/// The longest description, in bytes (BOLT 11).
const MAX_DESCRIPTION: usize = 639;

/// What a user asks for.
#[derive(Debug, Clone)]
pub(crate) struct InvoiceOrder {
    pub federation: FederationId,
    pub contract: IncomingContract,
    pub amount: Amount,
    pub description: String,
}

impl Swaps {
    /// The hold invoice for a contract: the same one whenever it is asked for.
    ///
    /// # Errors
    /// A contract that the gateway won't fund, or whose payment hash was used before; a node that is not reachable.
    pub async fn invoice(self: &Arc<Self>, order: InvoiceOrder) -> Result<String, GatewayError> {
        let hash = order.contract.terms.payment_hash.0;
        if self.store.incoming(&hash).await?.is_none() {
            self.check_offer(&order).await?;
        }
        let swap = self.offer(order).await?;
        if let Some(invoice) = swap.invoice {
            return Ok(invoice);
        }
        let invoice = self
            .node
            .hold_invoice(HoldInvoiceRequest {
                payment_hash: hash,
                amount_msat: swap.amount.msat(),
                description: swap.description.clone(),
                expiry: Duration::from_secs(swap.expiry),
            })
            .await?;
        if invoice.payment_hash().to_byte_array() != hash
            || invoice.amount_milli_satoshis() != Some(swap.amount.msat())
        {
            return Err(ApiError::new(500, "wrong_invoice", "the gateway's node made a wrong invoice").into());
        }
        self.publish(hash, invoice.to_string()).await
    }

    async fn check_offer(&self, order: &InvoiceOrder) -> Result<(), GatewayError> {
        if self.is_draining() {
            let detail = "this gateway takes nothing new: choose another one";
            return Err(ApiError::unavailable("draining", detail).into());
        }
        let federation = self.federation(&order.federation)?;
        if order.description.len() > MAX_DESCRIPTION {
            let detail = format!("the description has more than {MAX_DESCRIPTION} bytes");
            return Err(GatewayError::refused("long_description", detail));
        }
        let (min, max) = (self.limits.min, self.limits.max);
        if order.amount < min || order.amount > max {
            let detail = format!("this gateway takes on payments of {min} to {max}, not {}", order.amount);
            return Err(GatewayError::refused("limits", detail));
        }
        if self.store.open_incoming_count().await? >= self.limits.max_invoices {
            let detail = "this gateway has too many open invoices: try again later or another one";
            return Err(ApiError::too_many("busy", detail).into());
        }
        let info = self.node.info().await?;
        if info.network != federation.network() {
            return Err(GatewayError::refused("network", "the gateway's node is on another network"));
        }
        let (fees, gateway_key) = (self.receive_fees().await?, self.key());
        let order = order.clone();
        // Pairings: milliseconds of CPU.
        let checked = tokio::task::spawn_blocking(move || {
            let mut result = Ok(());
            for fees in &fees {
                result = check_incoming(&IncomingCheck {
                    contract: &order.contract,
                    federation: order.federation,
                    gateway_key,
                    fees,
                    invoice_amount: order.amount,
                    height: info.block_height,
                });
                if result.is_ok() {
                    break;
                }
            }
            result
        })
        .await
        .map_err(|error| ApiError::new(500, "internal", error.to_string()))?;
        checked.map_err(|error| GatewayError::refused("bad_contract", error.to_string()))
    }

    /// Writes the swap, or finds it.
    async fn offer(&self, order: InvoiceOrder) -> Result<Incoming, GatewayError> {
        let conflict = |detail: &str| -> GatewayError { ApiError::new(409, "hash_used", detail).into() };
        let hash = order.contract.terms.payment_hash.0;
        let mut change = self.store.change().await;
        if let Some(known) = INCOMING.get(&change.batch, &hash).await? {
            if known.federation != order.federation
                || known.contract != order.contract
                || known.amount != order.amount
            {
                return Err(conflict(
                    "the payment hash was used for another contract: take a fresh preimage",
                ));
            }
            if matches!(known.state, IncomingState::Refusing { .. } | IncomingState::Failed { .. }) {
                return Err(conflict("the invoice can't be paid any more: ask for a new one"));
            }
            return Ok(known);
        }
        if PAYMENTS.contains(&change.batch, &hash).await? {
            return Err(conflict(
                "the gateway pays an invoice with this payment hash: take a fresh preimage",
            ));
        }
        let swap = Incoming {
            federation: order.federation,
            contract: order.contract,
            amount: order.amount,
            description: order.description,
            began_at: now().as_secs(),
            expiry: EXPIRY.as_secs(),
            invoice: None,
            attempt: 0,
            state: IncomingState::Offered,
        };
        change.put_incoming(&swap);
        self.commit(change, &[SwapId::Incoming(hash)]).await?;
        Ok(swap)
    }

    /// Writes the invoice before anybody sees it.
    async fn publish(&self, hash: [u8; 32], invoice: String) -> Result<String, GatewayError> {
        let mut change = self.store.change().await;
        let gone =
            || ApiError::new(409, "hash_used", "the invoice can't be paid any more: ask for a new one");
        let mut swap = INCOMING.get(&change.batch, &hash).await?.ok_or_else(gone)?;
        match (&swap.state, &swap.invoice) {
            (IncomingState::Offered, _) => {
                swap.state = IncomingState::Waiting;
                swap.invoice = Some(invoice.clone());
                change.put_incoming(&swap);
                self.commit(change, &[SwapId::Incoming(hash)]).await?;
                Ok(invoice)
            }
            (_, Some(known)) => Ok(known.clone()),
            (_, None) => Err(gone().into()),
        }
    }

    /// An incoming swap, when it is decided or the time is over.
    pub async fn wait_incoming(
        &self,
        hash: [u8; 32],
        wait: Duration,
    ) -> Result<Option<Incoming>, GatewayError> {
        let deadline = tokio::time::Instant::now() + wait;
        let mut changed = self.changed.subscribe();
        loop {
            let swap = self.store.incoming(&hash).await?;
            let open = swap.as_ref().is_some_and(|swap| {
                matches!(
                    swap.state,
                    IncomingState::Offered
                        | IncomingState::Waiting
                        | IncomingState::Funding(_)
                        | IncomingState::Funded(_)
                )
            });
            if !open || !super::report::wait_for(&mut changed, SwapId::Incoming(hash), deadline).await {
                return Ok(swap);
            }
        }
    }
}

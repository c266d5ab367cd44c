//! How an outgoing swap begins: a user hands in a funded contract and an invoice.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::Hash as _;
use federation_core::FederationId;
use federation_core::api::ApiError;
use federation_lightning::client::{OutgoingCheck, check_outgoing, invoice_hash};
use federation_lightning::contract::sign_cancellation;
use federation_lightning::message::Cancellation;
use federation_lightning::{ContractId, ContractState, OutgoingContract};
use lightning_invoice::Bolt11Invoice;

use super::incoming::{Incoming, IncomingState, Payer};
use super::outgoing::{Outgoing, OutgoingState, Terms};
use super::{SwapId, Swaps};
use crate::GatewayError;
use crate::federation::Federation;
use crate::node::{NodeInfo, PaymentStatus};
use crate::store::{INCOMING, OUTGOING, PAYMENTS, now};

/// How long a contract may take to show up with f + 1 guardians: they are some epochs apart.
const FUNDED_WITHIN: Duration = Duration::from_secs(10);

/// What a user asks for.
#[derive(Debug, Clone)]
pub(crate) struct PayOrder {
    pub federation: FederationId,
    pub contract: OutgoingContract,
    pub invoice: Bolt11Invoice,
}

/// A contract that won't be paid for: code and sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub code: &'static str,
    pub reason: String,
}

impl Refusal {
    pub fn new(code: &'static str, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

impl Swaps {
    /// Begins to pay, or finds out that it began or ended before. Returns as soon as the first state is on disk.
    ///
    /// # Errors
    /// A contract that isn't this gateway's, isn't for this invoice or isn't funded; guardians or node not reachable.
    /// Nothing is begun then. Whatever else is wrong is answered by a swap that is cancelled, which refunds the user.
    pub async fn pay(self: &Arc<Self>, order: PayOrder) -> Result<Outgoing, GatewayError> {
        let id = order.contract.id(order.federation);
        if let Some(known) = self.store.outgoing(&id).await? {
            return Ok(known);
        }
        let federation = self.federation(&order.federation)?;
        if order.contract.gateway_key != self.key() {
            return Err(GatewayError::refused("wrong_gateway", "the contract is for another gateway"));
        }
        let hash = order.invoice.payment_hash().to_byte_array();
        if order.contract.payment_hash.0 != hash
            || order.contract.invoice_hash != invoice_hash(&order.invoice)
        {
            return Err(GatewayError::refused("wrong_invoice", "the contract is for another invoice"));
        }
        let (view, height, info, earlier) = tokio::join!(
            federation.contract(id, FUNDED_WITHIN, None),
            federation.height(),
            self.node.info(),
            self.node.payment(hash),
        );
        let (view, height, info, earlier) = (view?, height?, info?, earlier?);
        let view = view.ok_or_else(|| {
            ApiError::unavailable("not_funded", "f + 1 guardians don't know of this contract yet: try again")
        })?;
        if view.state != ContractState::Funded {
            return Err(GatewayError::refused("contract_spent", format!("the contract is {}", view.state)));
        }
        // A cancellation is a refund, so it needs proof that this contract was not paid. A gateway whose database was
        // restored from an old copy has none: its node knows the hash, it does not know for which contract.
        if earlier != PaymentStatus::Unknown && PAYMENTS.get(self.store.reader(), &hash).await?.is_none() {
            tracing::error!(
                "the node has paid or tried {}, but there is no record for which contract",
                order.contract.payment_hash
            );
            return Err(GatewayError::Refused(ApiError::new(
                409,
                "already_tried",
                "the gateway's node has paid or tried this invoice, and the gateway has no record of it: the contract \
                 can be refunded after its expiry",
            )));
        }
        // An own invoice is checked against its contract's heights too.
        let own = self.store.incoming(&hash).await?;
        let inside = own.map(|incoming| self.check_inside(&incoming, &order, &info));
        let height = height.max(info.block_height);
        let verdict = self.judge(&order, &*federation, height, &earlier).await?;
        self.begin(order, id, verdict, inside).await
    }

    /// Whether the contract is one to pay for. It is funded and this gateway's: a refusal refunds it.
    async fn judge(
        &self,
        order: &PayOrder,
        federation: &dyn Federation,
        height: u32,
        earlier: &PaymentStatus,
    ) -> Result<Result<Terms, Refusal>, GatewayError> {
        if self.is_draining() {
            return Ok(Err(Refusal::new("draining", "this gateway takes nothing new: choose another one")));
        }
        // Whatever the node did to this hash, it was for the contract of our record.
        if *earlier != PaymentStatus::Unknown {
            return Ok(Err(Refusal::new(
                "already_tried",
                "the gateway's node has paid or tried this invoice before: ask for a new one",
            )));
        }
        if self.store.open_outgoing_count().await? >= self.limits.max_pending {
            return Ok(Err(Refusal::new(
                "busy",
                "this gateway has too many payments under way: try another one",
            )));
        }
        let terms = self.terms(order, federation, height).await?;
        Ok(terms.and_then(|terms| {
            let (min, max) = (self.limits.min, self.limits.max);
            if terms.amount < min || terms.amount > max {
                let reason =
                    format!("this gateway takes on payments of {min} to {max}, not {}", terms.amount);
                return Err(Refusal::new("limits", reason));
            }
            Ok(terms)
        }))
    }

    /// Within what the node may pay at this height.
    pub(super) async fn terms(
        &self,
        order: &PayOrder,
        federation: &dyn Federation,
        height: u32,
    ) -> Result<Result<Terms, Refusal>, GatewayError> {
        let mut first = None;
        for fees in self.send_fees().await? {
            let checked = check_outgoing(&OutgoingCheck {
                contract: &order.contract,
                invoice: &order.invoice,
                gateway_key: self.key(),
                fees: &fees,
                network: federation.network(),
                now: now(),
                height,
            });
            match checked {
                Ok(terms) => {
                    // The federation's fee for claiming comes out of what is left, too.
                    let max_fee = terms.budget.checked_sub(federation.fees().spend);
                    return Ok(max_fee
                        .map(|max_fee| Terms { amount: terms.amount, max_fee, max_delay: terms.max_delay })
                        .ok_or_else(|| {
                            Refusal::new("underfunded", "the contract doesn't cover the federation's fee")
                        }));
                }
                Err(error) => {
                    first.get_or_insert_with(|| Refusal::new("unpayable", error.to_string()));
                }
            }
        }
        Ok(Err(first.unwrap_or_else(|| Refusal::new("unpayable", "this gateway has no fees"))))
    }

    /// Writes the swap's first state, in the same commit that takes the payment hash.
    async fn begin(
        self: &Arc<Self>,
        order: PayOrder,
        id: ContractId,
        verdict: Result<Terms, Refusal>,
        inside: Option<Result<(), Refusal>>,
    ) -> Result<Outgoing, GatewayError> {
        let hash = order.contract.payment_hash.0;
        let mut change = self.store.change().await;
        if let Some(known) = OUTGOING.get(&change.batch, &id).await? {
            return Ok(known);
        }
        let taken = PAYMENTS.get(&change.batch, &hash).await?;
        let own = INCOMING.get(&change.batch, &hash).await?;
        let mut swap = Outgoing {
            federation: order.federation,
            contract: order.contract,
            invoice: order.invoice.to_string(),
            began_at: now().as_secs(),
            // Replaced below.
            state: OutgoingState::Lapsed,
        };
        let verdict = verdict.and_then(|terms| match (&taken, &own, inside) {
            (Some(_), ..) => Err(Refusal::new(
                "already_paid",
                "this gateway pays or has tried this invoice for another contract: ask for a new one",
            )),
            (None, None, _) => Ok((terms, None)),
            (None, Some(incoming), Some(Ok(()))) if incoming.state == IncomingState::Waiting => {
                if self.is_within_cap(incoming) {
                    Ok((terms, Some(incoming.clone())))
                } else {
                    Err(Refusal::new("exposure", "too much is under way at this gateway: try another one"))
                }
            }
            (None, Some(_), Some(Err(refusal))) => Err(refusal),
            (None, Some(_), _) => Err(Refusal::new(
                "already_paid",
                "this gateway's invoice can't be paid any more: ask for a new one",
            )),
        });
        let mut driven = None;
        let mut changed = vec![SwapId::Outgoing(id)];
        match verdict {
            Ok((terms, None)) => {
                swap.state = OutgoingState::Started(terms);
                PAYMENTS.put(&mut change.batch, &hash, &id);
                driven = Some(SwapId::Outgoing(id));
            }
            Ok((terms, Some(mut incoming))) => {
                swap.state = OutgoingState::Inside(terms);
                PAYMENTS.put(&mut change.batch, &hash, &id);
                incoming.state = IncomingState::Funding(Payer::Inside { contract: id });
                change.put_incoming(&incoming);
                // From now on what else arrives must not push it over the cap.
                self.note_exposure(&incoming);
                driven = Some(SwapId::Incoming(hash));
                changed.push(SwapId::Incoming(hash));
            }
            Err(refusal) => {
                swap.state = self.cancelled(swap.federation, id, refusal.code, refusal.reason);
                change.totals(|totals| totals.cancelled = totals.cancelled.saturating_add(1)).await?;
            }
        }
        change.put_outgoing(&id, &swap);
        self.commit(change, &changed).await?;
        if let Some(driven) = driven {
            self.drive(driven, true);
        }
        Ok(swap)
    }

    /// Whether an own invoice can be paid from inside.
    fn check_inside(&self, incoming: &Incoming, order: &PayOrder, info: &NodeInfo) -> Result<(), Refusal> {
        if incoming.invoice.as_deref() != Some(order.invoice.to_string().as_str()) {
            return Err(Refusal::new(
                "wrong_invoice",
                "this payment hash belongs to another invoice of this gateway",
            ));
        }
        self.judge_funding(incoming, None, info.block_height)
    }

    /// The state of a contract that was not paid for and never will be.
    pub(super) fn cancelled(
        &self,
        federation: FederationId,
        id: ContractId,
        code: &str,
        reason: String,
    ) -> OutgoingState {
        let cancellation = Cancellation(sign_cancellation(federation, id, self.keypair()));
        OutgoingState::Cancelled { code: code.to_owned(), reason, cancellation }
    }

    /// A payment, when it is decided or the time is over.
    pub async fn wait_outgoing(
        &self,
        id: ContractId,
        wait: Duration,
    ) -> Result<Option<Outgoing>, GatewayError> {
        let deadline = tokio::time::Instant::now() + wait;
        let mut changed = self.changed.subscribe();
        loop {
            let swap = self.store.outgoing(&id).await?;
            match &swap {
                Some(open) if !open.state.is_decided() => {}
                _ => return Ok(swap),
            }
            if !super::report::wait_for(&mut changed, SwapId::Outgoing(id), deadline).await {
                return Ok(self.store.outgoing(&id).await?);
            }
        }
    }
}

//! Paying a BOLT 11 invoice through a gateway that need not be trusted.
//!
//! ```text
//! funding ─▶ waiting ─▶ paid                 the gateway, or the federation, shows the preimage
//!    │          └─▶ refunding ─▶ refunded    the gateway's cancellation at once, or the expiry height
//!    └─▶ failed                              the contract was never funded
//! ```

use std::time::Duration;

use bitcoin::hashes::Hash as _;
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::Amount;
use federation_core::encoding::encode;
use federation_core::module::Value;
use federation_lightning::client::{
    LightningError, PayOrder, fund, outgoing_contract, payable_amount, refund_outgoing,
};
use federation_lightning::contract::verify_cancellation;
use federation_lightning::message::Cancellation;
use federation_lightning::report::{ContractReport, ContractState};
use federation_lightning::{Contract, KIND, OutgoingContract, Preimage};
use lightning_invoice::Bolt11Invoice;

use super::flow::{Flow, put};
use super::gateways::Direction;
use super::{Kind, Operation, fresh_id, now, step_id};
use crate::api::{CallError, Request};
use crate::client::Client;
use crate::engine::Plan;
use crate::gateway::{PayRequest, PayResponse};
use crate::store::{OPERATIONS, OpId, PAYMENTS, counter};
use crate::{ClientError, Result};

/// How long one question to the gateway is held back.
const WAIT: Duration = Duration::from_secs(20);
/// How often the federation is asked when the gateway has nothing new.
const LOOK: Duration = Duration::from_secs(2);

/// A payment.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Pay {
    /// The invoice.
    pub invoice: String,
    /// What the payee gets.
    pub amount: Amount,
    /// The base URL of the gateway.
    pub gateway: String,
    /// What is locked for the gateway.
    pub contract: OutgoingContract,
    /// The number of the contract's user key.
    pub key: u64,
    /// Where it stands.
    pub state: State,
}

/// Where a payment stands.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum State {
    /// The contract is being funded.
    Funding,
    /// The gateway is paying.
    Waiting,
    /// Paid.
    Paid {
        /// The proof.
        preimage: Preimage,
    },
    /// The money is coming back.
    Refunding {
        /// Why.
        reason: String,
        /// The gateway's signature; without it the expiry height has passed.
        cancellation: Option<Cancellation>,
        /// How often this was tried before.
        round: u32,
    },
    /// The money is back.
    Refunded {
        /// Why the payment failed.
        reason: String,
    },
    /// Nothing was ever locked.
    Failed {
        /// The stable code.
        code: String,
        /// The reason.
        reason: String,
    },
}

impl State {
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Funding | Self::Waiting | Self::Refunding { .. })
    }
}

/// A payment that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paid {
    /// The operation.
    pub operation: OpId,
    /// The proof.
    pub preimage: Preimage,
    /// What the payee got.
    pub amount: Amount,
    /// What the gateway got on top.
    pub fee: Amount,
    /// The gateway's base URL.
    pub gateway: String,
}

/// What is wrong with an invoice, in this crate's words.
pub(super) fn lightning_error(error: LightningError, invoice: Option<&Bolt11Invoice>) -> ClientError {
    match error {
        LightningError::Network { invoice, federation } => {
            ClientError::InvoiceNetwork { invoice: invoice.to_string(), federation }
        }
        LightningError::InvoiceExpired => {
            let since = invoice.and_then(|invoice| now().checked_sub(invoice.expires_at()?));
            ClientError::InvoiceExpired(since.unwrap_or_default())
        }
        LightningError::NoAmount => ClientError::InvoiceWithoutAmount,
        LightningError::ZeroAmount => ClientError::ZeroAmount,
        LightningError::Overflow => ClientError::AmountTooLarge,
        LightningError::FeeTooHigh { amount, .. } => ClientError::BelowFees(amount),
        LightningError::Limits { .. } => ClientError::NoGateway(format!(" for this amount ({error})")),
        other => ClientError::Internal(other.to_string()),
    }
}

impl Client {
    /// Reads an invoice and says what it asks for, if it can be paid here and now.
    ///
    /// # Errors
    /// [`ClientError::BadInvoice`], [`ClientError::InvoiceExpired`], [`ClientError::InvoiceNetwork`],
    /// [`ClientError::InvoiceWithoutAmount`], [`ClientError::ZeroAmount`].
    pub fn read_invoice(&self, text: &str) -> Result<(Bolt11Invoice, Amount)> {
        let text = text.trim();
        let text = text
            .get(..10)
            .filter(|p| p.eq_ignore_ascii_case("lightning:"))
            .map_or(text, |p| text.get(p.len()..).unwrap_or_default());
        let invoice: Bolt11Invoice =
            text.parse().map_err(|error: lightning_invoice::ParseOrSemanticError| {
                ClientError::BadInvoice(error.to_string())
            })?;
        let amount = payable_amount(&invoice, self.config().network, now())
            .map_err(|error| lightning_error(error, Some(&invoice)))?;
        Ok((invoice, amount))
    }

    /// Pays an invoice through the gateway with this URL or key, or the cheapest one that is alive. An invoice that is being
    /// paid already is waited for.
    ///
    /// # Errors
    /// Those of [`read_invoice`](Self::read_invoice); [`ClientError::InvoicePaid`], [`ClientError::NoGateway`],
    /// [`ClientError::GatewayDown`], [`ClientError::InsufficientFunds`]: nothing has moved.
    /// [`ClientError::PaymentFailed`]: the money is back. [`ClientError::PaymentPending`]: it goes on by itself.
    pub async fn pay(&self, invoice: &str, gateway: Option<&str>, memo: &str) -> Result<Paid> {
        let op = self.begin_pay(invoice, gateway, memo).await?;
        self.wait_paid(op).await
    }

    /// The first half of [`pay`](Self::pay): everything up to the point from which it goes on by itself.
    ///
    /// # Errors
    /// As there.
    pub async fn begin_pay(&self, text: &str, gateway: Option<&str>, memo: &str) -> Result<OpId> {
        let (invoice, amount) = match self.read_invoice(text) {
            // What was paid is "paid", not "expired".
            Err(ClientError::InvoiceExpired(since)) => {
                let parsed = text.trim().parse::<Bolt11Invoice>().ok();
                let known = match parsed {
                    Some(invoice) => self.known_payment(&invoice).await?,
                    None => None,
                };
                return known.ok_or(ClientError::InvoiceExpired(since));
            }
            other => other?,
        };
        if let Some(op) = self.known_payment(&invoice).await? {
            return Ok(op);
        }
        let info = self.choose_gateway(Direction::Send, amount, gateway).await?;
        let height = self.height().await?;
        let key = self.next_number(counter::OUTGOING).await?;
        let user = self.lightning_keys().outgoing(key).map_err(|error| lightning_error(error, None))?;
        let order = PayOrder {
            invoice: &invoice,
            gateway: &info,
            network: self.config().network,
            now: now(),
            height,
            user_key: user.x_only_public_key().0,
        };
        let contract = outgoing_contract(&order).map_err(|error| lightning_error(error, Some(&invoice)))?;
        let (module, config) = self.lightning();
        let value = Value { amount: contract.amount, fee: config.fees.fund };
        let output = fund(module, Contract::Outgoing(contract.clone()));
        let op = fresh_id();
        let hash = contract.payment_hash.0;
        let (invoice, gateway) = (invoice.to_string(), info.api_url);
        let pay = Pay { invoice, amount, gateway, contract, key, state: State::Funding };
        let operation = Operation::new(Kind::Pay(Box::new(pay)), memo);
        // Two payments of the same invoice at once: the second one finds the first one's entry here.
        let _one = self.inner.paying.lock().await;
        if let Some(op) = self.known_payment_by_hash(hash).await? {
            return Ok(op);
        }
        self.begin(Plan::new(step_id(&op, FUND, 0), Vec::new(), vec![(output, value)]), |batch, _| {
            put(batch, &op, &operation);
            PAYMENTS.put(batch, &hash, &op);
            Ok(())
        })
        .await?;
        self.spawn_flow(op);
        Ok(op)
    }

    async fn known_payment(&self, invoice: &Bolt11Invoice) -> Result<Option<OpId>> {
        self.known_payment_by_hash(invoice.payment_hash().to_byte_array()).await
    }

    /// The payment of an invoice that is under way; an error if it is done; nothing if it failed.
    async fn known_payment_by_hash(&self, hash: [u8; 32]) -> Result<Option<OpId>> {
        let Some(op) = PAYMENTS.get(self.db(), &hash).await? else { return Ok(None) };
        match OPERATIONS.get(self.db(), &op).await?.map(|operation| operation.kind) {
            Some(Kind::Pay(pay)) => match pay.state {
                State::Paid { .. } => Err(ClientError::InvoicePaid),
                State::Refunded { .. } | State::Failed { .. } => Ok(None),
                _ => Ok(Some(op)),
            },
            _ => Ok(None),
        }
    }

    /// Waits for a payment's end.
    ///
    /// # Errors
    /// [`ClientError::PaymentFailed`]: the money is back; [`ClientError::Rejected`]: nothing was locked;
    /// [`ClientError::PaymentPending`]: it goes on by itself.
    pub async fn wait_paid(&self, op: OpId) -> Result<Paid> {
        let waited = self.wait_operation(op, |operation| {
            let Kind::Pay(pay) = operation.kind else {
                return Some(Err(ClientError::NoOperation(hex::encode(op))));
            };
            match pay.state {
                State::Paid { preimage } => {
                    let fee = pay.contract.amount.checked_sub(pay.amount).unwrap_or(Amount::ZERO);
                    Some(Ok(Paid { operation: op, preimage, amount: pay.amount, fee, gateway: pay.gateway }))
                }
                State::Refunded { reason } => Some(Err(ClientError::PaymentFailed(reason))),
                State::Failed { code, reason } => Some(Err(ClientError::Rejected { code, reason })),
                _ => None,
            }
        });
        match waited.await {
            Err(
                error @ (ClientError::Unreachable(_)
                | ClientError::Disagreement(_)
                | ClientError::GatewayDown { .. }
                | ClientError::GatewayFalse { .. }
                | ClientError::Refused { .. }),
            ) => Err(ClientError::PaymentPending(error.to_string())),
            other => other,
        }
    }

    pub(super) async fn pay_step(&self, op: OpId, pay: Pay) -> Result<Flow> {
        let state = match pay.state.clone() {
            State::Funding => match self.wait_transaction(step_id(&op, FUND, 0), false).await {
                Ok(_) => State::Waiting,
                Err(ClientError::Rejected { code, reason }) => State::Failed { code, reason },
                Err(error) => return Err(error),
            },
            State::Waiting => match self.ask_for_payment(&pay).await {
                Ok(Some(state)) => state,
                Ok(None) => match self.look_at_contract(&pay).await? {
                    Some(state) => state,
                    None => return Ok(Flow::Wait(Duration::ZERO)),
                },
                // The gateway is down, or says no, or lies: the federation knows the truth.
                Err(error) => match self.look_at_contract(&pay).await? {
                    Some(state) => state,
                    None => return Err(error),
                },
            },
            State::Refunding { reason, cancellation, round } => {
                match self.refund(&op, &pay, cancellation, round).await {
                    Ok(()) => State::Refunded { reason },
                    Err(ClientError::Rejected { code, reason: why }) => {
                        tracing::warn!("the refund was refused: {why} ({code})");
                        match self.look_at_contract(&pay).await? {
                            Some(State::Refunding { reason, .. }) => {
                                State::Refunding { reason, cancellation, round: round.saturating_add(1) }
                            }
                            Some(state) => state,
                            // Not yet: a block that this guardian saw is not agreed on.
                            None => State::Waiting,
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            State::Paid { .. } | State::Refunded { .. } | State::Failed { .. } => return Ok(Flow::Finished),
        };
        Ok(Flow::Become(Kind::Pay(Box::new(Pay { state, ..pay }))))
    }

    /// Asks the gateway to pay, or how far it is: the same request. `None`: under way.
    async fn ask_for_payment(&self, pay: &Pay) -> Result<Option<State>> {
        let contract_id = pay.contract.id(self.federation_id());
        let body = PayRequest {
            federation_id: self.federation_id(),
            contract_id,
            contract: encode(&pay.contract),
            invoice: pay.invoice.clone(),
        };
        let body = serde_json::to_value(body).map_err(|error| ClientError::Internal(error.to_string()))?;
        let request = Request::post(format!("/v1/pay?wait={}", WAIT.as_secs()), body);
        let limit = WAIT.saturating_add(Duration::from_secs(10));
        let url = || pay.gateway.clone();
        let answer = match self.inner.api.transport().call(&pay.gateway, &request, limit).await {
            Ok(answer) => answer,
            Err(CallError::Down(reason)) => return Err(ClientError::GatewayDown { url: url(), reason }),
            Err(refused) => return Err(refused.into()),
        };
        let false_answer = |reason: &str| ClientError::GatewayFalse { url: url(), reason: reason.to_owned() };
        match serde_json::from_value::<PayResponse>(answer) {
            Ok(PayResponse::Succeeded { preimage })
                if preimage.payment_hash() == pay.contract.payment_hash =>
            {
                Ok(Some(State::Paid { preimage }))
            }
            Ok(PayResponse::Succeeded { .. }) => Err(false_answer("a wrong preimage")),
            Ok(PayResponse::Failed { reason, cancellation }) => {
                let key = &pay.contract.gateway_key;
                if !verify_cancellation(self.federation_id(), contract_id, key, &cancellation) {
                    return Err(false_answer("a wrong cancellation"));
                }
                let cancellation = Some(Cancellation(cancellation));
                let reason = reason.chars().filter(|c| !c.is_control()).take(300).collect();
                Ok(Some(State::Refunding { reason, cancellation, round: 0 }))
            }
            Ok(PayResponse::Pending) => Ok(None),
            Err(error) => Err(ClientError::BadAnswer { from: url(), reason: error.to_string() }),
        }
    }

    /// What the federation knows: a claim shows the preimage, and after the expiry height the money can come back without the
    /// gateway. `None`: nothing new.
    async fn look_at_contract(&self, pay: &Pay) -> Result<Option<State>> {
        let id = pay.contract.id(self.federation_id());
        let Some((state, preimage)) = self.contract(&id.to_string(), Duration::ZERO, None).await? else {
            return Ok(None);
        };
        match (state, preimage) {
            (ContractState::Claimed, Some(preimage))
                if preimage.payment_hash() == pay.contract.payment_hash =>
            {
                Ok(Some(State::Paid { preimage }))
            }
            // By our own refund, whose result was lost in a crash.
            (ContractState::Refunded, _) => {
                Ok(Some(State::Refunded { reason: "the money was taken back".to_owned() }))
            }
            (ContractState::Funded, _) if self.height().await? >= pay.contract.expiry_height => {
                let reason = "the gateway did not pay before the contract expired".to_owned();
                Ok(Some(State::Refunding { reason, cancellation: None, round: 0 }))
            }
            _ => {
                tokio::time::sleep(LOOK).await;
                Ok(None)
            }
        }
    }

    /// State and preimage of a contract, as f + 1 guardians say; `None`: they do not know it. Waits for it to be known, with
    /// `not` for it to leave that state.
    pub(super) async fn contract(
        &self,
        id: &str,
        wait: Duration,
        not: Option<ContractState>,
    ) -> Result<Option<(ContractState, Option<Preimage>)>> {
        let mut query = vec![("id", id.to_owned()), ("wait", wait.as_secs().to_string())];
        query.extend(not.map(|state| ("not", state.to_string())));
        let request = Request::module_get(KIND, "contract", &query);
        self.inner
            .api
            .agreed_on(&request, wait, |answer| match answer {
                Ok(value) => serde_json::from_value::<ContractReport>(value)
                    .map(|report| Some((report.state, report.preimage)))
                    .map_err(|error| CallError::Down(error.to_string())),
                Err(CallError::Refused { status: 404, .. }) => Ok(None),
                Err(error) => Err(error),
            })
            .await
    }

    async fn refund(
        &self,
        op: &OpId,
        pay: &Pay,
        cancellation: Option<Cancellation>,
        round: u32,
    ) -> Result<()> {
        let (module, config) = self.lightning();
        let key = self.lightning_keys().outgoing(pay.key).map_err(|error| lightning_error(error, None))?;
        let contract = pay.contract.id(self.federation_id());
        let input = refund_outgoing(module, contract, key.x_only_public_key().0, cancellation);
        let value = Value { amount: pay.contract.amount, fee: config.fees.spend };
        let step = if cancellation.is_some() { "refund by cancellation" } else { "refund by height" };
        let id = step_id(op, step, round);
        self.begin(Plan::new(id, vec![(input, key, value)], Vec::new()), |_, _| Ok(())).await?;
        self.wait_transaction(id, true).await.map(|_| ())
    }
}

const FUND: &str = "fund";

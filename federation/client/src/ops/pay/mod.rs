//! Paying a BOLT 11 invoice through a gateway that need not be trusted.
//!
//! ```text
//! funding ─▶ waiting ─▶ paid                 the gateway, or the federation, shows the preimage
//!    │          └─▶ refunding ─▶ refunded    the gateway's cancellation at once, or the expiry height
//!    └─▶ failed                              the contract was never funded
//! ```

mod steps;

use bitcoin::hashes::Hash as _;
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::Amount;
use federation_core::module::Value;
use federation_lightning::client::{LightningError, PayOrder, fund, outgoing_contract, payable_amount};
use federation_lightning::message::Cancellation;
use federation_lightning::{Contract, OutgoingContract, Preimage};
use lightning_invoice::Bolt11Invoice;

use super::flow::put;
use super::gateways::Direction;
use super::{Kind, Operation, fresh_id, now, step_id};
use crate::client::Client;
use crate::engine::Plan;
use crate::store::{OPERATIONS, OpId, PAYMENTS, counter};
use crate::{ClientError, Result};

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
        // The words alone do not bring back the contract: what is locked in it would be lost with this wallet.
        if self.balance().await? >= value.amount {
            self.back_up_first(Some((op, operation.clone()))).await;
        }
        let begun =
            self.begin(Plan::new(step_id(&op, FUND, 0), Vec::new(), vec![(output, value)]), |batch, _| {
                put(batch, &op, &operation);
                PAYMENTS.put(batch, &hash, &op);
                Ok(())
            });
        if let Err(error) = begun.await {
            self.backup_is_due().await?;
            return Err(error);
        }
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
            // Whatever keeps it from getting on, a gateway's nonsense too, is no end of it.
            Err(error)
                if !matches!(
                    error,
                    ClientError::PaymentFailed(_)
                        | ClientError::Rejected { .. }
                        | ClientError::NoOperation(_)
                        | ClientError::Db(_)
                ) =>
            {
                Err(ClientError::PaymentPending(error.to_string()))
            }
            other => other,
        }
    }
}

const FUND: &str = "fund";

//! Being paid over Lightning: the gateway funds a contract that only the right preimage opens.
//!
//! ```text
//! waiting ─▶ claiming ─▶ received
//!    └─▶ expired
//! ```

use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::Amount;
use federation_core::encoding::encode;
use federation_core::module::Value;
use federation_lightning::client::{ReceiveOrder, check_hold_invoice, claim_incoming, incoming_contract};
use federation_lightning::report::ContractState;
use federation_lightning::{IncomingContract, KIND};
use federation_store::WriteBatch;
use lightning_invoice::Bolt11Invoice;

use super::flow::{Flow, put};
use super::gateways::Direction;
use super::pay::lightning_error;
use super::{Kind, Operation, fresh_id, now, step_id};
use crate::api::{CallError, Request};
use crate::client::Client;
use crate::engine::Plan;
use crate::gateway::{InvoiceRequest, InvoiceResponse};
use crate::store::{OpId, counter};
use crate::{ClientError, Result};

/// How long a gateway may take to make an invoice.
const ANSWER: Duration = Duration::from_secs(30);
/// How long one question about the contract is held back.
const WAIT: Duration = Duration::from_secs(25);
/// The longest description, in bytes (BOLT 11).
const MAX_DESCRIPTION: usize = 639;

/// An invoice of ours.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Invoice {
    /// BOLT 11.
    pub invoice: String,
    /// What the payer pays.
    pub amount: Amount,
    /// The base URL of the gateway.
    pub gateway: String,
    /// What the gateway funds.
    pub contract: IncomingContract,
    /// The number of the contract's secrets.
    pub key: u64,
    /// When the invoice expires, in seconds since 1970.
    pub expires_at: u64,
    /// Where it stands.
    pub state: State,
}

/// Where an invoice stands.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum State {
    /// Nobody has paid yet.
    Waiting,
    /// Paid; the money is on its way into the balance.
    Claiming {
        /// How often this was tried before.
        round: u32,
    },
    /// In the balance.
    Received {
        /// What came in.
        amount: Amount,
    },
    /// Nobody paid, and nobody can any more.
    Expired,
    /// The contract holds a preimage that is wrong: a fault of this program.
    Failed {
        /// What happened.
        reason: String,
    },
}

impl State {
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Waiting | Self::Claiming { .. })
    }
}

/// An invoice that can be shown to a payer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The operation.
    pub operation: OpId,
    /// BOLT 11.
    pub invoice: String,
    /// What comes in when it is paid, before the federation's own fees.
    pub receives: Amount,
    /// The gateway's base URL.
    pub gateway: String,
}

impl Client {
    /// Has a gateway make an invoice, and checks it.
    ///
    /// # Errors
    /// [`ClientError::ZeroAmount`], [`ClientError::BelowFees`], [`ClientError::NoGateway`], [`ClientError::GatewayDown`],
    /// [`ClientError::GatewayFalse`], [`ClientError::Refused`].
    pub async fn invoice(
        &self,
        amount: Amount,
        description: &str,
        gateway: Option<&str>,
        memo: &str,
    ) -> Result<Made> {
        if amount.is_zero() {
            return Err(ClientError::ZeroAmount);
        }
        if description.len() > MAX_DESCRIPTION {
            return Err(ClientError::BadInvoice(format!(
                "its description would have {} bytes, and at most {MAX_DESCRIPTION} fit",
                description.len()
            )));
        }
        let info = self.choose_gateway(Direction::Receive, amount, gateway).await?;
        let height = self.height().await?;
        let key = self.next_number(counter::INCOMING).await?;
        let secrets = self.lightning_keys().incoming(key).map_err(|error| lightning_error(error, None))?;
        let (_, config) = self.lightning();
        let federation = self.federation_id();
        let order = ReceiveOrder {
            federation,
            config,
            gateway: &info,
            invoice_amount: amount,
            height,
            secrets: &secrets,
        };
        let contract = incoming_contract(&order, &mut rand::rngs::OsRng)
            .map_err(|error| lightning_error(error, None))?;
        let body = InvoiceRequest {
            federation_id: federation,
            contract: encode(&contract),
            amount_msat: amount,
            description: description.to_owned(),
        };
        let invoice = self.ask_for_invoice(&info.api_url, &body).await?;
        check_hold_invoice(&invoice, &contract, &info, amount, self.config().network, now()).map_err(
            |error| ClientError::GatewayFalse { url: info.api_url.clone(), reason: error.to_string() },
        )?;

        let expires_at = invoice.expires_at().unwrap_or_default().as_secs();
        let receives = contract.terms.amount;
        let made = Invoice {
            invoice: invoice.to_string(),
            amount,
            gateway: info.api_url.clone(),
            contract,
            key,
            expires_at,
            state: State::Waiting,
        };
        let op = fresh_id();
        let text = made.invoice.clone();
        {
            let _guard = self.inner.money.lock().await;
            let mut batch = WriteBatch::new(self.inner.db.clone());
            put(&mut batch, &op, &Operation::new(Kind::Invoice(Box::new(made)), memo));
            batch.commit().await?;
        }
        // Whoever pays it must not pay for nothing if this wallet is lost.
        self.back_up_first(None).await;
        self.spawn_flow(op);
        Ok(Made { operation: op, invoice: text, receives, gateway: info.api_url })
    }

    async fn ask_for_invoice(&self, url: &str, body: &InvoiceRequest) -> Result<Bolt11Invoice> {
        let body = serde_json::to_value(body).map_err(|error| ClientError::Internal(error.to_string()))?;
        let request = Request::post("/v1/invoices", body);
        let answer = match self.inner.api.transport().call(url, &request, ANSWER).await {
            Ok(answer) => answer,
            Err(CallError::Down(reason)) => {
                return Err(ClientError::GatewayDown { url: url.to_owned(), reason });
            }
            Err(refused) => return Err(refused.into()),
        };
        let bad = |reason: String| ClientError::BadAnswer { from: url.to_owned(), reason };
        let answer: InvoiceResponse =
            serde_json::from_value(answer).map_err(|error| bad(error.to_string()))?;
        answer
            .invoice
            .parse()
            .map_err(|error: lightning_invoice::ParseOrSemanticError| bad(error.to_string()))
    }

    /// Waits until an invoice of ours is paid and the money is in the balance.
    ///
    /// # Errors
    /// [`ClientError::NotPaid`] if it expired; [`ClientError::Unreachable`].
    pub async fn wait_invoice(&self, op: OpId) -> Result<Amount> {
        self.wait_operation(op, |operation| {
            let Kind::Invoice(invoice) = operation.kind else {
                return Some(Err(ClientError::NoOperation(hex::encode(op))));
            };
            match invoice.state {
                State::Received { amount } => Some(Ok(amount)),
                State::Expired => Some(Err(ClientError::NotPaid)),
                State::Failed { reason } => Some(Err(ClientError::Internal(reason))),
                _ => None,
            }
        })
        .await
    }

    pub(super) async fn invoice_step(&self, op: OpId, invoice: Invoice) -> Result<Flow> {
        let state = match invoice.state {
            State::Waiting => match self.wait_for_funds(&invoice).await? {
                Some(state) => state,
                None => return Ok(Flow::Wait(Duration::ZERO)),
            },
            State::Claiming { round } => match self.claim(&op, &invoice, round).await {
                Ok(amount) => State::Received { amount },
                Err(ClientError::Rejected { code, reason }) => {
                    tracing::warn!("claiming was refused: {reason} ({code})");
                    match self.wait_for_funds(&invoice).await? {
                        // By this wallet before it was lost, or by another copy of it.
                        Some(done @ State::Received { .. }) => done,
                        _ => {
                            tokio::time::sleep(Duration::from_secs(1)).await;
                            State::Claiming { round: round.saturating_add(1) }
                        }
                    }
                }
                Err(error) => return Err(error),
            },
            _ => return Ok(Flow::Finished),
        };
        Ok(Flow::Become(Kind::Invoice(Box::new(Invoice { state, ..invoice }))))
    }

    /// `None`: nothing new.
    pub(crate) async fn wait_for_funds(&self, invoice: &Invoice) -> Result<Option<State>> {
        let id = invoice.contract.id(self.federation_id()).to_string();
        match self.contract(&id, WAIT, Some(ContractState::Funded)).await {
            Ok(Some((ContractState::Decrypted, _))) => Ok(Some(State::Claiming { round: 0 })),
            Ok(Some((ContractState::Claimed, _))) => {
                // Another copy of this wallet was faster, with the same words.
                Ok(Some(State::Received { amount: invoice.contract.terms.amount }))
            }
            Ok(Some((ContractState::Invalid | ContractState::Refunded, _))) => {
                Ok(Some(State::Failed { reason: "the encrypted preimage was wrong".to_owned() }))
            }
            Ok(Some((ContractState::Funded, _))) => Ok(None),
            Ok(None) => {
                let expired = now().as_secs() > invoice.expires_at;
                let late = expired && self.height().await? >= invoice.contract.terms.fund_before_height;
                // HTLCs that came in time may be held a while yet, so the height decides alone.
                Ok((late && !self.is_known_to_any(&id).await).then_some(State::Expired))
            }
            // Some guardians have seen it funded and some have not yet.
            Err(ClientError::Disagreement(_)) => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether any guardian says that the contract was funded: f + 1 may be one that lags and liars. To give it up can't be
    /// taken back, so n − f must have been heard.
    pub(super) async fn is_known_to_any(&self, id: &str) -> bool {
        let request = Request::module_get(KIND, "contract", &[("id", id.to_owned())]);
        !self.is_unknown(&request).await
    }

    async fn claim(&self, op: &OpId, invoice: &Invoice, round: u32) -> Result<Amount> {
        let (module, config) = self.lightning();
        let secrets =
            self.lightning_keys().incoming(invoice.key).map_err(|error| lightning_error(error, None))?;
        let contract = invoice.contract.id(self.federation_id());
        let input = claim_incoming(module, contract, secrets.key.x_only_public_key().0);
        let value = Value { amount: invoice.contract.terms.amount, fee: config.fees.spend };
        let id = step_id(op, "claim", round);
        self.begin(Plan::new(id, vec![(input, secrets.key, value)], Vec::new()), |_, _| Ok(())).await?;
        let record = self.wait_transaction(id, true).await?;
        invoice.contract.terms.amount.checked_sub(record.fees).ok_or(ClientError::AmountTooLarge)
    }
}

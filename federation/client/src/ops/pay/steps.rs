//! What leads a payment from one state to the next.

use std::time::Duration;

use federation_core::encoding::encode;
use federation_core::module::Value;
use federation_lightning::client::refund_outgoing;
use federation_lightning::contract::verify_cancellation;
use federation_lightning::message::Cancellation;
use federation_lightning::report::ContractState;

use super::{FUND, Pay, State, lightning_error};
use crate::api::{CallError, Request};
use crate::client::Client;
use crate::engine::Plan;
use crate::gateway::{PayRequest, PayResponse};
use crate::ops::flow::Flow;
use crate::ops::{Kind, step_id};
use crate::store::OpId;
use crate::{ClientError, Result};

/// How long one question to the gateway is held back.
const WAIT: Duration = Duration::from_secs(20);
/// How often the federation is asked when the gateway has nothing new.
const LOOK: Duration = Duration::from_secs(2);

impl Client {
    pub(in crate::ops) async fn pay_step(&self, op: OpId, pay: Pay) -> Result<Flow> {
        let state = match pay.state.clone() {
            State::Funding if self.transaction(step_id(&op, FUND, 0)).await?.is_none() => {
                self.look_for_contract(&pay).await?
            }
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

    /// Of a payment that came back with a backup nobody here knows whether its contract was funded.
    async fn look_for_contract(&self, pay: &Pay) -> Result<State> {
        let id = pay.contract.id(self.federation_id()).to_string();
        if self.contract(&id, Duration::ZERO, None).await?.is_some() {
            return Ok(State::Waiting);
        }
        // It may be on its way, as long as nothing rules that out.
        if self.height().await? >= pay.contract.expiry_height && !self.is_known_to_any(&id).await {
            let reason = "the wallet was lost before the payment began".to_owned();
            return Ok(State::Failed { code: "not_made".to_owned(), reason });
        }
        Err(ClientError::PaymentPending(
            "it was about to begin when the wallet was lost, and the federation has not seen it so far"
                .to_owned(),
        ))
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

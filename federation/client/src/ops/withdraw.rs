//! Bitcoin paid out.

use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::module::Value;
use federation_core::{Amount, OutPoint};
use federation_wallet::body::{Outcome, Quote};
use federation_wallet::client::withdrawal_output;
use federation_wallet::{KIND, address};

use super::flow::{Flow, put};
use super::{Kind, Operation, fresh_id, step_id};
use crate::api::Request;
use crate::client::Client;
use crate::engine::Plan;
use crate::store::{NOTES, OpId, RESTORED};
use crate::{ClientError, Result};

/// How long one question about the outcome is held back.
const WAIT: Duration = Duration::from_secs(25);
/// How often guardians are asked for a transaction that is not here.
const LOOK: Duration = Duration::from_secs(2);
const STEP: &str = "withdraw";

/// The name of a withdrawal's transaction.
pub(crate) fn transaction_id(op: &OpId) -> OpId {
    step_id(op, STEP, 0)
}

/// A withdrawal.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Withdraw {
    /// Where to.
    pub address: String,
    /// What arrives there.
    pub amount: Amount,
    /// The on-chain fee.
    pub fee: Amount,
    /// Where it stands.
    pub state: State,
}

/// Where a withdrawal stands.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum State {
    /// Not decided yet.
    Submitting,
    /// The guardians are signing.
    Accepted,
    /// Handed to the network.
    Sent {
        /// The Bitcoin transaction.
        txid: String,
    },
    /// Refused; nothing was moved.
    Failed {
        /// The stable code.
        code: String,
        /// The reason.
        reason: String,
    },
}

impl State {
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Submitting | Self::Accepted)
    }
}

/// How much to withdraw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// So much arrives.
    Sat(u64),
    /// All there is, less fees.
    All,
}

/// A withdrawal that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawn {
    /// The operation.
    pub operation: OpId,
    /// The Bitcoin transaction.
    pub txid: String,
    /// What arrives.
    pub amount: Amount,
    /// The on-chain fee.
    pub fee: Amount,
}

impl Client {
    /// What a withdrawal costs now.
    ///
    /// # Errors
    /// [`ClientError::BadAddress`], [`ClientError::ZeroAmount`], [`ClientError::Refused`], [`ClientError::Unreachable`].
    pub async fn quote(&self, to: &str, amount_sat: u64) -> Result<Quote> {
        if amount_sat == 0 {
            return Err(ClientError::ZeroAmount);
        }
        let bad = |error: address::AddressError| ClientError::BadAddress(error.to_string());
        let script = address::script_of(to, self.config().network).map_err(bad)?;
        address::check_payment(&script, amount_sat).map_err(bad)?;
        let query = [("address", to.trim().to_owned()), ("amount_sat", amount_sat.to_string())];
        let request = Request::module_get(KIND, "quote", &query);
        let mut quotes: Vec<Quote> = Vec::new();
        for answer in self.inner.api.some(&request, self.inner.api.max_faulty().saturating_add(1)).await? {
            quotes.extend(serde_json::from_value::<Quote>(answer).ok());
        }
        // Of f + 1 the lowest is no higher than an honest one; too low a fee the federation itself refuses.
        let quote = quotes.into_iter().min_by_key(|quote| quote.fee_sat);
        let quote = quote.ok_or_else(|| ClientError::Disagreement("the withdrawal's fee".to_owned()))?;
        // Whatever a guardian echoes: what was asked for is paid.
        Ok(Quote { address: to.trim().to_owned(), amount_sat, ..quote })
    }

    /// Withdraws, if the on-chain fee is at most `fee_max`; returns when the federation has signed and sent it.
    ///
    /// # Errors
    /// [`ClientError::BadAddress`], [`ClientError::ZeroAmount`], [`ClientError::FeeTooHigh`],
    /// [`ClientError::InsufficientFunds`]: nothing was moved. [`ClientError::Rejected`]: the same.
    pub async fn withdraw(
        &self,
        to: &str,
        wish: Wish,
        fee_max: Option<Amount>,
        memo: &str,
    ) -> Result<Withdrawn> {
        let quote = match wish {
            Wish::Sat(amount_sat) => self.quote(to, amount_sat).await?,
            Wish::All => self.quote_all(to).await?,
        };
        let sat = |sat| Amount::from_sat(sat).ok_or(ClientError::AmountTooLarge);
        let (amount, fee) = (sat(quote.amount_sat)?, sat(quote.fee_sat)?);
        if let Some(limit) = fee_max.filter(|limit| fee > *limit) {
            return Err(ClientError::FeeTooHigh { fee, limit });
        }
        let (module, config) = self.wallet();
        let output = withdrawal_output(config.network, module, &quote)
            .map_err(|error| ClientError::BadAddress(error.to_string()))?;
        let op = fresh_id();
        let withdraw = Withdraw { address: quote.address, amount, fee, state: State::Submitting };
        let operation = Operation::new(Kind::Withdraw(withdraw), memo);
        let outputs = vec![(output, Value { amount, fee })];
        let plan = Plan { back_up: true, ..Plan::new(transaction_id(&op), Vec::new(), outputs) };
        self.begin(plan, |batch, _| {
            put(batch, &op, &operation);
            Ok(())
        })
        .await?;
        self.wait_operation(op, |operation| match operation.kind {
            Kind::Withdraw(Withdraw { state: State::Sent { txid }, amount, fee, .. }) => {
                Some(Ok(Withdrawn { operation: op, txid, amount, fee }))
            }
            Kind::Withdraw(Withdraw { state: State::Failed { code, reason }, .. }) => {
                Some(Err(ClientError::Rejected { code, reason }))
            }
            _ => None,
        })
        .await
    }

    /// A quote for as much as the notes at hand can pay.
    async fn quote_all(&self, to: &str) -> Result<Quote> {
        let fee_in = self.inner.mint.config.fee_in;
        let notes = NOTES.all(self.db()).await?;
        let net = notes.iter().filter_map(|(_, held)| held.denomination.amount().checked_sub(fee_in));
        let balance = Amount::checked_sum(net).ok_or(ClientError::AmountTooLarge)?;
        if balance.is_zero() {
            return Err(ClientError::InsufficientFunds {
                needed: Amount::from_msat(1000),
                available: balance,
            });
        }
        // The fee hardly depends on the amount; a second look makes sure.
        let first = self.quote(to, balance.sat_floor().max(1)).await?;
        let rest = balance.sat_floor().checked_sub(first.fee_sat).filter(|rest| *rest > 0);
        let rest = rest.ok_or_else(|| ClientError::InsufficientFunds {
            needed: Amount::from_sat(first.fee_sat).unwrap_or(Amount::ZERO),
            available: balance,
        })?;
        let second = self.quote(to, rest).await?;
        let fee_sat = second.fee_sat.max(first.fee_sat);
        let amount_sat = balance.sat_floor().checked_sub(fee_sat).ok_or(ClientError::AmountTooLarge)?;
        Ok(Quote { amount_sat, fee_sat, ..second })
    }

    pub(super) async fn withdraw_step(&self, op: OpId, withdraw: Withdraw) -> Result<Flow> {
        let id = transaction_id(&op);
        let own = self.transaction(id).await?;
        let state = match withdraw.state {
            State::Submitting if own.is_none() => match self.lost_decision(&op).await? {
                Some(state) => state,
                None => return Ok(Flow::Wait(LOOK)),
            },
            State::Submitting => match self.wait_transaction(id, false).await {
                Ok(_) => State::Accepted,
                Err(ClientError::Rejected { code, reason }) => State::Failed { code, reason },
                Err(error) => return Err(error),
            },
            State::Accepted => {
                let restored = RESTORED.get(self.db(), &op).await?;
                let txid = own
                    .or(restored.map(|restored| restored.txid))
                    .ok_or_else(|| ClientError::NoOperation(hex::encode(op)))?;
                match self.outcome::<Outcome>(OutPoint { txid, index: 0 }, WAIT).await {
                    Ok(Some(outcome)) => State::Sent { txid: outcome.txid.to_string() },
                    Ok(None) => return Ok(Flow::Wait(Duration::from_millis(200))),
                    Err(ClientError::Disagreement(_)) => return Ok(Flow::Wait(Duration::from_millis(200))),
                    Err(error) => return Err(error),
                }
            }
            State::Sent { .. } | State::Failed { .. } => return Ok(Flow::Finished),
        };
        Ok(Flow::Become(Kind::Withdraw(Withdraw { state, ..withdraw })))
    }
}

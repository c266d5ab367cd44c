//! The gateway's checks, before it pays an invoice or makes one. That a contract is funded is for the guardians to say.

use std::time::Duration;

use bitcoin::Network;
use bitcoin::hashes::Hash as _;
use bitcoin::secp256k1::XOnlyPublicKey;
use federation_core::{Amount, FederationId};
use lightning_invoice::Bolt11Invoice;

use super::{
    FUND_WINDOW_BLOCKS, LightningError, OUTGOING_EXPIRY_BLOCKS, PAY_MARGIN_BLOCKS, invoice_hash,
    payable_amount, received_amount,
};
use crate::{GatewayFees, IncomingContract, OutgoingContract};

/// How many blocks the gateway's node may be behind the user's guardians.
const HEIGHT_SKEW: u32 = 10;

/// What an outgoing contract is checked against.
pub struct OutgoingCheck<'a> {
    /// The contract.
    pub contract: &'a OutgoingContract,
    /// The invoice that the user wants paid.
    pub invoice: &'a Bolt11Invoice,
    /// The gateway's key.
    pub gateway_key: XOnlyPublicKey,
    /// What the gateway charges: the lowest of what it has announced within the last hour.
    pub fees: &'a GatewayFees,
    /// The federation's network.
    pub network: Network,
    /// The time since 1970.
    pub now: Duration,
    /// The higher of the node's and the agreed block height.
    pub height: u32,
}

/// Within what a payment is safe and pays for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaymentTerms {
    /// What the payee gets.
    pub amount: Amount,
    /// What the contract holds on top, for routing and the gateway.
    pub budget: Amount,
    /// For how many blocks HTLCs may be locked, final hop included.
    pub max_delay: u32,
}

/// Whether the gateway may pay this invoice for this contract, and within which bounds.
pub fn check_outgoing(check: &OutgoingCheck<'_>) -> Result<PaymentTerms, LightningError> {
    let (contract, invoice) = (check.contract, check.invoice);
    let amount = payable_amount(invoice, check.network, check.now)?;
    if contract.gateway_key != check.gateway_key {
        return Err(LightningError::OtherGateway);
    }
    let hash = invoice.payment_hash().to_byte_array();
    if contract.payment_hash.0 != hash || contract.invoice_hash != invoice_hash(invoice) {
        return Err(LightningError::OtherInvoice);
    }
    let fee = check.fees.of(amount).ok_or(LightningError::Overflow)?;
    let needed = amount.checked_add(fee).ok_or(LightningError::Overflow)?;
    let budget = contract
        .amount
        .checked_sub(amount)
        .filter(|_| contract.amount >= needed)
        .ok_or(LightningError::Underfunded { holds: contract.amount, needed })?;
    // The payee's own part of the delay must fit in, or paying can't even begin.
    let final_delay = u32::try_from(invoice.min_final_cltv_expiry_delta()).unwrap_or(u32::MAX);
    let max_delay = contract
        .expiry_height
        .checked_sub(check.height)
        .and_then(|left| left.checked_sub(PAY_MARGIN_BLOCKS))
        // A user's contract ends by then: one that goes on for years would lock up the node's HTLCs, not the user's money.
        .map(|left| left.min(OUTGOING_EXPIRY_BLOCKS - PAY_MARGIN_BLOCKS + HEIGHT_SKEW))
        .filter(|left| *left > final_delay)
        .ok_or(LightningError::ExpiryNear { expiry: contract.expiry_height, height: check.height })?;
    Ok(PaymentTerms { amount, budget, max_delay })
}

/// What an incoming contract is checked against.
pub struct IncomingCheck<'a> {
    /// The contract.
    pub contract: &'a IncomingContract,
    /// Which federation.
    pub federation: FederationId,
    /// The gateway's key.
    pub gateway_key: XOnlyPublicKey,
    /// What the gateway charges.
    pub fees: &'a GatewayFees,
    /// What the payer pays.
    pub invoice_amount: Amount,
    /// The node's block height.
    pub height: u32,
}

/// Whether the gateway may make a hold invoice of this amount for this contract. Two pairings: a millisecond of CPU.
pub fn check_incoming(check: &IncomingCheck<'_>) -> Result<(), LightningError> {
    let terms = &check.contract.terms;
    if terms.gateway_key != check.gateway_key {
        return Err(LightningError::OtherGateway);
    }
    if terms.amount.is_zero() {
        return Err(LightningError::ZeroAmount);
    }
    let offered = received_amount(check.invoice_amount, check.fees)?;
    if terms.amount > offered {
        return Err(LightningError::Overfunded { asks: terms.amount, offered });
    }
    let before = terms.fund_before_height;
    let latest = check.height.saturating_add(FUND_WINDOW_BLOCKS + HEIGHT_SKEW);
    if before <= check.height || before > latest {
        return Err(LightningError::FundWindow { before, height: check.height });
    }
    if !check.contract.verify_ciphertext(check.federation) {
        return Err(LightningError::Ciphertext);
    }
    Ok(())
}

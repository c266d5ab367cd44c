//! The user is paid: a contract for the gateway to fund, and the check of the invoice that it gives for it.

use std::time::Duration;

use bitcoin::Network;
use bitcoin::hashes::Hash as _;
use federation_core::{Amount, FederationId};
use federation_tbs::encryption::encrypt;
use lightning_invoice::Bolt11Invoice;
use rand::{CryptoRng, RngCore};

use super::{IncomingSecrets, LightningError, payable_amount};
use crate::{GatewayFees, GatewayInfo, IncomingContract, IncomingTerms, LightningConfig};

/// For how many blocks a contract can be funded. A hold invoice gives its HTLCs 120 blocks when they arrive, so whenever it
/// is funded at least 60 of them are left. It also bounds how long the invoice can be paid: 50 blocks are eight hours.
pub const FUND_WINDOW_BLOCKS: u32 = 50;

/// What an incoming contract is made from.
pub struct ReceiveOrder<'a> {
    /// Which federation.
    pub federation: FederationId,
    /// Its keys.
    pub config: &'a LightningConfig,
    /// Who is to be paid over Lightning.
    pub gateway: &'a GatewayInfo,
    /// What the payer pays.
    pub invoice_amount: Amount,
    /// The agreed block height.
    pub height: u32,
    /// Key and preimage, fresh.
    pub secrets: &'a IncomingSecrets,
}

/// What is left for the user of what the payer pays.
pub fn received_amount(invoice_amount: Amount, fees: &GatewayFees) -> Result<Amount, LightningError> {
    let fee = fees.of(invoice_amount).ok_or(LightningError::Overflow)?;
    invoice_amount
        .checked_sub(fee)
        .filter(|left| !left.is_zero())
        .ok_or(LightningError::FeeTooHigh { amount: invoice_amount, fee })
}

/// The contract that the gateway funds when it is paid. Encrypts: a millisecond of CPU.
pub fn incoming_contract(
    order: &ReceiveOrder<'_>,
    rng: &mut (impl RngCore + CryptoRng),
) -> Result<IncomingContract, LightningError> {
    let (amount, gateway) = (order.invoice_amount, order.gateway);
    if amount.is_zero() {
        return Err(LightningError::ZeroAmount);
    }
    if amount < gateway.min || amount > gateway.max {
        return Err(LightningError::Limits { amount, min: gateway.min, max: gateway.max });
    }
    let terms = IncomingTerms {
        payment_hash: order.secrets.preimage.payment_hash(),
        amount: received_amount(amount, &gateway.receive_fees)?,
        user_key: order.secrets.key.x_only_public_key().0,
        gateway_key: gateway.key,
        fund_before_height: order.height.checked_add(FUND_WINDOW_BLOCKS).ok_or(LightningError::Overflow)?,
    };
    let label = terms.label(order.federation);
    let ciphertext = encrypt(&order.config.encryption, &order.secrets.preimage.0, &label, rng)
        .map_err(|error| LightningError::Encryption(error.to_string()))?;
    Ok(IncomingContract { terms, ciphertext })
}

/// Whether the gateway's hold invoice is the one for this contract, before it is shown to a payer.
pub fn check_hold_invoice(
    invoice: &Bolt11Invoice,
    contract: &IncomingContract,
    gateway: &GatewayInfo,
    invoice_amount: Amount,
    network: Network,
    now: Duration,
) -> Result<(), LightningError> {
    if payable_amount(invoice, network, now)? != invoice_amount {
        return Err(LightningError::HoldInvoice("amount"));
    }
    if invoice.payment_hash().to_byte_array() != contract.terms.payment_hash.0 {
        return Err(LightningError::HoldInvoice("payment hash"));
    }
    if invoice.get_payee_pub_key() != gateway.node_id {
        return Err(LightningError::HoldInvoice("payee"));
    }
    Ok(())
}

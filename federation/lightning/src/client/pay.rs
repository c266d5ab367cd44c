//! The user pays an invoice: from invoice and gateway to a contract.

use std::time::Duration;

use bitcoin::Network;
use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::secp256k1::XOnlyPublicKey;
use federation_core::Amount;
use lightning_invoice::Bolt11Invoice;

use super::LightningError;
use crate::{GatewayInfo, OutgoingContract, PaymentHash};

/// After how many blocks a user may take the money back without the gateway. It bounds how long HTLCs of the payment may
/// be locked, and how long a user waits whose gateway has vanished: three and a half days.
pub const OUTGOING_EXPIRY_BLOCKS: u32 = 504;
/// How many of those the gateway keeps for itself: the time to claim after the last HTLC has been settled on chain.
pub const PAY_MARGIN_BLOCKS: u32 = 72;

/// What an outgoing contract is made from.
pub struct PayOrder<'a> {
    /// The invoice to pay.
    pub invoice: &'a Bolt11Invoice,
    /// Who is to pay it.
    pub gateway: &'a GatewayInfo,
    /// The federation's network.
    pub network: Network,
    /// The time since 1970.
    pub now: Duration,
    /// The agreed block height.
    pub height: u32,
    /// The user's key, fresh.
    pub user_key: XOnlyPublicKey,
}

/// Names a BOLT 11 invoice: SHA-256 of its text in lowercase.
pub fn invoice_hash(invoice: &Bolt11Invoice) -> [u8; 32] {
    sha256::Hash::hash(invoice.to_string().to_ascii_lowercase().as_bytes()).to_byte_array()
}

/// The invoice's amount, if it can be paid on this network now.
pub fn payable_amount(
    invoice: &Bolt11Invoice,
    network: Network,
    now: Duration,
) -> Result<Amount, LightningError> {
    // BOLT 11 has one prefix for all testnets.
    let known = match network {
        Network::Testnet4 => Network::Testnet,
        other => other,
    };
    if invoice.network() != known {
        return Err(LightningError::Network { invoice: invoice.network(), federation: network });
    }
    if invoice.would_expire(now) {
        return Err(LightningError::InvoiceExpired);
    }
    match invoice.amount_milli_satoshis() {
        None => Err(LightningError::NoAmount),
        Some(0) => Err(LightningError::ZeroAmount),
        Some(msat) => Ok(Amount::from_msat(msat)),
    }
}

/// The contract that has the gateway pay the invoice.
pub fn outgoing_contract(order: &PayOrder<'_>) -> Result<OutgoingContract, LightningError> {
    let PayOrder { invoice, gateway, .. } = order;
    let amount = payable_amount(invoice, order.network, order.now)?;
    if amount < gateway.min || amount > gateway.max {
        return Err(LightningError::Limits { amount, min: gateway.min, max: gateway.max });
    }
    let fee = gateway.send_fees.of(amount).ok_or(LightningError::Overflow)?;
    Ok(OutgoingContract {
        payment_hash: PaymentHash(invoice.payment_hash().to_byte_array()),
        amount: amount.checked_add(fee).ok_or(LightningError::Overflow)?,
        gateway_key: gateway.key,
        user_key: order.user_key,
        expiry_height: order.height.checked_add(OUTGOING_EXPIRY_BLOCKS).ok_or(LightningError::Overflow)?,
        invoice_hash: invoice_hash(invoice),
    })
}

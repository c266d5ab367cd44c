//! Why a user's or a gateway's side does not go on.

use bitcoin::Network;
use federation_core::Amount;

/// What is wrong with an invoice, a gateway or a contract. Nothing has been paid when it is met.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LightningError {
    /// An invoice of another chain.
    #[error("the invoice is for {invoice}, and the federation is on {federation}")]
    Network {
        /// The invoice's network.
        invoice: Network,
        /// The federation's network.
        federation: Network,
    },
    /// Too late to pay it.
    #[error("the invoice has expired: ask the payee for a new one")]
    InvoiceExpired,
    /// An invoice without an amount.
    #[error("the invoice names no amount: ask the payee for one that does")]
    NoAmount,
    /// Nothing to pay.
    #[error("the amount is zero")]
    ZeroAmount,
    /// Outside of what the gateway takes on.
    #[error(
        "the gateway takes on payments of {min} to {max}, not {amount}: choose another gateway or amount"
    )]
    Limits {
        /// The amount asked for.
        amount: Amount,
        /// The gateway's smallest.
        min: Amount,
        /// The gateway's largest.
        max: Amount,
    },
    /// More than 64 bits.
    #[error("an amount or height is out of range")]
    Overflow,
    /// The fee takes all of it.
    #[error("nothing of {amount} is left after the gateway's fee of {fee}")]
    FeeTooHigh {
        /// What is paid.
        amount: Amount,
        /// The gateway's fee.
        fee: Amount,
    },
    /// The contract names somebody else's key.
    #[error("the contract is for another gateway")]
    OtherGateway,
    /// The contract is to another payment hash, or to another invoice with the same one.
    #[error("the contract is for another invoice")]
    OtherInvoice,
    /// The contract's amount does not cover invoice and fee.
    #[error("the contract holds {holds}, and {needed} is needed")]
    Underfunded {
        /// What it holds.
        holds: Amount,
        /// Invoice and fee.
        needed: Amount,
    },
    /// An incoming contract that asks for more than the payment brings.
    #[error("the contract asks for {asks}, and {offered} is left of the payment after the fee")]
    Overfunded {
        /// What it asks for.
        asks: Amount,
        /// The payment less the fee.
        offered: Amount,
    },
    /// No time left to pay before the contract expires.
    #[error("the contract expires at height {expiry}, and it is {height}: too near to pay safely")]
    ExpiryNear {
        /// The contract's expiry height.
        expiry: u32,
        /// The height now.
        height: u32,
    },
    /// Funding would be allowed for too long or no more.
    #[error("the contract can be funded before height {before}, and it is {height}")]
    FundWindow {
        /// The contract's height.
        before: u32,
        /// The height now.
        height: u32,
    },
    /// The encrypted preimage was not made for this contract.
    #[error("the contract's encrypted preimage was not made for it")]
    Ciphertext,
    /// Not the invoice that was asked for.
    #[error("the gateway's invoice does not have the {0} that was asked for: choose another gateway")]
    HoldInvoice(&'static str),
    /// A key could not be derived; the chance of it is 2⁻¹²⁸.
    #[error("a key could not be derived from the seed")]
    Derivation,
    /// A preimage could not be encrypted.
    #[error("the preimage could not be encrypted: {0}")]
    Encryption(String),
}

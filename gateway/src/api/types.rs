//! The bodies of the gateway's API for users.
//!
//! | endpoint | body | answer |
//! |---|---|---|
//! | `GET /v1/info` | | [`InfoResponse`] |
//! | `POST /v1/pay?wait=SECONDS` | [`PayBody`] | [`PayResponse`] |
//! | `GET /v1/pay/{contract_id}?wait=SECONDS` | | [`PayResponse`], 404 `unknown_swap` if it was never asked to pay it |
//! | `POST /v1/invoices` | [`InvoiceBody`] | [`InvoiceResponse`] |
//! | `GET /v1/invoices/{payment_hash}?wait=SECONDS` | | [`InvoiceStatus`], 404 `unknown_swap` |
//!
//! `wait` (at most 60) holds the answer back until the swap is decided. Every request may be repeated. Errors are RFC 9457
//! problem documents.

use bitcoin::Network;
use bitcoin::secp256k1::{PublicKey, XOnlyPublicKey};
use borsh::BorshDeserialize;
use federation_core::encoding::decode;
use federation_core::{Amount, FederationId};
use federation_lightning::message::Cancellation;
use federation_lightning::{
    ContractId, GatewayFees, IncomingContract, OutgoingContract, PaymentHash, Preimage,
};
use serde::{Deserialize, Serialize};

use crate::GatewayError;

/// The longest wait of one request, in seconds.
pub const MAX_WAIT_SECONDS: u64 = 60;
/// The largest encoded contract, in bytes.
const MAX_CONTRACT: usize = 4096;

/// A contract as JSON or as the hex of its canonical encoding.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Encoded<T> {
    /// Hex of borsh.
    Hex(String),
    /// JSON.
    Json(T),
}

impl<T: BorshDeserialize> Encoded<T> {
    /// The value.
    pub fn into_value(self) -> Result<T, GatewayError> {
        match self {
            Self::Json(value) => Ok(value),
            Self::Hex(text) => hex::decode(&text)
                .map_err(|error| error.to_string())
                .and_then(|bytes| decode(&bytes, MAX_CONTRACT).map_err(|error| error.to_string()))
                .map_err(|error| {
                    GatewayError::Refused(federation_core::api::ApiError::bad_request(
                        "bad_contract",
                        format!("the contract can't be read: {error}"),
                    ))
                }),
        }
    }
}

/// What the gateway is and charges.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InfoResponse {
    /// The program's version.
    pub version: String,
    /// Its BIP-340 key, in all federations.
    pub gateway_key: XOnlyPublicKey,
    /// Its Lightning node.
    pub node_id: PublicKey,
    /// The node's name.
    pub alias: String,
    /// The chain.
    pub network: Network,
    /// The node's block height.
    pub block_height: u32,
    /// For paying, routing included.
    pub send_fees: GatewayFees,
    /// For being paid.
    pub receive_fees: GatewayFees,
    /// The smallest payment.
    #[serde(rename = "min_msat")]
    pub min: Amount,
    /// The largest payment.
    #[serde(rename = "max_msat")]
    pub max: Amount,
    /// Whether it finishes what it has and takes nothing new.
    pub draining: bool,
    /// The federations that it serves.
    pub federations: Vec<FederationId>,
}

/// Asks the gateway to pay an invoice for a funded contract.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PayBody {
    /// The contract's federation.
    pub federation_id: FederationId,
    /// The contract.
    pub contract: Encoded<OutgoingContract>,
    /// The BOLT 11 invoice.
    pub invoice: String,
}

/// Where a payment stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayResponse {
    /// The contract's id.
    pub contract_id: ContractId,
    /// Where it stands.
    #[serde(flatten)]
    pub status: PayStatus,
}

/// Where a payment stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum PayStatus {
    /// Under way.
    Pending,
    /// Paid: the gateway claims the contract.
    Succeeded {
        /// The proof.
        preimage: Preimage,
    },
    /// Not paid, and never will be.
    Failed {
        /// A stable code, such as `invoice_expired`.
        code: String,
        /// Why, for a person.
        reason: String,
        /// Refunds the contract at once; none if the user has taken the money back after the expiry already.
        cancellation: Option<Cancellation>,
    },
}

/// Asks for an invoice whose payment funds a contract.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvoiceBody {
    /// The contract's federation.
    pub federation_id: FederationId,
    /// The contract, to be funded when the invoice is paid.
    pub contract: Encoded<IncomingContract>,
    /// What the payer is to pay; the contract holds it less the fee for being paid.
    #[serde(rename = "amount_msat")]
    pub amount: Amount,
    /// What the payer reads: at most 639 bytes (BOLT 11).
    #[serde(default)]
    pub description: String,
    /// For how long it can be paid; default an hour, at most a day.
    #[serde(default)]
    pub expiry_seconds: Option<u64>,
}

/// The invoice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceResponse {
    /// Its payment hash, which names the swap.
    pub payment_hash: PaymentHash,
    /// BOLT 11.
    pub invoice: String,
}

/// Where an invoice stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum InvoiceStatus {
    /// Nobody has paid it yet.
    Waiting,
    /// It is being paid: the contract is being funded.
    Funding,
    /// The contract is funded and its preimage was right: the user can claim it.
    Paid,
    /// It can't be paid any more.
    Failed {
        /// A stable code, such as `expired`.
        code: String,
        /// Why, for a person.
        reason: String,
    },
}

//! The bodies of the gateway's API for users. Those that a wallet sends and reads are the wallet's:
//! [`federation_client::gateway`].
//!
//! | endpoint | body | answer |
//! |---|---|---|
//! | `GET /v1/info` | | [`InfoResponse`] |
//! | `POST /v1/pay?wait=SECONDS` | [`PayRequest`] | [`PayResponse`] |
//! | `GET /v1/pay/{contract_id}?wait=SECONDS` | | [`PayResponse`]; 404 `unknown_swap` if it was never asked to pay it |
//! | `POST /v1/invoices` | [`InvoiceRequest`] | [`InvoiceResponse`] |
//! | `GET /v1/invoices/{payment_hash}?wait=SECONDS` | | [`InvoiceStatus`]; 404 `unknown_swap` |
//!
//! `wait` (at most 60) holds the answer back until the swap is decided. Every request may be repeated. Errors are RFC 9457
//! problem documents: 4xx for what was not begun by this request and won't be by repeating it, 429 and 503 for what may work
//! later.

use bitcoin::Network;
use bitcoin::secp256k1::{PublicKey, XOnlyPublicKey};
use federation_core::{Amount, FederationId};
use federation_lightning::GatewayFees;
use serde::{Deserialize, Serialize};

pub use federation_client::gateway::{InvoiceRequest, InvoiceResponse, PayRequest, PayResponse};

/// The longest wait of one request, in seconds.
pub const MAX_WAIT_SECONDS: u64 = 60;
/// The largest encoded contract, in bytes.
pub(crate) const MAX_CONTRACT: usize = 4096;

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

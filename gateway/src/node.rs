//! What a gateway asks of a Lightning node, whichever it is.
//!
//! Three rules make a swap safe on top of it:
//!
//! - [`PaymentStatus::Failed`] is a proof, never a guess: the gateway signs a refund on it.
//!   Whatever a backend can't prove it reports as `Pending`.
//! - [`PaymentStatus::Unknown`] means that [`pay`](LightningNode::pay) may be called: a backend says it of no payment that
//!   it has begun, and so keeps its own record of those, which no cleaning of the node's removes.
//! - A hold invoice is settled or cancelled by the gateway alone. A held payment survives a
//!   restart, and is reported again until one of the two has been done.
//!
//! Every call may be repeated. Nothing here holds a lock while it waits.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Address, Network, Txid};
use lightning_invoice::{Bolt11Invoice, RouteHint};
use serde::{Deserialize, Serialize};

/// The `min_final_cltv_expiry_delta` of every hold invoice, in blocks.
///
/// An incoming swap needs time between the HTLCs' arrival and their expiry: the contract is
/// funded, opened and settled in between. LDK's default of 42 leaves 4 blocks of it.
pub const HOLD_MIN_FINAL_CLTV: u16 = 120;

/// A Lightning node as the gateway sees it.
#[async_trait]
pub trait LightningNode: Send + Sync + 'static {
    /// Who and where the node is.
    async fn info(&self) -> Result<NodeInfo, NodeError>;

    /// Pays an invoice, once for each payment hash, for ever: not again after a restart, nor when the node's own records
    /// are gone. What was begun is on disk before the first HTLC leaves.
    ///
    /// A second call for a payment that is under way or done waits for, or returns, its result,
    /// whatever its other arguments. Returns when the result is known, or `Pending` when
    /// `retry_for` and the backend's own margin are over. [`NodeError::Refused`] and `Unknown` say that nothing was begun,
    /// now or before; after any other error it may have been.
    async fn pay(&self, request: PayRequest) -> Result<PaymentStatus, NodeError>;

    /// What has become of a payment. Of one that [`pay`](Self::pay) has begun it is never `Unknown`.
    async fn payment(&self, payment_hash: [u8; 32]) -> Result<PaymentStatus, NodeError>;

    /// A BOLT 11 invoice to a payment hash whose preimage this node doesn't know.
    ///
    /// Its `min_final_cltv_expiry_delta` is [`HOLD_MIN_FINAL_CLTV`], and it carries route hints
    /// if the node can be reached by unannounced channels only.
    async fn hold_invoice(&self, request: HoldInvoiceRequest) -> Result<Bolt11Invoice, NodeError>;

    /// The payments that are held: complete sets only (BOLT 4, basic multi-part payments),
    /// each reported until it is settled, cancelled or expired, across restarts.
    async fn held_payments(&self) -> Result<Vec<HeldPayment>, NodeError>;

    /// Resolves when something about held payments may have changed since `seen`.
    ///
    /// Returns the new counter, to be given at the next call; begin with 0. It counts within one
    /// run of the node: a value of an earlier run resolves at once.
    async fn held_changed(&self, seen: u64) -> u64;

    /// Takes a held payment with its preimage. Returns once the node can't forget it any more.
    /// Settling what has been settled is `Ok`.
    async fn settle(&self, payment_hash: [u8; 32], preimage: [u8; 32]) -> Result<(), NodeError>;

    /// Fails what is held to a payment hash and forgets the invoice: what arrives later fails too.
    /// Cancelling what is unknown or cancelled is `Ok`; what is settled is
    /// [`NodeError::AlreadySettled`].
    async fn cancel(&self, payment_hash: [u8; 32]) -> Result<(), NodeError>;

    /// A fresh address of the node's own on-chain wallet.
    async fn onchain_address(&self) -> Result<Address, NodeError>;

    /// Sends from the node's on-chain wallet.
    async fn onchain_send(&self, request: OnchainSendRequest) -> Result<Txid, NodeError>;

    /// What the node owns, on chain and in its channels.
    async fn balances(&self) -> Result<Balances, NodeError>;
}

/// Answer to [`LightningNode::info`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeInfo {
    /// The name it announces, possibly empty.
    pub alias: String,
    /// Its public key.
    pub node_id: PublicKey,
    /// The chain it is on.
    pub network: Network,
    /// The height up to which it has seen that chain.
    pub block_height: u32,
    /// Hints for payers, from its usable unannounced channels (BOLT 11, field `r`).
    #[serde(skip)]
    pub route_hints: Vec<RouteHint>,
}

/// What [`LightningNode::pay`] is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayRequest {
    /// The invoice to pay.
    pub invoice: Bolt11Invoice,
    /// What the payee gets, in msat. Equal to the invoice's amount if it has one.
    pub amount_msat: u64,
    /// The most that routing may cost on top, in msat.
    pub max_fee_msat: u64,
    /// The most blocks that the HTLCs may be locked, final hop included.
    pub max_delay_blocks: u32,
    /// How long new routes are tried. An HTLC under way may take longer.
    pub retry_for: Duration,
}

/// Where a payment stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "status")]
pub enum PaymentStatus {
    /// [`LightningNode::pay`] has not begun it. That is no proof that nobody has ever paid it.
    Unknown,
    /// Begun, result not known; for ever, if the node has lost what would prove it. Neither paid again nor refunded.
    Pending,
    /// Paid.
    Succeeded {
        /// Proof of payment.
        #[serde(with = "hex::serde")]
        preimage: [u8; 32],
        /// What routing cost, in msat.
        fee_msat: u64,
    },
    /// Provably over, by our own attempt: no HTLC of it is or will be under way.
    Failed {
        /// For people.
        reason: String,
    },
}

/// What [`LightningNode::hold_invoice`] is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldInvoiceRequest {
    /// SHA-256 of the preimage that will settle it.
    #[serde(with = "hex::serde")]
    pub payment_hash: [u8; 32],
    /// Amount, in msat.
    pub amount_msat: u64,
    /// What the payer reads; at most 639 bytes of UTF-8 (BOLT 11).
    pub description: String,
    /// How long it can be paid.
    pub expiry: Duration,
}

/// A complete set of HTLCs that waits for a preimage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPayment {
    /// What it pays to.
    #[serde(with = "hex::serde")]
    pub payment_hash: [u8; 32],
    /// What its HTLCs bring, in msat; at least the invoice's amount.
    pub amount_msat: u64,
    /// The last block height at which [`LightningNode::settle`] is safe. Afterwards the node may
    /// fail it by itself.
    pub claim_deadline_height: u32,
}

/// What [`LightningNode::onchain_send`] is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnchainSendRequest {
    /// Where to. [`LightningNode::onchain_send`] checks its network.
    pub address: Address<bitcoin::address::NetworkUnchecked>,
    /// How much arrives, in sat.
    pub amount_sat: u64,
    /// Fee rate in sat per 1000 weight units; `None` leaves it to the node's estimate.
    pub fee_rate_sat_per_kwu: Option<u64>,
}

/// Answer to [`LightningNode::balances`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balances {
    /// Confirmed and own unconfirmed coins of the on-chain wallet, in sat.
    pub onchain_sat: u64,
    /// What usable channels can send, in msat.
    pub outbound_msat: u64,
    /// What usable channels can receive, in msat.
    pub inbound_msat: u64,
}

/// Why a node could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The request makes no sense; repeating it won't help.
    #[error("the Lightning node refused the request: {0}")]
    Refused(String),
    /// Nothing is held to this hash: never paid, failed back or expired.
    #[error("no payment to {} is held", Hex(.0))]
    NotHeld([u8; 32]),
    /// It was settled, so it can't be cancelled.
    #[error("the payment to {} is settled already", Hex(.0))]
    AlreadySettled([u8; 32]),
    /// The preimage's SHA-256 is not the payment hash.
    #[error("the preimage does not belong to {}", Hex(.0))]
    WrongPreimage([u8; 32]),
    /// The on-chain wallet can't pay that much; deposit to it first.
    #[error("the node's on-chain wallet does not have enough: {0}")]
    OnchainFunds(String),
    /// The node, its disk or its chain source can't be reached right now; try again.
    #[error("the Lightning node is unavailable, try again: {0}")]
    Unavailable(String),
}

/// Writes bytes as lower-case hex.
struct Hex<'a>(&'a [u8; 32]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_back() {
        let paid = PaymentStatus::Succeeded { preimage: [7; 32], fee_msat: 3 };
        let text = serde_json::to_string(&paid).unwrap();
        assert!(text.contains(r#""status":"succeeded""#), "{text}");
        assert_eq!(serde_json::from_str::<PaymentStatus>(&text).unwrap(), paid);
    }

    #[test]
    fn an_error_names_the_hash() {
        let text = NodeError::NotHeld([0xab; 32]).to_string();
        assert!(text.contains(&"ab".repeat(32)), "{text}");
    }
}

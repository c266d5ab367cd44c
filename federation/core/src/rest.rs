//! The bodies of the guardian's REST API under `/v1`, shared by guardian and client.
//!
//! | endpoint | answer |
//! |---|---|
//! | `GET /v1/config` | [`ConfigResponse`](crate::config::ConfigResponse) |
//! | `GET /v1/status` | [`StatusResponse`] |
//! | `GET /v1/audit` | [`AuditResponse`] |
//! | `GET /metrics` | the numbers of [`StatusResponse`] and some counters, in Prometheus' text format 0.0.4 |
//! | `POST /v1/transactions`, body [`Transaction`](crate::Transaction) | [`TransactionResponse`] |
//! | `GET /v1/transactions/{txid}?wait=SECONDS&until=decided\|ready` | [`TransactionResponse`] |
//! | `GET /v1/outcomes/{txid}/{index}?wait=SECONDS` | [`OutputStatus`] |
//! | `GET /v1/epochs/{epoch}` | [`EpochResponse`] |
//! | `POST /v1/backups`, body [`Backup`](crate::backup::Backup) | `{}`: it is durable here |
//! | `GET /v1/backups/{key}` | [`Backup`](crate::backup::Backup), the last one under this key |
//! | `GET`, `POST /v1/modules/{kind}/{path}` | the module's own |
//!
//! `wait` (at most [`MAX_WAIT_SECONDS`]) holds the answer back until the transaction is accepted or
//! rejected (`until=decided`, the default), or until all its outputs are ready too (`until=ready`), or
//! the time is over. Errors are RFC 9457 problem documents: [`ProblemDocument`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::encoding::tagged_hash;
use crate::module::AuditLine;
use crate::{FederationId, PeerId, TxId};

/// The longest wait of a long-poll, in seconds.
pub const MAX_WAIT_SECONDS: u64 = 60;
/// The largest request body, in bytes.
pub const MAX_REQUEST_SIZE: usize = 1 << 20;

/// Where a transaction stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum TransactionStatus {
    /// Durable in this guardian's pool, not yet agreed on.
    Proposed,
    /// Agreed on and applied; final for the transaction, its outputs may still be pending.
    Accepted {
        /// The epoch that it was in.
        epoch: u64,
    },
    /// Agreed on and refused: nothing was moved.
    Rejected {
        /// The stable code of the reason.
        code: String,
        /// The reason, for a person.
        reason: String,
    },
}

/// What became of an output of an accepted transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum OutputStatus {
    /// Not yet.
    Pending,
    /// Done.
    Ready {
        /// The module's canonical encoding of the outcome, in hex.
        #[serde(with = "hex::serde")]
        bytes: Vec<u8>,
        /// The same for people and clients in any language.
        outcome: serde_json::Value,
    },
}

/// A transaction and its outputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionResponse {
    /// The transaction's id.
    pub txid: TxId,
    /// Where it stands.
    #[serde(flatten)]
    pub status: TransactionStatus,
    /// Its outputs in order; empty unless accepted.
    pub outputs: Vec<OutputStatus>,
}

/// A guardian's link to another guardian.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The other guardian's name.
    pub name: String,
    /// Whether the link is up, both ways.
    pub connected: bool,
    /// Round-trip time of the last heartbeat, in milliseconds.
    pub rtt_ms: Option<u64>,
    /// Messages waiting to be sent.
    pub queued: u64,
    /// Faults of that guardian that this one has counted since its start, of all kinds.
    pub faults: u64,
    /// The same by kind; kinds without faults are left out.
    #[serde(default)]
    pub faults_by_kind: BTreeMap<String, u64>,
    /// Milliseconds since that guardian was last heard of; `None`: not since this one's start.
    #[serde(default)]
    pub last_seen_ms: Option<u64>,
    /// Why the last attempt to connect failed, while there is no connection.
    #[serde(default)]
    pub last_error: Option<String>,
    /// The next epoch that it has to commit; `None`: it has not said so yet.
    #[serde(default)]
    pub epoch: Option<u64>,
    /// How many epochs it is behind this guardian.
    #[serde(default)]
    pub epochs_behind: Option<u64>,
    /// The newest consensus version that it has announced.
    #[serde(default)]
    pub announced_version: u16,
}

/// Which rules are in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsensusVersion {
    /// The version that the next epoch is applied under.
    pub in_force: u16,
    /// The newest version that this guardian's program knows.
    pub supported: u16,
}

/// A guardian's own view of itself and its peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusResponse {
    /// The federation.
    pub federation_id: FederationId,
    /// The federation's name.
    pub name: String,
    /// This guardian.
    pub peer: PeerId,
    /// The program's version.
    pub version: String,
    /// The next epoch: all before it are applied.
    pub epoch: u64,
    /// The last epoch that is final: whose header f + 1 guardians have signed.
    #[serde(default)]
    pub last_final: Option<u64>,
    /// Whether past epochs are being fetched from others.
    #[serde(default)]
    pub catching_up: bool,
    /// Why this guardian keeps silent, if it does.
    #[serde(default)]
    pub silent: Option<String>,
    /// The epoch since which this guardian's state differs from the others'. It signs nothing any more.
    #[serde(default)]
    pub diverged: Option<u64>,
    /// The consensus version.
    #[serde(default)]
    pub consensus_version: ConsensusVersion,
    /// Transactions waiting in this guardian's pool.
    pub pool: u64,
    /// Their bytes.
    #[serde(default)]
    pub pool_bytes: u64,
    /// How long the oldest of them has waited, in milliseconds; 0 if there is none.
    #[serde(default)]
    pub pool_oldest_ms: u64,
    /// The links to the others.
    pub peers: BTreeMap<PeerId, PeerStatus>,
    /// What needs an operator's attention; empty in a healthy federation.
    pub alarms: Vec<String>,
}

/// An applied epoch and who has signed it.
///
/// Whoever has the federation's configuration can check it: `hash` is
/// `SHA-256("cln-federation/header/v1" ‖ epoch ‖ previous ‖ items ‖ state)` with the epoch as 8 big-endian bytes, and each
/// signature is BIP-340's of [`header_message`] with that guardian's identity key. f + 1 right ones, f = (n − 1) / 3, make the
/// epoch final: an honest guardian is among them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochResponse {
    /// The epoch, from 0.
    pub epoch: u64,
    /// The hash of the header before; 32 zero bytes in epoch 0.
    #[serde(with = "hex::serde")]
    pub previous: [u8; 32],
    /// The Merkle root of the guardians' contributions.
    #[serde(with = "hex::serde")]
    pub items: [u8; 32],
    /// The digest of the federation's state after the epoch.
    #[serde(with = "hex::serde")]
    pub state: [u8; 32],
    /// The hash of the above.
    #[serde(with = "hex::serde")]
    pub hash: [u8; 32],
    /// The signatures that this guardian knows of, in hex. They trickle in within moments.
    pub signatures: BTreeMap<PeerId, String>,
    /// Whether there are f + 1 of them.
    #[serde(rename = "final")]
    pub is_final: bool,
}

/// What a guardian signs for an epoch's header: BIP-340's tagged hash, tag `cln-federation/header-signature`, of the
/// federation's id and the header's hash.
pub fn header_message(federation: FederationId, header_hash: &[u8; 32]) -> [u8; 32] {
    tagged_hash("cln-federation/header-signature", &[&federation.0, header_hash])
}

/// What the federation has and owes, in millisatoshi.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditResponse {
    /// The epoch after which it was taken.
    pub epoch: u64,
    /// The lines of each module.
    pub modules: BTreeMap<String, Vec<AuditLine>>,
    /// The sum of all lines: what the federation has beyond what it owes. Negative is an alarm.
    pub net_msat: i64,
}

/// An error: RFC 9457, `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemDocument {
    /// `about:blank`: the code says what it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable, machine-readable code.
    pub code: String,
    /// What happened and what can be done.
    pub detail: String,
}

//! How a gateway makes itself known: a signed announcement, good for an hour, kept by each guardian by itself.
//!
//! It is no part of consensus: an announcement moves no money, and a user checks it by its signature.

use bitcoin::secp256k1::schnorr::Signature;
use bitcoin::secp256k1::{Keypair, Message, PublicKey, SECP256K1, XOnlyPublicKey};
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::encoding::{encode, public_key, schnorr, tagged_hash, xonly};
use federation_core::{Amount, FederationId};
use serde::{Deserialize, Serialize};

/// How long an announcement is good, in seconds. Gateways renew it at half of that.
pub const LIFETIME: u64 = 3600;
/// How far a gateway's clock may be ahead, in seconds.
pub const CLOCK_SKEW: u64 = 300;
/// The longest URL, in bytes.
pub const MAX_URL: usize = 256;
/// The longest alias, in bytes (as in BOLT 7).
pub const MAX_ALIAS: usize = 32;

/// What a gateway charges in one direction.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
)]
pub struct GatewayFees {
    /// For each payment.
    #[serde(rename = "base_msat")]
    pub base: Amount,
    /// Millionths of the amount.
    pub ppm: u64,
}

impl GatewayFees {
    /// The fee for an amount, rounded up; `None` on overflow.
    pub fn of(&self, amount: Amount) -> Option<Amount> {
        amount.fee(self.base, self.ppm)
    }
}

/// What a user needs to know of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct GatewayInfo {
    /// The key that its contracts name; signs the announcement.
    #[borsh(serialize_with = "xonly::to", deserialize_with = "xonly::from")]
    pub key: XOnlyPublicKey,
    /// A name for people, possibly empty.
    pub alias: String,
    /// The base URL of its API.
    pub api_url: String,
    /// Its Lightning node.
    #[borsh(serialize_with = "public_key::to", deserialize_with = "public_key::from")]
    pub node_id: PublicKey,
    /// What it takes for paying an invoice, routing included.
    pub send_fees: GatewayFees,
    /// What it takes for receiving.
    pub receive_fees: GatewayFees,
    /// The smallest payment that it takes on.
    #[serde(rename = "min_msat")]
    pub min: Amount,
    /// The largest payment that it takes on.
    #[serde(rename = "max_msat")]
    pub max: Amount,
    /// Until when this is good, in seconds since 1970.
    pub expires_at: u64,
}

/// A gateway's signed word about itself.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Announcement {
    /// What it says.
    pub info: GatewayInfo,
    /// BIP-340, by the key that it names, over federation and info.
    #[borsh(serialize_with = "schnorr::to", deserialize_with = "schnorr::from")]
    pub signature: Signature,
}

/// Why an announcement is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnouncementError {
    /// The signature is not the named key's, or for another federation.
    #[error("the announcement's signature is wrong, or made for another federation")]
    Signature,
    /// It is over.
    #[error("the announcement has expired: renew it")]
    Expired,
    /// It would be good for too long.
    #[error("an announcement is good for at most {LIFETIME} seconds: check the gateway's clock")]
    TooLong,
    /// The URL is not one, or too long.
    #[error(
        "the API's URL must begin with http:// or https:// and have at most {MAX_URL} printable ASCII characters"
    )]
    Url,
    /// The alias is too long, or has control characters.
    #[error("the alias has at most {MAX_ALIAS} bytes and no control characters")]
    Alias,
    /// The smallest payment is larger than the largest.
    #[error("the smallest payment is larger than the largest")]
    Limits,
}

fn message(federation: FederationId, info: &GatewayInfo) -> Message {
    Message::from_digest(tagged_hash("cln-federation/gateway", &[&federation.0, &encode(info)]))
}

impl Announcement {
    /// Signs; `key` must be the one that `info` names.
    pub fn sign(federation: FederationId, info: GatewayInfo, key: &Keypair) -> Self {
        let signature = SECP256K1.sign_schnorr(&message(federation, &info), key);
        Self { info, signature }
    }

    /// Checks form, time and signature. `now` is in seconds since 1970.
    pub fn verify(&self, federation: FederationId, now: u64) -> Result<(), AnnouncementError> {
        let info = &self.info;
        if info.expires_at <= now {
            return Err(AnnouncementError::Expired);
        }
        if info.expires_at > now.saturating_add(LIFETIME + CLOCK_SKEW) {
            return Err(AnnouncementError::TooLong);
        }
        let http = info.api_url.starts_with("http://") || info.api_url.starts_with("https://");
        // Users' terminals print these.
        if !http || info.api_url.len() > MAX_URL || !info.api_url.bytes().all(|c| c.is_ascii_graphic()) {
            return Err(AnnouncementError::Url);
        }
        if info.alias.len() > MAX_ALIAS || info.alias.chars().any(char::is_control) {
            return Err(AnnouncementError::Alias);
        }
        if info.min > info.max {
            return Err(AnnouncementError::Limits);
        }
        SECP256K1
            .verify_schnorr(&self.signature, &message(federation, info), &info.key)
            .map_err(|_| AnnouncementError::Signature)
    }
}

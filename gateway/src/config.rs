//! What an operator decides.

use std::net::SocketAddr;
use std::path::PathBuf;

use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::Amount;
use federation_lightning::GatewayFees;
use serde::{Deserialize, Serialize};

/// How to start a [`Gateway`](crate::Gateway).
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Holds the gateway's database, its words and a wallet for each federation. One gateway a directory; back it up.
    pub data_dir: PathBuf,
    /// Where the API for users listens; port 0 takes a free one.
    pub api_bind: SocketAddr,
    /// The base URL that users reach it by, such as `https://gateway.example.org`; `None`: `http://` and the bound
    /// address, for tests and demos.
    pub api_url: Option<String>,
    /// What is charged; fees set at run time count until this says something else than at the last start.
    pub fees: Fees,
    /// What is taken on.
    pub limits: Limits,
    /// The BIP-39 words that all keys come from; `None`: those in the file `words` in `data_dir`, made if there is none.
    pub words: Option<String>,
}

/// What the gateway charges, by direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Fees {
    /// For each payment that a user makes, routing included.
    #[serde(rename = "send_base_msat")]
    pub send_base: Amount,
    /// Millionths of such a payment.
    pub send_ppm: u64,
    /// For each payment that a user gets.
    #[serde(rename = "receive_base_msat")]
    pub receive_base: Amount,
    /// Millionths of such a payment.
    pub receive_ppm: u64,
}

impl Fees {
    /// As users are told, for paying.
    pub fn send(&self) -> GatewayFees {
        GatewayFees { base: self.send_base, ppm: self.send_ppm }
    }

    /// As users are told, for being paid.
    pub fn receive(&self) -> GatewayFees {
        GatewayFees { base: self.receive_base, ppm: self.receive_ppm }
    }
}

impl Default for Fees {
    /// 2 sat and 0.3 % for paying, which covers common routes; 1 sat and 0.1 % for being paid.
    fn default() -> Self {
        Self {
            send_base: Amount::from_msat(2000),
            send_ppm: 3000,
            receive_base: Amount::from_msat(1000),
            receive_ppm: 1000,
        }
    }
}

/// What the gateway takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The smallest payment.
    #[serde(rename = "min_msat")]
    pub min: Amount,
    /// The largest payment.
    #[serde(rename = "max_msat")]
    pub max: Amount,
    /// How many outgoing swaps may be open at once.
    pub max_pending: usize,
    /// How many invoices may wait for their payment at once.
    pub max_invoices: usize,
    /// The most that may be funded to users and not yet be settled over Lightning: what a fault of the node can cost.
    #[serde(rename = "max_exposure_msat")]
    pub max_exposure: Amount,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min: Amount::from_msat(1000),
            max: Amount::from_msat(1_000_000_000),
            max_pending: 1000,
            max_invoices: 10_000,
            max_exposure: Amount::from_msat(5_000_000_000),
        }
    }
}

//! What a wallet says to a gateway, and what the gateway answers.
//!
//! | endpoint of the gateway | body | answer |
//! |---|---|---|
//! | `POST /v1/pay?wait=SECONDS` | [`PayRequest`] | [`PayResponse`] |
//! | `POST /v1/invoices` | [`InvoiceRequest`] | [`InvoiceResponse`] |
//!
//! Both may be repeated: the contract's id names the swap. `wait` (60 at most) holds the answer to `pay` back until the
//! payment has succeeded or failed, or the time is over. Errors are problem documents, as the guardians'; the gateway refuses
//! (status 4xx) only what it has not begun and never will begin.

use bitcoin::secp256k1::schnorr::Signature;
use federation_core::{Amount, FederationId};
use federation_lightning::{ContractId, Preimage};
use serde::{Deserialize, Serialize};

/// Asks for the payment of an invoice against a contract that is funded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayRequest {
    /// The contract's federation.
    pub federation_id: FederationId,
    /// The contract's id, for convenience: the gateway computes it.
    pub contract_id: ContractId,
    /// The canonical encoding of the [`OutgoingContract`](federation_lightning::OutgoingContract), in hex.
    #[serde(with = "hex::serde")]
    pub contract: Vec<u8>,
    /// The BOLT 11 invoice.
    pub invoice: String,
}

/// Where a payment stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum PayResponse {
    /// Paid.
    Succeeded {
        /// The proof.
        preimage: Preimage,
    },
    /// Not paid, and never will be for this contract.
    Failed {
        /// Why, for a person.
        reason: String,
        /// Signed by the gateway
        /// ([`sign_cancellation`](federation_lightning::contract::sign_cancellation)): the user is refunded at once.
        cancellation: Signature,
    },
    /// Under way.
    Pending,
}

/// Asks for a hold invoice that funds a contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceRequest {
    /// The contract's federation.
    pub federation_id: FederationId,
    /// The canonical encoding of the [`IncomingContract`](federation_lightning::IncomingContract), in hex.
    #[serde(with = "hex::serde")]
    pub contract: Vec<u8>,
    /// What the payer pays.
    pub amount_msat: Amount,
    /// What the payer reads.
    pub description: String,
}

/// The invoice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceResponse {
    /// BOLT 11.
    pub invoice: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_tagged_by_status() {
        let pending: PayResponse = serde_json::from_str(r#"{"status":"pending"}"#).unwrap();
        assert_eq!(pending, PayResponse::Pending);
        let done = PayResponse::Succeeded { preimage: Preimage([1; 32]) };
        let json = serde_json::to_value(&done).unwrap();
        assert_eq!(json["preimage"], "01".repeat(32));
        assert_eq!(serde_json::from_value::<PayResponse>(json).unwrap(), done);
    }
}

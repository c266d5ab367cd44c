//! The two kinds of contract, their ids, and what is signed or proved about them.

use bitcoin::secp256k1::schnorr::Signature;
use bitcoin::secp256k1::{Keypair, Message, SECP256K1, XOnlyPublicKey};
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::encoding::{encode, tagged_hash, xonly};
use federation_core::{Amount, FederationId};
use federation_tbs::encryption::Ciphertext;
use serde::{Deserialize, Serialize};

use crate::{ContractId, PaymentHash};

/// A user's money for a gateway that pays an invoice.
///
/// The gateway takes it with the preimage as long as it is unspent, even after the expiry: it may have had to pay late.
/// The user takes it back from the expiry height on, or at once with the gateway's cancellation.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct OutgoingContract {
    /// The invoice's payment hash.
    pub payment_hash: PaymentHash,
    /// All that is locked: the invoice's amount and the gateway's fee, routing included.
    #[serde(rename = "amount_msat")]
    pub amount: Amount,
    /// The gateway's BIP-340 key.
    #[borsh(serialize_with = "xonly::to", deserialize_with = "xonly::from")]
    pub gateway_key: XOnlyPublicKey,
    /// The user's BIP-340 key, fresh for each contract.
    #[borsh(serialize_with = "xonly::to", deserialize_with = "xonly::from")]
    pub user_key: XOnlyPublicKey,
    /// The agreed block height from which on the user may take the money back.
    pub expiry_height: u32,
    /// SHA-256 of the invoice (of its text in lowercase for BOLT 11, of its bytes for BOLT 12): which one is to be paid,
    /// should several have the same payment hash.
    #[serde(with = "hex::serde")]
    pub invoice_hash: [u8; 32],
}

/// What an incoming contract says, apart from the encrypted preimage, which is bound to all of it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct IncomingTerms {
    /// The hold invoice's payment hash.
    pub payment_hash: PaymentHash,
    /// What the user gets: the invoice's amount less the gateway's fee.
    #[serde(rename = "amount_msat")]
    pub amount: Amount,
    /// The user's BIP-340 key, fresh for each contract.
    #[borsh(serialize_with = "xonly::to", deserialize_with = "xonly::from")]
    pub user_key: XOnlyPublicKey,
    /// The gateway's BIP-340 key: it gets the money back if the preimage is wrong.
    #[borsh(serialize_with = "xonly::to", deserialize_with = "xonly::from")]
    pub gateway_key: XOnlyPublicKey,
    /// The agreed block height from which on it can't be funded any more. Well before the HTLCs expire, so that a gateway
    /// whose funding was delayed doesn't pay for HTLCs that it can't take.
    pub fund_before_height: u32,
}

/// A gateway's money for a user, against the preimage that the user encrypted to the federation.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct IncomingContract {
    /// What it says.
    pub terms: IncomingTerms,
    /// The preimage, encrypted to the federation's preimage key under the label of the terms.
    pub ciphertext: Ciphertext,
}

/// A contract of either kind.
#[allow(clippy::large_enum_variant, reason = "half a kilobyte, and few at a time")]
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Contract {
    /// From user to gateway.
    Outgoing(OutgoingContract),
    /// From gateway to user.
    Incoming(IncomingContract),
}

impl OutgoingContract {
    /// The contract's name.
    pub fn id(&self, federation: FederationId) -> ContractId {
        ContractId(tagged_hash("cln-federation/outgoing-contract", &[&federation.0, &encode(self)]))
    }
}

impl IncomingTerms {
    /// The label that the ciphertext's proof covers: federation, keys, amount, payment hash, height. A preimage that was
    /// encrypted for one contract can't be had decrypted through another.
    pub fn label(&self, federation: FederationId) -> [u8; 32] {
        tagged_hash("cln-federation/preimage-label", &[&federation.0, &encode(self)])
    }
}

impl IncomingContract {
    /// The contract's name.
    pub fn id(&self, federation: FederationId) -> ContractId {
        ContractId(tagged_hash("cln-federation/incoming-contract", &[&federation.0, &encode(self)]))
    }

    /// Whether the ciphertext was made for these terms and has the length of a preimage. Two pairings: about a
    /// millisecond.
    pub fn verify_ciphertext(&self, federation: FederationId) -> bool {
        self.ciphertext.plaintext_len() == 32 && self.ciphertext.verify(&self.terms.label(federation))
    }
}

impl Contract {
    /// The contract's name.
    pub fn id(&self, federation: FederationId) -> ContractId {
        match self {
            Self::Outgoing(contract) => contract.id(federation),
            Self::Incoming(contract) => contract.id(federation),
        }
    }

    /// What is locked in it.
    pub fn amount(&self) -> Amount {
        match self {
            Self::Outgoing(contract) => contract.amount,
            Self::Incoming(contract) => contract.terms.amount,
        }
    }
}

fn cancellation(federation: FederationId, contract: ContractId) -> Message {
    Message::from_digest(tagged_hash("cln-federation/cancel-outgoing", &[&federation.0, &contract.0]))
}

/// The gateway's promise that it has not paid and never will: with it the user is refunded at once.
pub fn sign_cancellation(federation: FederationId, contract: ContractId, gateway: &Keypair) -> Signature {
    SECP256K1.sign_schnorr(&cancellation(federation, contract), gateway)
}

/// Whether a cancellation is this gateway's, for this contract.
pub fn verify_cancellation(
    federation: FederationId,
    contract: ContractId,
    gateway: &XOnlyPublicKey,
    signature: &Signature,
) -> bool {
    SECP256K1.verify_schnorr(signature, &cancellation(federation, contract), gateway).is_ok()
}

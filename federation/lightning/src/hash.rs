//! 32-byte names: of contracts, of payments, and the preimages behind the latter.

use std::fmt;
use std::str::FromStr;

use bitcoin::hashes::{Hash as _, sha256};
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::db::TableKey;
use federation_core::ids::ParseIdError;
use serde::{Deserialize, Serialize};

/// 32 bytes, shown and serialised in JSON as 64 lowercase hex digits.
macro_rules! hex_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(#[serde(with = "hex::serde")] pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; 32];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseIdError)?;
                Ok(Self(bytes))
            }
        }
    };
}

hex_name! {
    /// Names a contract: a tagged hash of the federation and of all that the contract says.
    ContractId
}

hex_name! {
    /// SHA-256 of a preimage (BOLT 2, `update_add_htlc`).
    PaymentHash
}

hex_name! {
    /// What a payment hash is the hash of: whoever has it can take the payment, and prove that it was made.
    Preimage
}

impl Preimage {
    /// The payment hash that this preimage opens.
    pub fn payment_hash(&self) -> PaymentHash {
        PaymentHash(sha256::Hash::hash(&self.0).to_byte_array())
    }
}

impl fmt::Debug for ContractId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContractId({self})")
    }
}

impl fmt::Debug for PaymentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PaymentHash({self})")
    }
}

/// Says nothing: a preimage that gets into a log before its payment is settled is money lost.
impl fmt::Debug for Preimage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Preimage(…)")
    }
}

impl TableKey for ContractId {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        <[u8; 32]>::read(bytes).map(Self)
    }
}

//! The bodies of the mint's inputs, outputs, items and outcomes.

use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::OutPoint;
use federation_core::db::TableKey;
use federation_tbs::{BlindedMessage, EncodingError};
use serde::{Deserialize, Serialize};

use crate::Denomination;

/// The most partial signatures of one item; a guardian that has more to say says the rest in the next epoch.
///
/// 82 bytes each: well below [`federation_core::module::MAX_ITEM`].
pub const MAX_PARTIAL_SIGNATURES: usize = 4096;

/// A note that is spent. Its nonce is the key of the input's envelope: who spends it signs the transaction with it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct NoteInput {
    /// What it is worth, and so whose signature it carries.
    pub denomination: Denomination,
    /// The federation's signature of the 32 bytes of the nonce: a [`federation_tbs::Signature`].
    pub signature: PointBytes,
}

/// A note that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct NoteOutput {
    /// What it shall be worth.
    pub denomination: Denomination,
    /// The nonce, hidden.
    pub blinded_nonce: BlindedMessage,
}

/// A point in G1 as its 48 bytes, not yet looked at: decompressing one and checking its subgroup costs as much as the
/// rest of its handling, so it is put off until the point is computed with. As hexadecimal in JSON.
///
/// The same encoding as [`federation_tbs::Signature`], [`BlindedMessage`], [`federation_tbs::BlindedSignatureShare`] and
/// [`federation_tbs::BlindedSignature`] have themselves.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    BorshSerialize,
    BorshDeserialize,
    Serialize,
    Deserialize,
)]
#[serde(transparent)]
pub struct PointBytes(#[serde(with = "hex::serde")] pub [u8; 48]);

impl PointBytes {
    /// The point.
    ///
    /// # Errors
    /// Bytes that are not the canonical encoding of a point of the subgroup.
    pub fn decode<T>(&self) -> Result<T, EncodingError>
    where
        T: for<'a> TryFrom<&'a [u8], Error = EncodingError>,
    {
        T::try_from(&self.0)
    }
}

impl TableKey for PointBytes {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        <[u8; 48]>::read(bytes).map(Self)
    }
}

/// One guardian's partial signature of one output.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PartialSignature {
    /// The output.
    pub point: OutPoint,
    /// A [`federation_tbs::BlindedSignatureShare`].
    pub share: PointBytes,
}

/// The mint's consensus item: what one guardian signed since the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PartialSignatures(pub Vec<PartialSignature>);

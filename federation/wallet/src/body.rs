//! The bodies of the module's envelopes: what comes in, goes out, is said by guardians and becomes of withdrawals.

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{ScriptBuf, Txid, block::Header};
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::encoding::bitcoin_bytes;
use serde::{Deserialize, Serialize};

use crate::proof::TxProof;

/// The most headers in one vote: a day of blocks, so that catching up takes few epochs.
pub const MAX_HEADERS: usize = 144;

/// Claims a deposit. The envelope's key is the depositor's: the output's script must be the descriptor tweaked by it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DepositInput {
    /// The transaction, and that it is in a block.
    pub proof: TxProof,
    /// Which of its outputs.
    pub vout: u32,
}

/// Asks for a payment on chain. Takes `amount_sat + fee_sat` from the transaction.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct WithdrawalOutput {
    /// Whom to pay: p2pkh, p2sh, p2wpkh, p2wsh or p2tr.
    #[borsh(serialize_with = "bitcoin_bytes::to", deserialize_with = "bitcoin_bytes::from")]
    pub script: ScriptBuf,
    /// What arrives there.
    pub amount_sat: u64,
    /// The quoted fee, or more.
    pub fee_sat: u64,
}

/// What a withdrawal costs: the answer of `GET /v1/modules/wallet/quote`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// The address, as asked.
    pub address: String,
    /// What would arrive there.
    pub amount_sat: u64,
    /// The fee on top.
    pub fee_sat: u64,
    /// The fee rate it is computed with, in sat per 1,000 vbytes.
    pub rate_sat_per_kvb: u64,
    /// Up to this height of the federation's final chain the fee is accepted, as long as its coins stay similar.
    pub valid_until_height: u32,
}

/// A [`federation_tbs::SignatureShare`] as its bytes, not yet looked at: decoding one is curve arithmetic.
pub type ShareBytes = [u8; 48];

/// What a guardian says.
#[allow(clippy::large_enum_variant, reason = "there are few of them at a time")]
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Item {
    /// A vote for blocks that are deep enough in this guardian's chain: consecutive ones.
    Blocks {
        /// The height of the first.
        height: u32,
        /// Their headers: at most [`MAX_HEADERS`], each building on the one before.
        headers: Vec<BlockHeader>,
    },
    /// The fee rate that this guardian sees, in sat per 1,000 vbytes.
    FeeRate(u64),
    /// A share of the beacon of an epoch that is over.
    BeaconShare {
        /// The epoch.
        epoch: u64,
        /// The share of the signature.
        share: ShareBytes,
    },
    /// A guardian's signatures of a withdrawal transaction, in the order of its inputs, each SIGHASH_ALL.
    Signatures {
        /// Which transaction.
        #[borsh(serialize_with = "bitcoin_bytes::to", deserialize_with = "bitcoin_bytes::from")]
        txid: Txid,
        /// One an input.
        signatures: Vec<InputSignature>,
    },
    /// A withdrawal transaction is in a final block.
    Confirmed(TxProof),
}

/// A block's header, as its 80 bytes behind their length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BlockHeader(
    #[borsh(serialize_with = "bitcoin_bytes::to", deserialize_with = "bitcoin_bytes::from")] pub Header,
);

/// An ECDSA signature, as its 64 compact bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputSignature(pub Signature);

impl BorshSerialize for InputSignature {
    fn serialize<W: borsh::io::Write>(&self, writer: &mut W) -> borsh::io::Result<()> {
        writer.write_all(&self.0.serialize_compact())
    }
}

impl BorshDeserialize for InputSignature {
    fn deserialize_reader<R: borsh::io::Read>(reader: &mut R) -> borsh::io::Result<Self> {
        let bytes = <[u8; 64]>::deserialize_reader(reader)?;
        Signature::from_compact(&bytes)
            .map(Self)
            .map_err(|error| borsh::io::Error::new(borsh::io::ErrorKind::InvalidData, error.to_string()))
    }
}

/// What becomes of a withdrawal: it is signed and handed to the network in this transaction.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Outcome {
    /// The transaction that pays it.
    #[borsh(serialize_with = "bitcoin_bytes::to", deserialize_with = "bitcoin_bytes::from")]
    pub txid: Txid,
}

/// One deposit that a guardian saw: part of the answer of `GET /v1/modules/wallet/deposits`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepositStatus {
    /// `txid:vout`.
    pub outpoint: String,
    /// What was sent.
    pub amount_sat: u64,
    /// Whether it is below the minimum, and so is not credited.
    pub too_small: bool,
    /// The height of its block.
    pub height: u32,
    /// How many confirmations it has in this guardian's view.
    pub confirmations: u32,
    /// Whether it was claimed already.
    pub claimed: bool,
    /// Once its block is final for the federation: the canonical encoding of [`DepositInput`], in hex.
    pub proof: Option<String>,
}

/// The answer of `GET /v1/modules/wallet/deposits`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepositsStatus {
    /// The address of the key that was asked for.
    pub address: String,
    /// Confirmations that a deposit needs.
    pub confirmations_needed: u32,
    /// The smallest deposit that is credited.
    pub min_deposit_sat: u64,
    /// The end of the chain in this guardian's view; `None` before the first look.
    pub tip_height: Option<u32>,
    /// What was seen, oldest first.
    pub deposits: Vec<DepositStatus>,
}

/// The body of `POST /v1/modules/wallet/register`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The depositor's BIP-340 key, 64 hex digits.
    pub key: bitcoin::secp256k1::XOnlyPublicKey,
}

/// The answer of `POST /v1/modules/wallet/register`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The address that is watched from now on.
    pub address: String,
    /// The smallest deposit that is credited.
    pub min_deposit_sat: u64,
    /// Confirmations that a deposit needs.
    pub confirmations_needed: u32,
}

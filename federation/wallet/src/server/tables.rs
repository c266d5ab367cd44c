//! What the module keeps: the agreed state in the epoch's namespace.

use bitcoin::{Transaction, TxOut};
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::db::Table;
use federation_core::encoding::bitcoin_bytes;
use federation_core::{OutPoint, PeerId};

use crate::body::{BlockHeader, Outcome, ShareBytes};
use crate::descriptor::Tweak;

/// The final headers by height, from the birthday on.
pub(super) const HEADERS: Table<u32, BlockHeader> = Table::new(1, "final headers");
/// The end of the final chain.
pub(super) const FINAL: Table<(), u32> = Table::new(2, "final height");
/// Each guardian's votes for blocks above the final one.
pub(super) const VOTES: Table<(PeerId, u32), BlockHeader> = Table::new(3, "block votes");
/// Each guardian's last vote for a fee rate, sat per 1,000 vbytes.
pub(super) const FEE_VOTES: Table<PeerId, u64> = Table::new(4, "fee rate votes");
/// The lowest agreed fee rate while a block was the last final one.
pub(super) const RATES: Table<u32, u64> = Table::new(5, "fee rates");

/// Coins that can be spent, by [`outpoint_key`](crate::descriptor::outpoint_key).
pub(super) const COINS: Table<[u8; 36], Coin> = Table::new(10, "coins");
/// Deposits that were claimed, for ever.
pub(super) const CLAIMED: Table<[u8; 36], ()> = Table::new(11, "claimed deposits");
/// Withdrawals that wait for their transaction, in the order of their acceptance.
pub(super) const QUEUE: Table<u64, Queued> = Table::new(12, "queued withdrawals");
/// The number of the next withdrawal or transaction.
pub(super) const NUMBER: Table<(), u64> = Table::new(13, "numbers");
/// Fees that users paid and miners did not get, in satoshi.
pub(super) const RESERVE: Table<(), u64> = Table::new(14, "fee reserve");
/// Our transactions that are not in a final block yet, by txid.
pub(super) const ACTIVE: Table<[u8; 32], Active> = Table::new(15, "unconfirmed transactions");
/// The height of the final block of those that are.
pub(super) const CONFIRMED: Table<[u8; 32], u32> = Table::new(16, "confirmed transactions");
/// What became of withdrawals.
pub(super) const OUTCOMES: Table<OutPoint, Outcome> = Table::new(17, "withdrawal outcomes");

/// The last epoch that was applied.
pub(super) const EPOCH: Table<(), u64> = Table::new(20, "last epoch");
/// Shares of beacons that are not complete.
pub(super) const SHARES: Table<(u64, PeerId), ShareBytes> = Table::new(21, "beacon shares");
/// The latest beacon.
pub(super) const BEACON: Table<(), Beacon> = Table::new(22, "beacon");

/// A coin of the federation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Coin {
    pub amount_sat: u64,
    pub tweak: Tweak,
}

/// A withdrawal that waits.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Queued {
    pub point: OutPoint,
    #[borsh(serialize_with = "bitcoin_bytes::to", deserialize_with = "bitcoin_bytes::from")]
    pub output: TxOut,
    pub fee_sat: u64,
}

/// The federation's own output of one of its transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Change {
    pub vout: u32,
    pub coin: Coin,
}

/// Where a transaction of the federation stands.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) enum Stage {
    /// Guardians sign; the PSBT (BIP-174) holds the signatures so far.
    Signing(Vec<u8>),
    /// Complete: every guardian hands it to the network until it is in a final block.
    Signed(
        #[borsh(serialize_with = "bitcoin_bytes::to", deserialize_with = "bitcoin_bytes::from")] Transaction,
    ),
}

/// A transaction of the federation that is not in a final block.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Active {
    pub stage: Stage,
    /// The tweaks of its inputs, in their order.
    pub tweaks: Vec<Tweak>,
    /// The withdrawals that it pays.
    pub points: Vec<OutPoint>,
    pub change: Option<Change>,
    /// The final height when it was made.
    pub made_at: u32,
}

/// A number of the randomness beacon.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Beacon {
    pub epoch: u64,
    /// A [`federation_tbs::MessageSignature`], as its bytes: each epoch looks at the number of this one, and decoding it is
    /// curve arithmetic.
    pub signature: [u8; 48],
}

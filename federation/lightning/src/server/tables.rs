//! What is stored: agreed state, the same on every guardian.

use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::db::{DbError, Namespaced, Reader, Table};
use federation_core::module::ModuleError;
use federation_core::{Amount, OutPoint, PeerId};
use federation_tbs::encryption::DecryptionShare;

use crate::contract::Contract;
use crate::{ContractId, ContractState, Preimage};

/// Every contract ever funded; spent ones stay, so that none is funded twice.
pub(super) const CONTRACTS: Table<ContractId, Record> = Table::new(1, "contracts");
/// Which output funded which contract.
pub(super) const OUTPUTS: Table<OutPoint, ContractId> = Table::new(2, "lightning outputs");
/// Incoming contracts whose preimage is not decrypted yet.
pub(super) const PENDING: Table<ContractId, ()> = Table::new(3, "preimages to decrypt");
/// The verified decryption shares of those.
pub(super) const SHARES: Table<(ContractId, PeerId), DecryptionShare> = Table::new(4, "decryption shares");
/// The highest block that each guardian has seen.
pub(super) const HEIGHTS: Table<PeerId, u32> = Table::new(5, "heights");
/// The height agreed on.
pub(super) const AGREED: Table<(), u32> = Table::new(6, "agreed height");
/// The sums that unspent contracts hold, by [`Direction`].
const HELD: Table<u8, u64> = Table::new(7, "money in contracts");

/// A contract and what has become of it.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(super) struct Record {
    pub(super) contract: Contract,
    pub(super) state: ContractState,
    /// Once it is public: of a claimed outgoing, of a decrypted incoming contract.
    pub(super) preimage: Option<Preimage>,
}

/// Outgoing and incoming contracts are summed apart.
#[derive(Clone, Copy)]
pub(super) enum Direction {
    Outgoing = 0,
    Incoming = 1,
}

impl Record {
    pub(super) fn direction(&self) -> Direction {
        match self.contract {
            Contract::Outgoing(_) => Direction::Outgoing,
            Contract::Incoming(_) => Direction::Incoming,
        }
    }
}

/// What unspent contracts of one direction hold.
pub(super) async fn held(db: &dyn Reader, direction: Direction) -> Result<Amount, DbError> {
    Ok(Amount::from_msat(HELD.get(db, &(direction as u8)).await?.unwrap_or(0)))
}

/// Counts money that goes into a contract.
pub(super) async fn hold(
    db: &mut Namespaced<'_>,
    direction: Direction,
    amount: Amount,
) -> Result<(), ModuleError> {
    let sum = held(db, direction).await?.checked_add(amount).ok_or_else(|| {
        ModuleError::refused("amount_too_large", "the amount is larger than all contracts can hold")
    })?;
    HELD.put(db, &(direction as u8), &sum.msat());
    Ok(())
}

/// Counts money that leaves a contract.
pub(super) async fn release(
    db: &mut Namespaced<'_>,
    direction: Direction,
    amount: Amount,
) -> Result<(), DbError> {
    let sum = held(db, direction).await?.checked_sub(amount).ok_or_else(|| DbError::Corrupt {
        table: "money in contracts".to_owned(),
        reason: "less than one contract holds".to_owned(),
    })?;
    HELD.put(db, &(direction as u8), &sum.msat());
    Ok(())
}

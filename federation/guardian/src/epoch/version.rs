//! The consensus version: which rules an epoch is applied under.
//!
//! Each guardian announces, as an item under the reserved module id [`MODULE`], the newest version that its program
//! knows, whenever that differs from what is agreed about it. The version in force is the oldest of all guardians'
//! announcements. It changes at the end of an epoch, only upwards, and holds from the next epoch on; so all guardians
//! change the rules at the same epoch, and none is left behind that doesn't know them.
//!
//! A guardian whose program is older than the version in force (its operator went back to an older one after it had announced
//! the newer) stops before it applies the first epoch under the new rules, and goes on once the newer program is
//! there. Before its federation has changed, the older program takes the announcement back.

use std::collections::{BTreeMap, BTreeSet};

use federation_core::db::{DbError, Namespaced, Reader, Table};
use federation_core::encoding::{decode, encode};
use federation_core::module::ModuleError;
use federation_core::{ConsensusItem, ModuleId, PeerId};

use crate::error::GuardianError;

/// The module id of items that guardians themselves say; no module has it.
pub const MODULE: ModuleId = ModuleId(u16::MAX);

/// What each guardian has announced; without an entry, the version that the federation started with.
const ANNOUNCED: Table<PeerId, u16> = Table::new(32, "announced consensus versions");
/// The version in force; without an entry, the version that the federation started with.
const IN_FORCE: Table<(), u16> = Table::new(33, "consensus version");

/// A federation's versions, as a program that knows some of them sees them. The tables are among the agreed ones.
#[derive(Clone, Debug)]
pub struct Versions {
    started_with: u16,
    guardians: BTreeSet<PeerId>,
    supported: u16,
}

impl Versions {
    /// Of the federation of these guardians, which started with a version, for a program that knows the rules up to
    /// `supported`.
    pub fn new(started_with: u16, guardians: impl IntoIterator<Item = PeerId>, supported: u16) -> Self {
        Self { started_with, guardians: guardians.into_iter().collect(), supported }
    }

    /// The newest version that this program knows.
    pub fn supported(&self) -> u16 {
        self.supported
    }

    /// The version that the next epoch is applied under.
    pub async fn in_force(&self, db: &dyn Reader) -> Result<u16, DbError> {
        Ok(IN_FORCE.get(db, &()).await?.unwrap_or(self.started_with))
    }

    /// What [`in_force`](Self::in_force) reads.
    pub fn in_force_key() -> Vec<u8> {
        IN_FORCE.key(&())
    }

    /// What is agreed about each guardian's program.
    pub async fn announced(&self, db: &dyn Reader) -> Result<BTreeMap<PeerId, u16>, DbError> {
        let mut announced: BTreeMap<_, _> =
            self.guardians.iter().map(|peer| (*peer, self.started_with)).collect();
        announced.extend(ANNOUNCED.all(db).await?);
        Ok(announced)
    }

    /// What the guardian `me` has to announce: it is worth an epoch.
    pub async fn propose(&self, db: &dyn Reader, me: PeerId) -> Result<Option<ConsensusItem>, DbError> {
        let agreed = ANNOUNCED.get(db, &me).await?.unwrap_or(self.started_with);
        Ok((agreed != self.supported)
            .then(|| ConsensusItem { module: MODULE, body: encode(&self.supported) }))
    }

    /// Takes an announcement.
    pub async fn apply(&self, db: &mut Namespaced<'_>, from: PeerId, body: &[u8]) -> Result<(), ModuleError> {
        if !self.guardians.contains(&from) {
            return Err(ModuleError::refused("unknown_guardian", format!("there is no guardian {from}")));
        }
        let version = decode::<u16>(body, 2)
            .map_err(|error| ModuleError::refused("malformed", format!("no consensus version: {error}")))?;
        ANNOUNCED.put(db, &from, &version);
        Ok(())
    }

    /// After the last item and transaction of an epoch: the version that all have announced is in force from the next on.
    pub async fn end_epoch(&self, db: &mut Namespaced<'_>) -> Result<(), DbError> {
        let in_force = self.in_force(db).await?;
        let all = self.announced(db).await?.into_values().min().unwrap_or(in_force);
        if all > in_force {
            tracing::info!("consensus version {all} is in force from the next epoch on");
            IN_FORCE.put(db, &(), &all);
        }
        Ok(())
    }

    /// Refuses to apply epochs under rules that this program doesn't know.
    ///
    /// # Errors
    /// [`GuardianError::TooOld`].
    pub fn check(&self, in_force: u16) -> Result<(), GuardianError> {
        if in_force <= self.supported {
            return Ok(());
        }
        Err(GuardianError::TooOld { in_force, supported: self.supported })
    }
}

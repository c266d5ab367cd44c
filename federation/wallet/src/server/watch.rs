//! Deposit keys that users registered with this guardian, and what blocks brought for them.
//!
//! This is local: no other guardian knows it, and nothing here is believed by consensus; what it yields are proofs. It is
//! kept under a prefix of its own in the database handed in, and is indexed in memory by witness program (64 bytes a key).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use bitcoin::secp256k1::XOnlyPublicKey;
use bitcoin::{Block, OutPoint};
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::db::{Database, DbError, Namespaced, NamespacedReader, Table};
use federation_store::WriteBatch;

use crate::body::DepositInput;
use crate::descriptor::{Descriptor, Program, outpoint_key};
use crate::proof::TxProof;

/// The most keys that are watched.
pub(super) const MAX_KEYS: usize = 100_000;
/// The most deposits that one answer shows.
const MAX_SHOWN: usize = 100;
const PREFIX: &[u8] = b"wallet-local/";

/// A deposit key, and the outpoint that pays to it.
type Place = ([u8; 32], [u8; 36]);

const KEYS: Table<[u8; 32], Program> = Table::new(1, "registered deposit keys");
const FOUND: Table<Place, Found> = Table::new(2, "deposits seen");
const FOUND_AT: Table<(u32, Place), ()> = Table::new(3, "deposits by height");
const SCANNED: Table<(), u32> = Table::new(4, "scanned height");

/// A deposit in a block.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(super) struct Found {
    pub amount_sat: u64,
    pub input: DepositInput,
}

impl Found {
    pub fn outpoint(&self) -> OutPoint {
        OutPoint { txid: self.input.proof.txid(), vout: self.input.vout }
    }
}

/// The keys and where they are kept.
pub(super) struct Watch {
    local: Arc<dyn Database>,
    programs: RwLock<HashMap<Program, [u8; 32]>>,
}

/// What became of a registration.
pub(super) enum Registration {
    /// New: blocks of the recent past should be looked through once more.
    New,
    /// Known already.
    Known,
    /// No room.
    Full,
}

impl Watch {
    pub async fn load(local: Arc<dyn Database>) -> Result<Self, DbError> {
        let keys = KEYS.all(&reader(&local)).await?;
        let programs = keys.into_iter().map(|(key, program)| (program, key)).collect();
        Ok(Self { local, programs: RwLock::new(programs) })
    }

    fn reader(&self) -> NamespacedReader {
        reader(&self.local)
    }

    fn batch(&self) -> WriteBatch {
        WriteBatch::new(Arc::clone(&self.local))
    }

    /// Watches a key from now on.
    pub async fn register(&self, key: &XOnlyPublicKey, program: Program) -> Result<Registration, DbError> {
        let key = key.serialize();
        {
            let programs = self.programs.read().unwrap_or_else(PoisonError::into_inner);
            if programs.contains_key(&program) {
                return Ok(Registration::Known);
            }
            if programs.len() >= MAX_KEYS {
                return Ok(Registration::Full);
            }
        }
        let mut batch = self.batch();
        KEYS.put(&mut namespaced(&mut batch), &key, &program);
        batch.commit().await?;
        // Not before it is on the disk: whoever asks again is told that it is known.
        self.programs.write().unwrap_or_else(PoisonError::into_inner).insert(program, key);
        Ok(Registration::New)
    }

    /// What was seen for a key, oldest first.
    pub async fn found(&self, key: &XOnlyPublicKey) -> Result<Vec<Found>, DbError> {
        let found = FOUND.scan(&self.reader(), &key.serialize(), None, MAX_SHOWN).await?;
        let mut found: Vec<_> = found.into_iter().map(|(_, found)| found).collect();
        found.sort_by_key(|found| found.input.proof.height);
        Ok(found)
    }

    /// How many keys are watched.
    pub fn len(&self) -> usize {
        self.programs.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The height up to which blocks were looked through.
    pub async fn scanned(&self) -> Result<Option<u32>, DbError> {
        SCANNED.get(&self.reader(), &()).await
    }

    /// The deposits of a block to watched keys.
    fn matches(&self, descriptor: &Descriptor, block: &Block, height: u32) -> Vec<([u8; 32], Found)> {
        let programs = self.programs.read().unwrap_or_else(PoisonError::into_inner);
        let mut matches = Vec::new();
        if programs.is_empty() {
            return matches;
        }
        for (position, transaction) in block.txdata.iter().enumerate().skip(1) {
            for (vout, output) in (0u32..).zip(&transaction.output) {
                let program = descriptor.program(&output.script_pubkey);
                let Some(key) = program.and_then(|program| programs.get(&program)) else { continue };
                let Some(proof) = TxProof::new(block, height, position) else { continue };
                let amount_sat = output.value.to_sat();
                matches.push((*key, Found { amount_sat, input: DepositInput { proof, vout } }));
            }
        }
        matches
    }

    /// Looks through a block, and replaces what another block at this height had brought. `note`: also remember the height.
    pub async fn scan(
        &self,
        descriptor: &Descriptor,
        block: &Block,
        height: u32,
        note: bool,
    ) -> Result<(), DbError> {
        let matches = self.matches(descriptor, block, height);
        let mut batch = self.batch();
        let mut db = namespaced(&mut batch);
        forget(&mut db, height).await?;
        for (key, found) in &matches {
            let place = (*key, outpoint_key(&found.outpoint()));
            FOUND.put(&mut db, &place, found);
            FOUND_AT.put(&mut db, &(height, place), &());
        }
        if note {
            SCANNED.put(&mut db, &(), &height);
        }
        commit(batch).await
    }

    /// Forgets what a block that is gone had brought.
    pub async fn drop_block(&self, height: u32) -> Result<(), DbError> {
        let mut batch = self.batch();
        forget(&mut namespaced(&mut batch), height).await?;
        commit(batch).await
    }
}

fn namespaced(batch: &mut WriteBatch) -> Namespaced<'_> {
    Namespaced::new(batch, PREFIX.to_vec())
}

async fn commit(batch: WriteBatch) -> Result<(), DbError> {
    if batch.is_empty() { Ok(()) } else { batch.commit().await }
}

async fn forget(db: &mut Namespaced<'_>, height: u32) -> Result<(), DbError> {
    for ((_, place), ()) in FOUND_AT.all_under(db, &height).await? {
        FOUND.delete(db, &place);
        FOUND_AT.delete(db, &(height, place));
    }
    Ok(())
}

fn reader(local: &Arc<dyn Database>) -> NamespacedReader {
    NamespacedReader::new(Arc::clone(local) as _, PREFIX.to_vec())
}

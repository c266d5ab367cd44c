//! Deposit keys that users registered with this guardian, and what blocks brought for them.
//!
//! This is local: no other guardian knows it, and nothing here is believed by consensus; what it yields are proofs. It is
//! kept under a prefix of its own in the database handed in, and is indexed in memory by witness program (64 bytes a key).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

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
const SEEN: Table<(), u64> = Table::new(5, "keys that earlier blocks were looked through for");

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

/// A key that is watched.
struct Watched {
    key: [u8; 32],
    /// Whether it still is after a restart.
    durable: bool,
}

type Programs = RwLock<HashMap<Program, Watched>>;

/// The keys and where they are kept.
pub(super) struct Watch {
    local: Arc<dyn Database>,
    programs: Arc<Programs>,
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

fn write(programs: &Programs) -> RwLockWriteGuard<'_, HashMap<Program, Watched>> {
    programs.write().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    pub async fn load(local: Arc<dyn Database>) -> Result<Self, DbError> {
        let keys = KEYS.all(&reader(&local)).await?;
        let programs =
            keys.into_iter().map(|(key, program)| (program, Watched { key, durable: true })).collect();
        Ok(Self { local, programs: Arc::new(RwLock::new(programs)) })
    }

    fn reader(&self) -> NamespacedReader {
        reader(&self.local)
    }

    fn batch(&self) -> WriteBatch {
        WriteBatch::new(Arc::clone(&self.local))
    }

    /// Watches a key from now on, and after a restart. Whoever hangs up meanwhile has it registered all the same.
    pub async fn register(&self, key: &XOnlyPublicKey, program: Program) -> Result<Registration, DbError> {
        let key = key.serialize();
        {
            let mut programs = write(&self.programs);
            match programs.get(&program) {
                Some(Watched { durable: true, .. }) => return Ok(Registration::Known),
                Some(_) => {}
                None if programs.len() >= MAX_KEYS => return Ok(Registration::Full),
                None => drop(programs.insert(program, Watched { key, durable: false })),
            }
        }
        let mut batch = self.batch();
        KEYS.put(&mut namespaced(&mut batch), &key, &program);
        let programs = Arc::clone(&self.programs);
        let registered = tokio::spawn(async move {
            let written = batch.commit().await;
            let mut programs = write(&programs);
            match programs.get_mut(&program) {
                Some(watched) if written.is_ok() => watched.durable = true,
                Some(Watched { durable: false, .. }) => drop(programs.remove(&program)),
                _ => {}
            }
            written
        });
        let registered = registered.await;
        registered.map_err(|error| DbError::Engine(format!("a registration was cut off: {error}")))??;
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

    /// For how many keys earlier blocks were looked through.
    pub async fn seen(&self) -> Result<usize, DbError> {
        let seen = SEEN.get(&self.reader(), &()).await?.unwrap_or_default();
        Ok(usize::try_from(seen).unwrap_or(usize::MAX))
    }

    /// Earlier blocks were looked through for so many keys.
    pub async fn set_seen(&self, keys: usize) -> Result<(), DbError> {
        let mut batch = self.batch();
        SEEN.put(&mut namespaced(&mut batch), &(), &u64::try_from(keys).unwrap_or(u64::MAX));
        batch.commit().await
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
                let Some(watched) = program.and_then(|program| programs.get(&program)) else { continue };
                let Some(proof) = TxProof::new(block, height, position) else { continue };
                let amount_sat = output.value.to_sat();
                matches.push((watched.key, Found { amount_sat, input: DepositInput { proof, vout } }));
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

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};

    use super::*;

    fn key(number: u8) -> XOnlyPublicKey {
        let secret = SecretKey::from_slice(&[number; 32]).unwrap();
        Keypair::from_secret_key(SECP256K1, &secret).x_only_public_key().0
    }

    #[tokio::test]
    async fn who_hangs_up_has_the_key_registered_and_counted_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("watch.sqlite").display());
        let db = federation_store::open(&url).await.unwrap();
        let watch = Arc::new(Watch::load(Arc::clone(&db)).await.unwrap());
        for number in 1..20u8 {
            let watch = Arc::clone(&watch);
            let register =
                tokio::spawn(async move { watch.register(&key(number), [number; 32]).await.map(drop) });
            tokio::task::yield_now().await;
            register.abort();
            let _ = register.await;
        }
        let in_memory = watch.len();
        assert!(in_memory > 0, "none of them began");
        // Behind all others.
        assert!(matches!(watch.register(&key(20), [20; 32]).await.unwrap(), Registration::New));
        assert!(matches!(watch.register(&key(20), [20; 32]).await.unwrap(), Registration::Known));
        watch.set_seen(3).await.unwrap();
        drop(watch);
        let again = Watch::load(db).await.unwrap();
        assert_eq!((again.len(), again.seen().await.unwrap()), (in_memory + 1, 3));
    }
}

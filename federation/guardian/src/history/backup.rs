//! A guardian's secrets in a file of their own: with it and the passphrase a guardian whose disk is lost comes back.
//!
//! The file is made once, when the setup is done: nothing in it changes afterwards. It holds what the database holds of the
//! setup, encrypted as it is there, and the salt that the passphrase goes with. Everything else comes from the other
//! guardians. Layout: magic, borsh of version, [`KeySource`] and ciphertext, SHA-256 of all before.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use bitcoin::hashes::{Hash as _, sha256};
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::db::{Database, Reader};
use federation_core::encoding::{decode, encode};
use federation_store::WriteBatch;

use crate::error::GuardianError;
use crate::secrets::SealingKey;
use crate::setup::SetupPhase;
use crate::setup::stored::StoredSetup;
use crate::state::{self, RESTORE, Restore, SETUP};

const MAGIC: &[u8] = b"cln-federation guardian backup\n";
const VERSION: u16 = 1;
const MAX_SIZE: u64 = 32 << 20;

/// What opens a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum KeySource {
    /// A passphrase, with this salt.
    Passphrase {
        /// The salt.
        salt: [u8; 16],
    },
    /// A key that someone else keeps, such as lightningd.
    External,
}

/// A guardian's encrypted secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// What opens it.
    pub source: KeySource,
    sealed: Vec<u8>,
}

fn unusable(reason: impl Into<String>) -> GuardianError {
    GuardianError::Backup(reason.into())
}

impl Backup {
    /// Of a guardian whose setup is done.
    ///
    /// # Errors
    /// [`GuardianError::SetupState`] before that; [`GuardianError::WrongKey`] if `key` does not open what is stored: a backup
    /// that nobody can open is none.
    pub async fn make(
        db: Arc<dyn Reader>,
        key: &SealingKey,
        source: KeySource,
    ) -> Result<Self, GuardianError> {
        let not_yet = || {
            GuardianError::SetupState(
                "there is nothing to back up yet: the keys are made when all guardians have finished the setup"
                    .to_owned(),
            )
        };
        let sealed = SETUP.get(&state::local_reader(db), &()).await?.ok_or_else(not_yet)?;
        let setup: StoredSetup = key.open(&sealed)?;
        if setup.phase() != SetupPhase::Done {
            return Err(not_yet());
        }
        Ok(Self { source, sealed })
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = [MAGIC, &encode(&(VERSION, self.source, &self.sealed))].concat();
        let checksum = sha256::Hash::hash(&bytes);
        bytes.extend_from_slice(checksum.as_byte_array());
        bytes
    }

    /// Reads a file's bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, GuardianError> {
        let damaged = || unusable("the file is damaged: take another copy");
        if !bytes.starts_with(MAGIC) {
            return Err(unusable("the file is no backup of a guardian"));
        }
        let (content, checksum) = bytes.split_last_chunk::<32>().ok_or_else(damaged)?;
        if sha256::Hash::hash(content).as_byte_array() != checksum {
            return Err(damaged());
        }
        let body = content.strip_prefix(MAGIC).ok_or_else(damaged)?;
        let version =
            body.first_chunk::<2>().map(|version| u16::from_le_bytes(*version)).ok_or_else(damaged)?;
        if version != VERSION {
            return Err(unusable(format!(
                "the file has version {version}, this program knows {VERSION}: install the newer one"
            )));
        }
        let (_, source, sealed): (u16, KeySource, Vec<u8>) =
            decode(body, usize::MAX).map_err(|error| unusable(error.to_string()))?;
        Ok(Self { source, sealed })
    }

    /// Writes a new file that only its owner may read; an existing one is not touched.
    pub fn write(&self, path: &Path) -> Result<(), GuardianError> {
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(&self.to_bytes())?;
            file.sync_all()
        };
        write().map_err(GuardianError::io(path.display().to_string()))
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, GuardianError> {
        let read = || -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut io::Read::take(File::open(path)?, MAX_SIZE), &mut bytes)?;
            Ok(bytes)
        };
        Self::from_bytes(&read().map_err(GuardianError::io(path.display().to_string()))?)
    }

    /// The salt of the passphrase.
    pub fn salt(&self) -> Result<[u8; 16], GuardianError> {
        match self.source {
            KeySource::Passphrase { salt } => Ok(salt),
            KeySource::External => Err(unusable(
                "its key is not made of a passphrase: restore it with the plugin of the same lightningd",
            )),
        }
    }

    /// Whether this key opens it and its guardian can come back.
    pub fn open(&self, key: &SealingKey) -> Result<StoredSetup, GuardianError> {
        let setup: StoredSetup = key.open(&self.sealed)?;
        if setup.result.as_ref().is_some_and(|result| result.config.guardians.len() < 2) {
            return Err(unusable(
                "a federation of one guardian has nobody to get its state from: put a copy of its whole data folder back",
            ));
        }
        Ok(setup)
    }

    /// Puts the secrets into an empty database. The guardian's next start gets the state from the others.
    pub async fn restore(&self, db: &Arc<dyn Database>, key: &SealingKey) -> Result<(), GuardianError> {
        self.open(key)?;
        if !db.scan(&[], None, 1).await?.is_empty() {
            return Err(unusable("the database is not empty: a guardian is restored into a new one"));
        }
        let mut batch = WriteBatch::new(Arc::clone(db));
        let mut local = state::local(&mut batch);
        SETUP.put(&mut local, &(), &self.sealed);
        RESTORE.put(&mut local, &(), &Restore::Wanted);
        Ok(batch.commit().await?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use zeroize::Zeroizing;

    use super::*;

    #[tokio::test]
    async fn secrets_come_back_with_file_and_key() {
        let key = SealingKey::new(Zeroizing::new([1; 32]));
        let source = KeySource::Passphrase { salt: [7; 16] };
        let db = federation_store::memory();
        let early = Backup::make(Arc::clone(&db) as _, &key, source).await.unwrap_err();
        assert!(early.to_string().contains("nothing to back up yet"), "{early}");
        let alone = crate::setup::tests::with_result().await;
        let mut setup = crate::setup::tests::with_result_of(2).await;
        setup.started = true;
        if let Some(result) = &mut setup.result {
            result.confirmed = false;
        }
        setup.save(&db, &key).await.unwrap();
        assert!(matches!(
            Backup::make(Arc::clone(&db) as _, &key, source).await,
            Err(GuardianError::SetupState(_))
        ));
        if let Some(result) = &mut setup.result {
            result.confirmed = true;
        }
        setup.save(&db, &key).await.unwrap();
        let backup = Backup::make(Arc::clone(&db) as _, &key, source).await.unwrap();

        let folder = std::env::temp_dir().join(format!("guardian-backup-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("backup");
        backup.write(&path).unwrap();
        assert!(backup.write(&path).is_err(), "an existing file is kept");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Backup::read(&path).unwrap();
        assert_eq!(read, backup);
        assert_eq!(read.salt().unwrap(), [7; 16]);

        let other = SealingKey::new(Zeroizing::new([2; 32]));
        let fresh = federation_store::memory();
        assert!(matches!(read.restore(&fresh, &other).await, Err(GuardianError::WrongKey)));
        read.restore(&fresh, &key).await.unwrap();
        let loaded = StoredSetup::load(&fresh, &key).await.unwrap().unwrap();
        assert_eq!(loaded.secrets.identity, setup.secrets.identity);
        assert!(read.restore(&fresh, &key).await.unwrap_err().to_string().contains("not empty"));

        let alone = Backup { source, sealed: key.seal(&alone).unwrap() };
        let error = alone.restore(&federation_store::memory(), &key).await.unwrap_err();
        assert!(error.to_string().contains("one guardian"), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn damage_and_other_versions_are_told_apart() {
        let backup = Backup { source: KeySource::External, sealed: vec![5; 100] };
        let bytes = backup.to_bytes();
        assert_eq!(Backup::from_bytes(&bytes).unwrap(), backup);
        assert!(backup.salt().is_err());
        for place in MAGIC.len()..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            assert!(Backup::from_bytes(&damaged).unwrap_err().to_string().contains("damaged"));
        }
        for length in 0..bytes.len() {
            assert!(Backup::from_bytes(&bytes[..length]).is_err());
        }
        let mut newer = [MAGIC, &[2, 0]].concat();
        let checksum = sha256::Hash::hash(&newer);
        newer.extend_from_slice(checksum.as_byte_array());
        assert!(Backup::from_bytes(&newer).unwrap_err().to_string().contains("version 2"));
    }
}

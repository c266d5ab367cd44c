//! The wallet's folder: the twelve words in a file of their own, and the database.
//!
//! `words` is written before anything is derived from it, and readable by its owner only; `wallet.db` has everything else.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use federation_core::db::Database;
use federation_core::invite::InviteCode;
use zeroize::Zeroizing;

use crate::client::Client;
use crate::restore::{Progress, Restored};
use crate::words::Words;
use crate::{ClientError, Result};

/// A folder with a wallet in it, or to be.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder at this path; nothing is touched yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The words of the wallet.
    ///
    /// # Errors
    /// [`ClientError::NotJoined`] if there are none yet; [`ClientError::Words`], [`ClientError::Files`].
    pub fn words(&self) -> Result<Words> {
        match fs::read_to_string(self.words_path()) {
            Ok(text) => Words::parse(&Zeroizing::new(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(ClientError::NotJoined),
            Err(error) => Err(files(&self.words_path(), &error)),
        }
    }

    /// The words of the wallet; fresh ones are written if there are none.
    ///
    /// # Errors
    /// As [`words`](Self::words).
    pub fn words_or_create(&self) -> Result<Words> {
        match self.words() {
            Err(ClientError::NotJoined) => {
                let words = Words::generate()?;
                self.write_words(&words)?;
                Ok(words)
            }
            other => other,
        }
    }

    /// Writes words into a folder that has none.
    ///
    /// # Errors
    /// [`ClientError::Files`], also if there are words already.
    pub fn write_words(&self, words: &Words) -> Result<()> {
        let path = self.words_path();
        let explain = |error: std::io::Error| files(&path, &error);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0).map_err(explain)?;
        // Under another name first, so that a crash leaves either no words or all twelve.
        let draft = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .map_err(explain)?;
        writeln!(file, "{}", words.as_str()).map_err(explain)?;
        file.sync_all().map_err(explain)?;
        // A link, unlike a rename, never replaces words that are there.
        fs::hard_link(&draft, &path).map_err(explain)?;
        fs::remove_file(&draft).map_err(explain)?;
        fs::File::open(&self.0).and_then(|folder| folder.sync_all()).map_err(explain)
    }

    /// Opens the database.
    ///
    /// # Errors
    /// [`ClientError::Db`]: another process has it open, or it cannot be read.
    pub async fn database(&self) -> Result<Arc<dyn Database>> {
        let path = self.0.join("wallet.db");
        Ok(federation_store::open(&format!("sqlite:{}", path.display())).await?)
    }

    /// Joins, with fresh words if there are none.
    ///
    /// # Errors
    /// See [`Client::join`].
    pub async fn join(&self, invite: &InviteCode) -> Result<Client> {
        let words = self.words_or_create()?;
        Client::join(self.database().await?, &words, invite).await
    }

    /// Makes a wallet again from its words, in a folder without one; again after a crash, where it was.
    ///
    /// # Errors
    /// See [`Client::restore`]; [`ClientError::WalletExists`] also if the folder has other words.
    pub async fn restore(
        &self,
        invite: &InviteCode,
        words: &Words,
        progress: impl FnMut(Progress) + Send,
    ) -> Result<(Client, Restored)> {
        match self.words() {
            Ok(known) if known.as_str() == words.as_str() => {}
            Ok(_) => return Err(ClientError::WalletExists),
            Err(ClientError::NotJoined) if self.0.join("wallet.db").exists() => {
                return Err(ClientError::WalletExists);
            }
            Err(ClientError::NotJoined) => self.write_words(words)?,
            Err(error) => return Err(error),
        }
        Client::restore(self.database().await?, words, invite, progress).await
    }

    /// Opens the wallet.
    ///
    /// # Errors
    /// See [`Client::open`].
    pub async fn open(&self) -> Result<Client> {
        let words = self.words()?;
        Client::open(self.database().await?, &words).await
    }

    fn words_path(&self) -> PathBuf {
        self.0.join("words")
    }
}

fn files(path: &Path, error: &std::io::Error) -> ClientError {
    ClientError::Files { path: path.display().to_string(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn words_are_written_once_and_kept_private() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::new(temp.path().join("wallet"));
        assert!(matches!(folder.words(), Err(ClientError::NotJoined)));
        let words = folder.words_or_create().unwrap();
        assert_eq!(folder.words_or_create().unwrap().as_str(), words.as_str());
        assert!(folder.write_words(&Words::generate().unwrap()).is_err());
        assert_eq!(folder.words().unwrap().as_str(), words.as_str());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.words_path()), 0o600);
        assert_eq!(mode(&folder.0), 0o700);
    }
}

//! A typed table in the ledger: JSON rows, one a payment hash.

use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::LdkError;
use super::ledger::Ledger;
use super::log::Batch;

/// Rows below one prefix of the ledger's keys.
pub(super) struct Table<Row> {
    ledger: Arc<Ledger>,
    name: &'static str,
    row: PhantomData<fn() -> Row>,
}

impl<Row: Serialize + DeserializeOwned> Table<Row> {
    pub fn new(ledger: Arc<Ledger>, name: &'static str) -> Self {
        Table { ledger, name, row: PhantomData }
    }

    /// The row of a payment hash.
    pub fn get(&self, hash: &[u8; 32]) -> Result<Option<Row>, LdkError> {
        self.ledger.get(&self.key(hash)).map(|bytes| self.decode(&bytes)).transpose()
    }

    /// All rows.
    pub fn all(&self) -> Result<Vec<([u8; 32], Row)>, LdkError> {
        let rows = self.ledger.scan(&format!("{}/", self.name));
        rows.into_iter()
            .map(|(key, bytes)| {
                let mut hash = [0; 32];
                hex::decode_to_slice(&key, &mut hash).map_err(|e| self.bad(e))?;
                Ok((hash, self.decode(&bytes)?))
            })
            .collect()
    }

    /// Writes a row, together with LDK's state as it is now. Durable when it returns.
    pub fn put(&self, hash: &[u8; 32], row: &Row) -> Result<(), LdkError> {
        let bytes = serde_json::to_vec(row).map_err(|e| self.bad(e))?;
        self.ledger.commit(Batch::from([(self.key(hash), Some(bytes))]))
    }

    /// Forgets rows.
    pub fn remove(&self, hashes: &[[u8; 32]]) -> Result<(), LdkError> {
        self.ledger.commit(hashes.iter().map(|hash| (self.key(hash), None)).collect())
    }

    fn key(&self, hash: &[u8; 32]) -> String {
        format!("{}/{}", self.name, hex::encode(hash))
    }

    fn decode(&self, bytes: &[u8]) -> Result<Row, LdkError> {
        serde_json::from_slice(bytes).map_err(|e| self.bad(e))
    }

    fn bad(&self, reason: impl std::fmt::Display) -> LdkError {
        LdkError::Stored { what: self.name, reason: reason.to_string() }
    }
}

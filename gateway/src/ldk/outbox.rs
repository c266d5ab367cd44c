//! The wallet's own transactions, sent again until they are in a block.
//!
//! Not LDK's claims and sweeps: those it repeats by itself. A funding transaction is put here
//! only when LDK says that it is safe to broadcast: before that it could cost the coins.

use std::sync::Arc;

use bitcoin::{Transaction, Txid, consensus};

use super::chain::Bitcoind;
use super::error::LdkError;
use super::ledger::Ledger;
use super::log::Batch;
use super::wallet::Onchain;

const PREFIX: &str = "outbox/";

/// The transactions and what they go through.
pub(super) struct Outbox {
    ledger: Arc<Ledger>,
    wallet: Arc<Onchain>,
    bitcoind: Arc<Bitcoind>,
}

impl Outbox {
    pub fn new(ledger: Arc<Ledger>, wallet: Arc<Onchain>, bitcoind: Arc<Bitcoind>) -> Self {
        Outbox { ledger, wallet, bitcoind }
    }

    /// Keeps a transaction for sending.
    pub fn put(&self, tx: &Transaction) -> Result<(), LdkError> {
        let bytes = consensus::encode::serialize(tx);
        self.ledger.commit(Batch::from([(key(tx.compute_txid()), Some(bytes))]))
    }

    /// Drops a transaction and frees its coins.
    pub fn drop(&self, txid: Txid) -> Result<(), LdkError> {
        self.ledger.commit(Batch::from([(key(txid), None)]))?;
        self.wallet.forget(txid)
    }

    /// Sends what is not in a block yet, and forgets the rest.
    pub async fn send_all(&self) -> Result<(), LdkError> {
        for (key, bytes) in self.ledger.scan(PREFIX) {
            let tx: Transaction = consensus::encode::deserialize(&bytes)
                .map_err(|e| LdkError::Stored { what: "outbox", reason: e.to_string() })?;
            if self.wallet.is_unconfirmed(tx.compute_txid()) {
                if let Some(reason) = self.bitcoind.send_transaction(&tx).await? {
                    tracing::warn!(txid = %tx.compute_txid(), reason, "not broadcast");
                }
            } else {
                self.ledger.commit(Batch::from([(format!("{PREFIX}{key}"), None)]))?;
            }
        }
        Ok(())
    }
}

fn key(txid: Txid) -> String {
    format!("{PREFIX}{txid}")
}

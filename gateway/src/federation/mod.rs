//! A federation as swaps see it: a few questions and three transactions, each under a name of its own so that a repeated
//! call makes nothing new.

mod wallet;

use std::time::Duration;

use async_trait::async_trait;
use bitcoin::Network;
use bitcoin::secp256k1::Keypair;
use federation_client::ClientError;
use federation_core::{Amount, FederationId, TxId};
use federation_lightning::{
    Announcement, ContractId, ContractState, IncomingContract, LightningFees, Preimage,
};
use serde::Deserialize;

pub(crate) use wallet::WalletFederation;

/// What f + 1 guardians must say alike of a contract. Its id covers the rest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ContractView {
    /// Which one they speak of.
    pub id: ContractId,
    /// Where it stands.
    pub state: ContractState,
    /// Known when it was claimed, or when an incoming one was decrypted rightly.
    pub preimage: Option<Preimage>,
}

/// What swaps need of a federation and of the gateway's wallet in it.
///
/// Transactions follow [`federation_client::Client::transact`]: `operation` is the idempotency key;
/// [`ClientError::Rejected`] is final for it, [`ClientError::InsufficientFunds`] and [`ClientError::TooManyNotes`] mean that
/// nothing was written, and after any other error it may still happen: it is repeated under the same key.
#[async_trait]
pub(crate) trait Federation: Send + Sync + 'static {
    /// Its id.
    fn id(&self) -> FederationId;
    /// Its name.
    fn name(&self) -> String;
    /// The chain that its invoices are of.
    fn network(&self) -> Network;
    /// What it charges for contracts.
    fn fees(&self) -> LightningFees;
    /// What the gateway's wallet can spend in it.
    async fn balance(&self) -> Result<Amount, ClientError>;
    /// The block height that guardians agree on.
    async fn height(&self) -> Result<u32, ClientError>;
    /// What f + 1 guardians say of a contract; `None`: it is not funded. Waits for it to be funded, and to leave a state if
    /// one is given.
    async fn contract(
        &self,
        contract: ContractId,
        wait: Duration,
        leaves: Option<ContractState>,
    ) -> Result<Option<ContractView>, ClientError>;
    /// Takes an outgoing contract: returns when it is accepted.
    async fn claim_outgoing(
        &self,
        operation: [u8; 32],
        contract: ContractId,
        amount: Amount,
        key: &Keypair,
        preimage: Preimage,
    ) -> Result<TxId, ClientError>;
    /// Funds an incoming contract from the wallet: returns when it is accepted.
    async fn fund_incoming(
        &self,
        operation: [u8; 32],
        contract: &IncomingContract,
    ) -> Result<TxId, ClientError>;
    /// Takes an incoming contract with a wrong preimage back: returns when it is accepted.
    async fn reclaim_incoming(
        &self,
        operation: [u8; 32],
        contract: ContractId,
        amount: Amount,
        key: &Keypair,
    ) -> Result<TxId, ClientError>;
    /// Whether a transaction was ever begun under this key: if not, nothing can come of it any more.
    async fn has_begun(&self, operation: [u8; 32]) -> Result<bool, ClientError>;
    /// Tells guardians about this gateway.
    async fn announce(&self, announcement: &Announcement) -> Result<(), ClientError>;
}

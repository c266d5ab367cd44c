//! [`Federation`] on the client library.

use std::time::Duration;

use async_trait::async_trait;
use bitcoin::Network;
use bitcoin::secp256k1::Keypair;
use federation_client::{Client, ClientError};
use federation_core::module::Value;
use federation_core::{Amount, FederationId, ModuleId, TxId};
use federation_lightning::client::{claim_outgoing, fund, reclaim_incoming};
use federation_lightning::{
    Announcement, Contract, ContractId, ContractState, IncomingContract, KIND, LightningFees, Preimage,
};

use super::{ContractView, Federation};

/// The gateway's wallet in one federation.
pub(crate) struct WalletFederation {
    client: Client,
    module: ModuleId,
    fees: LightningFees,
}

impl WalletFederation {
    /// On an open wallet.
    pub fn new(client: Client) -> Self {
        let (module, config) = client.lightning();
        let fees = config.fees;
        Self { client, module, fees }
    }

    /// The wallet itself.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

#[async_trait]
impl Federation for WalletFederation {
    fn id(&self) -> FederationId {
        self.client.federation_id()
    }

    fn name(&self) -> String {
        self.client.config().name.clone()
    }

    fn network(&self) -> Network {
        self.client.config().network
    }

    fn fees(&self) -> LightningFees {
        self.fees
    }

    async fn balance(&self) -> Result<Amount, ClientError> {
        self.client.balance().await
    }

    async fn height(&self) -> Result<u32, ClientError> {
        self.client.height().await
    }

    async fn contract(
        &self,
        contract: ContractId,
        wait: Duration,
        leaves: Option<ContractState>,
    ) -> Result<Option<ContractView>, ClientError> {
        let mut query = vec![("id", contract.to_string()), ("wait", wait.as_secs().to_string())];
        query.extend(leaves.map(|state| ("not", state.to_string())));
        match self.client.module_get::<ContractView>(KIND, "contract", &query, wait).await {
            Ok(view) if view.id == contract => Ok(Some(view)),
            Ok(_) => Err(ClientError::BadAnswer {
                from: "the guardians".to_owned(),
                reason: "they told about another contract".to_owned(),
            }),
            Err(ClientError::Refused { code, .. }) if code == "unknown_contract" => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn claim_outgoing(
        &self,
        operation: [u8; 32],
        contract: ContractId,
        amount: Amount,
        key: &Keypair,
        preimage: Preimage,
    ) -> Result<TxId, ClientError> {
        let input = claim_outgoing(self.module, contract, key.x_only_public_key().0, preimage);
        let value = Value { amount, fee: self.fees.spend };
        self.client.transact(operation, vec![(input, *key, value)], Vec::new()).await
    }

    async fn fund_incoming(
        &self,
        operation: [u8; 32],
        contract: &IncomingContract,
    ) -> Result<TxId, ClientError> {
        let value = Value { amount: contract.terms.amount, fee: self.fees.fund };
        let output = fund(self.module, Contract::Incoming(contract.clone()));
        self.client.transact(operation, Vec::new(), vec![(output, value)]).await
    }

    async fn reclaim_incoming(
        &self,
        operation: [u8; 32],
        contract: ContractId,
        amount: Amount,
        key: &Keypair,
    ) -> Result<TxId, ClientError> {
        let input = reclaim_incoming(self.module, contract, key.x_only_public_key().0);
        let value = Value { amount, fee: self.fees.spend };
        self.client.transact(operation, vec![(input, *key, value)], Vec::new()).await
    }

    async fn has_begun(&self, operation: [u8; 32]) -> Result<bool, ClientError> {
        Ok(self.client.transaction(operation).await?.is_some())
    }

    async fn announce(&self, announcement: &Announcement) -> Result<(), ClientError> {
        let body =
            serde_json::to_value(announcement).map_err(|error| ClientError::Internal(error.to_string()))?;
        self.client.module_post_all(KIND, "gateways", &body).await
    }
}

//! The gateway's own e-cash: what it pays users with. It comes in by a deposit or as an e-cash string, and goes out the same
//! ways.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use federation_client::ClientError;
use federation_client::ops::withdraw::Wish;
use federation_core::{Amount, FederationId};
use serde::Serialize;

use crate::error::GatewayError;
use crate::federation::Federation as _;
use crate::gateway::Gateway;

/// What operations are marked with in the wallet's history.
const MEMO: &str = "gateway";

/// Where to pay a deposit to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deposit {
    /// The address.
    pub address: String,
    /// The smallest deposit that is credited.
    pub minimum_sat: u64,
    /// Confirmations that it needs.
    pub confirmations: u32,
}

/// A withdrawal that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Withdrawal {
    /// The Bitcoin transaction.
    pub txid: String,
    /// What arrives.
    #[serde(rename = "amount_msat")]
    pub amount: Amount,
    /// The on-chain fee.
    #[serde(rename = "fee_msat")]
    pub fee: Amount,
}

impl Gateway {
    /// A fresh deposit address in a federation. What is paid to it is claimed by itself.
    ///
    /// # Errors
    /// A federation that is not served, or too few of whose guardians answer.
    pub async fn deposit(&self, federation: FederationId) -> Result<Deposit, GatewayError> {
        let address = self.wallet(&federation)?.client().deposit_address().await?;
        // So that it is looked for at once.
        self.deposits.send_modify(|count| *count = count.wrapping_add(1));
        let (minimum_sat, confirmations) = (address.minimum_sat, address.confirmations);
        Ok(Deposit { address: address.address, minimum_sat, confirmations })
    }

    /// Withdraws to an address, such as one of the node's own ([`LightningNode`](crate::node::LightningNode)'s
    /// `onchain_address`). `amount_sat`: what arrives; `None`: all there is.
    ///
    /// # Errors
    /// An address that is none, too little e-cash, an on-chain fee over `max_fee_sat`.
    pub async fn withdraw(
        &self,
        federation: FederationId,
        address: &str,
        amount_sat: Option<u64>,
        max_fee_sat: Option<u64>,
    ) -> Result<Withdrawal, GatewayError> {
        let wallet = self.wallet(&federation)?;
        let wish = amount_sat.map_or(Wish::All, Wish::Sat);
        let limit =
            max_fee_sat.map(|sat| Amount::from_sat(sat).ok_or(ClientError::AmountTooLarge)).transpose()?;
        let done = wallet.client().withdraw(address, wish, limit, MEMO).await?;
        Ok(Withdrawal { txid: done.txid, amount: done.amount, fee: done.fee })
    }

    /// Takes in an e-cash string of any federation that is served; the amount that came in.
    ///
    /// # Errors
    /// A string that is none, of another federation, or spent.
    pub async fn receive_ecash(&self, ecash: &str) -> Result<Amount, GatewayError> {
        let mut last = GatewayError::refused("no_federation", "this gateway serves no federation yet");
        for federation in self.swaps.federations() {
            match self.wallet(&federation.id())?.client().receive(ecash, MEMO).await {
                Ok(received) => return Ok(received.amount),
                Err(error @ ClientError::ForeignEcash(_)) => last = error.into(),
                Err(error) => return Err(error.into()),
            }
        }
        Err(last)
    }

    /// An e-cash string worth exactly an amount.
    ///
    /// # Errors
    /// Too little e-cash, a federation that does not answer.
    pub async fn send_ecash(&self, federation: FederationId, amount: Amount) -> Result<String, GatewayError> {
        Ok(self.wallet(&federation)?.client().send(amount, MEMO).await?.ecash)
    }

    /// Claims deposits; runs as long as the federation is served.
    pub(crate) async fn watch_deposits(self: Arc<Self>, federation: FederationId) {
        let mut deposits = self.deposits.subscribe();
        loop {
            let Ok(wallet) = self.wallet(&federation) else { return };
            let pause = match wallet.network() {
                Network::Regtest => Duration::from_secs(1),
                _ => Duration::from_secs(60),
            };
            if let Err(error) = wallet.client().check_deposits().await {
                tracing::info!(%federation, %error, "deposits are looked for again later");
            }
            drop(wallet);
            if let Ok(Err(_)) = tokio::time::timeout(pause, deposits.changed()).await {
                return;
            }
        }
    }
}

//! A holder of notes over REST, without a wallet's database: what it holds is in memory.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use federation_client::Client;
use federation_core::encoding::decode;
use federation_core::rest::{OutputStatus, TransactionResponse, TransactionStatus};
use federation_core::{FederationId, ModuleId, PeerId, Transaction, TxId};
use federation_mint::client::{
    Deriver, Note, NoteRequest, SharesAnswer, finish_all, finish_early, spend_input,
};
use federation_mint::{Denomination, MintConfig, PointBytes};
use federation_tbs::BlindedSignature;

/// What it takes to reissue notes.
pub struct Holder {
    federation: FederationId,
    module: ModuleId,
    config: MintConfig,
    deriver: Deriver,
    http: reqwest::Client,
}

impl Holder {
    /// In the federation that a wallet has joined.
    pub fn new(client: &Client) -> Self {
        let (module, config) = client.mint();
        Self {
            federation: client.federation_id(),
            module,
            config: config.clone(),
            deriver: Deriver::new(&[7; 64], client.federation_id()),
            http: reqwest::Client::new(),
        }
    }

    /// The mint's module.
    pub fn module(&self) -> ModuleId {
        self.module
    }

    /// Asks for notes of this worth: the numbers from `first` on must not have been used before.
    pub fn requests(&self, first: u64, worths: &[Denomination]) -> Vec<NoteRequest> {
        (first..).zip(worths).map(|(index, worth)| NoteRequest::new(&self.deriver, index, *worth)).collect()
    }

    /// Spends these notes for those.
    pub fn transaction(&self, notes: &[Note], requests: &[NoteRequest]) -> Transaction {
        let (inputs, keys): (Vec<_>, Vec<_>) =
            notes.iter().map(|note| spend_input(note, self.module)).unzip();
        let outputs = requests.iter().map(|request| request.output(self.module)).collect();
        Transaction::sign(self.federation, inputs, outputs, &keys)
    }

    /// The name of a transaction.
    pub fn txid(&self, transaction: &Transaction) -> TxId {
        transaction.txid(self.federation)
    }

    /// Hands it in at the guardian with this URL.
    pub async fn submit(&self, url: &str, transaction: &Transaction) -> Result<()> {
        let request = self.http.post(format!("{url}/v1/transactions")).json(transaction);
        let response = request.send().await?;
        ensure!(response.status().is_success(), "not taken: {}", response.text().await?);
        Ok(())
    }

    /// Waits until it is accepted.
    pub async fn accepted(&self, url: &str, txid: TxId) -> Result<TransactionResponse> {
        self.decided(url, txid, "decided").await
    }

    /// Waits until it is accepted and all its outputs have their outcomes: these, encoded.
    pub async fn ready(&self, url: &str, txid: TxId) -> Result<Vec<Vec<u8>>> {
        let outputs = self.decided(url, txid, "ready").await?.outputs.into_iter();
        let bytes = |output| match output {
            OutputStatus::Ready { bytes, .. } => Ok(bytes),
            OutputStatus::Pending => bail!("an output of {txid} is not ready within a minute"),
        };
        outputs.map(bytes).collect()
    }

    async fn decided(&self, url: &str, txid: TxId, until: &str) -> Result<TransactionResponse> {
        let url = format!("{url}/v1/transactions/{txid}?wait=60&until={until}");
        let response: TransactionResponse = self.http.get(url).send().await?.json().await?;
        ensure!(matches!(response.status, TransactionStatus::Accepted { .. }), "{:?}", response.status);
        Ok(response)
    }

    /// The shares that this guardian has of a transaction's outputs, as soon as it is accepted.
    pub async fn shares(&self, url: &str, txid: TxId) -> Result<SharesAnswer> {
        let url = format!("{url}/v1/modules/mint/shares?txid={txid}&wait=60");
        Ok(self.http.get(url).send().await?.error_for_status()?.json().await?)
    }

    /// How many guardians' shares make a signature.
    pub fn threshold(&self) -> usize {
        usize::from(self.config.threshold)
    }

    /// Makes notes of shares, one set a request. Checks them all in one batch, on the calling thread.
    pub fn finish_early(
        &self,
        requests: &[NoteRequest],
        shares: &[BTreeMap<PeerId, PointBytes>],
    ) -> Result<Vec<Note>> {
        ensure!(shares.len() == requests.len(), "shares of {} notes", shares.len());
        let asked: Vec<_> = requests.iter().zip(shares).collect();
        Ok(finish_early(&asked, &self.config)
            .into_iter()
            .map(|early| early.note)
            .collect::<std::result::Result<_, _>>()?)
    }

    /// Makes notes of the first outcomes. Checks them all in one batch, on the calling thread.
    pub fn finish(&self, requests: &[NoteRequest], outcomes: &[Vec<u8>]) -> Result<Vec<Note>> {
        ensure!(outcomes.len() >= requests.len(), "{} outcomes", outcomes.len());
        let signatures: Vec<BlindedSignature> = outcomes
            .iter()
            .take(requests.len())
            .map(|bytes| decode(bytes, 1024))
            .collect::<std::result::Result<_, _>>()?;
        let pairs: Vec<_> = requests.iter().zip(&signatures).collect();
        Ok(finish_all(&pairs, &self.config).into_iter().collect::<std::result::Result<_, _>>()?)
    }
}

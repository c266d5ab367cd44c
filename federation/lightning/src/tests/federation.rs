//! Four guardians' modules over stores in memory, in lockstep; consensus is a loop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::Network;
use bitcoin::secp256k1::{Keypair, PublicKey, SECP256K1, SecretKey};
use federation_core::api::{ApiError, ApiRequest, Method};
use federation_core::db::{Database, Namespaced, NamespacedReader, Reader};
use federation_core::encoding::{decode, encode};
use federation_core::module::{DynModule, Epoch, ModuleError, erased};
use federation_core::{Amount, FederationId, Input, ModuleId, OutPoint, Output, PeerId, TxId};
use federation_store::WriteBatch;
use federation_tbs::dkg;
use lightning_invoice::{Bolt11Invoice, Currency, InvoiceBuilder, PaymentSecret};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::client::LightningKeys;
use crate::server::{LightningModule, LightningParams};
use crate::{
    ContractId, ContractReport, ContractState, GatewayFees, GatewayInfo, LightningConfig, LightningFees,
    LightningItem, LightningOutcome, LightningSecret, Preimage,
};

pub const MODULE: ModuleId = ModuleId(2);
pub const ID: FederationId = FederationId([7; 32]);
pub const START: u32 = 100;
const PREFIX: &[u8] = b"m2";

/// A transaction's parts; that it is signed and balanced is core's and the guardian's matter.
#[derive(Default)]
pub struct Tx {
    pub inputs: Vec<Input>,
    pub outputs: Vec<Output>,
}

pub fn spend(input: Input) -> Tx {
    Tx { inputs: vec![input], outputs: vec![] }
}

pub fn fund(output: Output) -> Tx {
    Tx { inputs: vec![], outputs: vec![output] }
}

struct Guardian {
    module: Arc<dyn DynModule>,
    db: Arc<dyn Database>,
    height: watch::Sender<u32>,
}

pub struct Federation {
    guardians: Vec<Guardian>,
    pub config: LightningConfig,
    pub secrets: Vec<LightningSecret>,
    /// These propose nothing.
    pub down: BTreeSet<usize>,
    epoch: u64,
    /// What went into contracts less what came out, in msat.
    pub inside: u64,
    /// The errors of the last epoch's items.
    pub faults: Vec<(u16, &'static str)>,
}

/// The code of a refusal.
pub fn code(error: ModuleError) -> &'static str {
    match error {
        ModuleError::Refused { code, .. } => code,
        ModuleError::Db(error) => panic!("{error}"),
    }
}

impl Federation {
    pub async fn new(n: usize) -> Self {
        let keys = dkg::testing::run(n, 1, &mut StdRng::seed_from_u64(1)).unwrap();
        let mut guardians = Vec::new();
        let mut secrets = Vec::new();
        let mut shared = None;
        for (index, mut output) in keys.into_iter().enumerate() {
            let (config, secret) =
                LightningConfig::generate(output.keys.remove(0), Network::Regtest, LightningFees::default());
            secrets.push(secret.clone());
            shared = Some(config.clone());
            let height = watch::Sender::new(START);
            let module = LightningModule::new(LightningParams {
                federation: ID,
                peer: PeerId(index as u16),
                config,
                secret,
                height: height.subscribe(),
                local: federation_store::memory(),
                local_prefix: b"local".to_vec(),
                wake: Arc::new(|| {}),
            });
            guardians.push(Guardian {
                module: erased(Arc::new(module)),
                db: federation_store::memory(),
                height,
            });
        }
        let mut federation = Self {
            guardians,
            config: shared.unwrap(),
            secrets,
            down: BTreeSet::new(),
            epoch: 0,
            inside: 0,
            faults: vec![],
        };
        federation.epoch(vec![]).await;
        assert_eq!(federation.height().await, START);
        federation
    }

    fn reader(&self, guardian: usize) -> NamespacedReader {
        let db: Arc<dyn Reader> = Arc::clone(&self.guardians[guardian].db) as _;
        NamespacedReader::new(db, PREFIX.to_vec())
    }

    pub fn see_block(&self, guardian: usize, height: u32) {
        self.guardians[guardian].height.send_replace(height);
    }

    /// All guardians see this height, and agree on it.
    pub async fn mine_to(&mut self, height: u32) {
        (0..self.guardians.len()).for_each(|guardian| self.see_block(guardian, height));
        self.epoch(vec![]).await;
        assert_eq!(self.height().await, height);
    }

    /// What the guardians that are up would propose.
    pub async fn proposals(&self) -> Vec<(PeerId, Vec<u8>)> {
        let mut items = vec![];
        for index in (0..self.guardians.len()).filter(|index| !self.down.contains(index)) {
            let proposal = self.guardians[index].module.propose(&self.reader(index)).await.unwrap();
            assert_eq!(proposal.opens_epoch, !proposal.items.is_empty());
            items.extend(proposal.items.into_iter().map(|item| (PeerId(index as u16), item)));
        }
        items
    }

    /// An epoch of what guardians propose and these transactions; what became of each.
    pub async fn epoch(&mut self, txs: Vec<Tx>) -> Vec<Result<OutPoint, &'static str>> {
        let items = self.proposals().await;
        self.epoch_with(items, txs).await
    }

    pub async fn say(&mut self, from: u16, item: LightningItem) {
        self.epoch_with(vec![(PeerId(from), encode(&item))], vec![]).await;
    }

    pub async fn epoch_with(
        &mut self,
        items: Vec<(PeerId, Vec<u8>)>,
        txs: Vec<Tx>,
    ) -> Vec<Result<OutPoint, &'static str>> {
        let epoch = Epoch { number: self.epoch, version: 1 };
        self.epoch += 1;
        let mut seen = None;
        let mut results = vec![];
        let mut inside = self.inside;
        for guardian in &self.guardians {
            (results, inside) = (vec![], self.inside);
            self.faults.clear();
            let mut batch = WriteBatch::new(Arc::clone(&guardian.db));
            for (from, item) in &items {
                let mut db = Namespaced::new(&mut batch, PREFIX.to_vec());
                if let Err(error) = guardian.module.apply_item(&mut db, epoch, *from, item).await {
                    self.faults.push((from.0, code(error)));
                }
            }
            for (number, tx) in txs.iter().enumerate() {
                let mut txid = [number as u8; 32];
                txid[..8].copy_from_slice(&epoch.number.to_be_bytes());
                batch.savepoint();
                let result = apply(guardian, &mut batch, epoch, TxId(txid), tx).await;
                match &result {
                    Ok((_, taken, given)) => {
                        batch.release();
                        inside = (inside + given).checked_sub(*taken).unwrap();
                    }
                    Err(_) => batch.rollback(),
                }
                results.push(result.map(|(point, ..)| point));
            }
            guardian
                .module
                .end_epoch(&mut Namespaced::new(&mut batch, PREFIX.to_vec()), epoch)
                .await
                .unwrap();
            let all = (batch.changes().clone(), self.faults.clone(), results.clone());
            assert_eq!(seen.get_or_insert_with(|| all.clone()), &all, "guardians differ");
            batch.commit().await.unwrap();
        }
        self.inside = inside;
        for (index, guardian) in self.guardians.iter().enumerate() {
            guardian.module.committed(&self.reader(index), epoch).await.unwrap();
        }
        let audit = self.guardians[0].module.audit(&self.reader(0)).await.unwrap();
        assert_eq!(audit.iter().map(|line| line.amount_msat).sum::<i64>(), -(self.inside as i64));
        results
    }

    /// One transaction in an epoch of its own.
    pub async fn submit(&mut self, tx: Tx) -> Result<OutPoint, &'static str> {
        self.epoch(vec![tx]).await.remove(0)
    }

    pub async fn outcome(&self, point: OutPoint) -> Option<LightningOutcome> {
        let outcome = self.guardians[0].module.outcome(&self.reader(0), point).await.unwrap()?;
        Some(decode(&outcome.bytes, 1000).unwrap())
    }

    pub async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Value,
    ) -> Result<Value, ApiError> {
        let routes = self.guardians[0].module.routes();
        let route = routes.iter().find(|route| route.path == path && route.method == method).unwrap();
        let query: BTreeMap<_, _> = query.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        (route.handler)(ApiRequest { query, body, db: self.reader(0) }).await
    }

    pub async fn contract(&self, id: ContractId) -> Result<ContractReport, ApiError> {
        let report = self.call(Method::Get, "contract", &[("id", id.to_string())], Value::Null).await?;
        Ok(serde_json::from_value(report).unwrap())
    }

    /// Asks for a contract's next state; the answer does not keep the federation borrowed.
    pub fn waiting_for(
        &self,
        id: ContractId,
        not: ContractState,
    ) -> impl Future<Output = Result<Value, ApiError>> + use<> {
        let routes = self.guardians[0].module.routes();
        let route = routes.into_iter().find(|route| route.path == "contract").unwrap();
        let query = [("id", id.to_string()), ("wait", "30".to_owned()), ("not", not.to_string())];
        let query = query.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        (route.handler)(ApiRequest { query, body: Value::Null, db: self.reader(0) })
    }

    pub async fn height(&self) -> u32 {
        let answer = self.call(Method::Get, "height", &[], Value::Null).await.unwrap();
        assert_eq!(answer, json!({ "height": answer["height"] }));
        answer["height"].as_u64().unwrap() as u32
    }

    pub async fn alarms(&self) -> Vec<String> {
        self.guardians[0].module.alarms(&self.reader(0)).await.unwrap()
    }
}

async fn apply(
    guardian: &Guardian,
    batch: &mut WriteBatch,
    epoch: Epoch,
    txid: TxId,
    tx: &Tx,
) -> Result<(OutPoint, u64, u64), &'static str> {
    let mut db = Namespaced::new(batch, PREFIX.to_vec());
    let (mut taken, mut given) = (0, 0);
    let inputs: Vec<&Input> = tx.inputs.iter().collect();
    for (input, prepared) in inputs.iter().zip(guardian.module.prepare(&inputs)) {
        let prepared = prepared.map_err(code)?;
        let value = guardian.module.apply_input(&mut db, epoch, input, &prepared).await.map_err(code)?;
        taken += value.amount.msat();
    }
    for (index, output) in tx.outputs.iter().enumerate() {
        let point = OutPoint { txid, index: index as u16 };
        let output = guardian.module.read_output(output).map_err(code)?;
        let value = guardian.module.apply_output(&mut db, epoch, point, &output).await.map_err(code)?;
        given += value.amount.msat();
    }
    Ok((OutPoint { txid, index: 0 }, taken, given))
}

pub fn keys(seed: u8) -> LightningKeys {
    LightningKeys::new(&[seed; 64], ID)
}

pub fn gateway_key() -> Keypair {
    keys(200).gateway().unwrap()
}

pub fn node() -> SecretKey {
    SecretKey::from_slice(&[42; 32]).unwrap()
}

pub fn gateway() -> GatewayInfo {
    GatewayInfo {
        key: gateway_key().x_only_public_key().0,
        alias: "gate".to_owned(),
        api_url: "http://127.0.0.1:1".to_owned(),
        node_id: PublicKey::from_secret_key(SECP256K1, &node()),
        send_fees: GatewayFees { base: Amount::from_msat(1000), ppm: 5000 },
        receive_fees: GatewayFees { base: Amount::from_msat(50), ppm: 0 },
        min: Amount::from_msat(1000),
        max: Amount::from_msat(1_000_000_000),
        expires_at: 0,
    }
}

/// An invoice by the gateway's node, made at 1000 s after 1970 and good for an hour.
pub fn invoice(preimage: &Preimage, msat: Option<u64>, currency: Currency) -> Bolt11Invoice {
    use bitcoin::hashes::Hash as _;
    let builder = InvoiceBuilder::new(currency)
        .description("test".to_owned())
        .payment_hash(bitcoin::hashes::sha256::Hash::from_byte_array(preimage.payment_hash().0))
        .payment_secret(PaymentSecret([3; 32]))
        .duration_since_epoch(std::time::Duration::from_secs(1000))
        .min_final_cltv_expiry_delta(18);
    let builder = match msat {
        Some(msat) => builder.amount_milli_satoshis(msat),
        None => builder,
    };
    builder.build_signed(|hash| SECP256K1.sign_ecdsa_recoverable(hash, &node())).unwrap()
}

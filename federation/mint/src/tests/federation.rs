//! Guardians in one process: the main loop in miniature, as strict as the real one about equal state.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use federation_core::api::{ApiError, ApiFuture, ApiRequest, Method};
use federation_core::db::{Database, Namespaced, NamespacedReader};
use federation_core::encoding::{decode, encode};
use federation_core::module::{DynModule, Epoch, ModuleError, erased};
use federation_core::{FederationId, Input, ModuleId, OutPoint, Output, PeerId, Transaction, TxId};
use federation_store::{WriteBatch, memory};
use federation_tbs::BlindedSignature;
use federation_tbs::dkg::KeySet;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::client::{Deriver, Note, NoteRequest, finish, spend_input};
use crate::server::Mint;
use crate::{Denomination, MintConfig, MintParams, MintSecret, PartialSignatures, generate};

pub const ID: FederationId = FederationId([7; 32]);
pub const MODULE: ModuleId = ModuleId(0);
/// 1 to 512 msat.
pub const DENOMINATIONS: usize = 10;
const PREFIX: [u8; 2] = [0, 0];

/// The keys of all guardians; made once, since that takes a while.
pub fn keysets(n: usize) -> Vec<Vec<KeySet>> {
    static FOUR: OnceLock<Vec<Vec<KeySet>>> = OnceLock::new();
    let make = || {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let outputs = federation_tbs::dkg::testing::run(n, DENOMINATIONS, &mut rng).unwrap();
        outputs.into_iter().map(|output| output.keys).collect::<Vec<_>>()
    };
    if n == 4 { FOUR.get_or_init(make).clone() } else { make() }
}

pub fn config(params: MintParams) -> MintConfig {
    generate(keysets(4).swap_remove(0), params).0
}

pub fn denomination(exponent: u8) -> Denomination {
    Denomination::new(exponent).unwrap()
}

struct Guardian {
    module: Arc<dyn DynModule>,
    db: Arc<dyn Database>,
}

impl Guardian {
    fn reader(&self) -> NamespacedReader {
        NamespacedReader::new(self.db.clone(), PREFIX.to_vec())
    }
}

pub type Items = BTreeMap<PeerId, PartialSignatures>;

pub struct Federation {
    guardians: Vec<Guardian>,
    pub config: MintConfig,
    pub secrets: Vec<MintSecret>,
    next_epoch: u64,
    /// Commits are told; else they wait for the next one, as those of epochs that are committed together do.
    pub tells: bool,
    pub deriver: Deriver,
    next_note: u64,
}

impl Federation {
    pub fn new(n: usize, params: MintParams) -> Self {
        let (configs, secrets): (Vec<_>, Vec<_>) =
            keysets(n).into_iter().map(|keys| generate(keys, params)).unzip();
        let guardians = (0u16..)
            .zip(configs.iter().zip(&secrets))
            .map(|(us, (config, secret))| Guardian {
                module: erased(Arc::new(Mint::new(config.clone(), secret.clone(), PeerId(us)).unwrap())),
                db: memory(),
            })
            .collect();
        assert!(configs.iter().all(|config| *config == configs[0]));
        let deriver = Deriver::new(&[3; 64], ID);
        let config = configs[0].clone();
        Self { guardians, config, secrets, next_epoch: 0, tells: true, deriver, next_note: 0 }
    }

    /// What each guardian would say now.
    pub async fn proposals(&self) -> Items {
        let mut items = Items::new();
        for (peer, guardian) in (0..).map(PeerId).zip(&self.guardians) {
            let proposal = guardian.module.propose(&guardian.reader()).await.unwrap();
            assert_eq!(proposal.opens_epoch, !proposal.items.is_empty());
            assert!(proposal.items.len() <= 1);
            for item in proposal.items {
                items.insert(peer, decode(&item, usize::MAX).unwrap());
            }
        }
        items
    }

    /// An epoch with these items and transactions, at every guardian; a refusal's code a transaction.
    pub async fn epoch(
        &mut self,
        items: &Items,
        transactions: &[Transaction],
    ) -> Vec<Result<(), &'static str>> {
        let epoch = Epoch { number: self.next_epoch, version: 1 };
        self.next_epoch += 1;
        let mut all = Vec::new();
        for guardian in &self.guardians {
            let module = &guardian.module;
            let mut batch = WriteBatch::new(guardian.db.clone());
            for (peer, item) in items {
                let mut db = Namespaced::new(&mut batch, PREFIX.to_vec());
                module.apply_item(&mut db, epoch, *peer, &encode(item)).await.unwrap();
            }
            let mut results = Vec::new();
            for transaction in transactions {
                batch.savepoint();
                let result = apply(&**module, &mut batch, epoch, transaction).await;
                if result.is_ok() {
                    batch.release()
                } else {
                    batch.rollback()
                }
                results.push(result.map_err(|error| match error {
                    ModuleError::Refused { code, .. } => code,
                    ModuleError::Db(error) => panic!("{error}"),
                }));
            }
            module.end_epoch(&mut Namespaced::new(&mut batch, PREFIX.to_vec()), epoch).await.unwrap();
            all.push((results, batch.changes().clone()));
            batch.commit().await.unwrap();
            if self.tells {
                module.committed(&guardian.reader(), epoch).await.unwrap();
            }
        }
        assert!(all.iter().all(|other| *other == all[0]), "the guardians' states differ");
        all.swap_remove(0).0
    }

    /// An epoch in which every guardian says what it has to say.
    pub async fn round(&mut self, transactions: &[Transaction]) -> Vec<Result<(), &'static str>> {
        let items = self.proposals().await;
        self.epoch(&items, transactions).await
    }

    pub fn request(&mut self, exponent: u8) -> NoteRequest {
        self.next_note += 1;
        NoteRequest::new(&self.deriver, self.next_note, denomination(exponent))
    }

    pub async fn outcome(&self, point: OutPoint) -> Option<BlindedSignature> {
        let mut outcomes = Vec::new();
        for guardian in &self.guardians {
            let outcome = guardian.module.outcome(&guardian.reader(), point).await.unwrap();
            outcomes.push(outcome.map(|outcome| {
                let signature: BlindedSignature = decode(&outcome.bytes, 48).unwrap();
                assert_eq!(outcome.json, serde_json::to_value(&signature).unwrap());
                signature
            }));
        }
        assert!(outcomes.iter().all(|other| *other == outcomes[0]));
        outcomes.swap_remove(0)
    }

    /// Issues notes out of nothing: balances are the main loop's business.
    pub async fn issue(&mut self, exponents: &[u8]) -> Vec<Note> {
        let requests: Vec<_> = exponents.iter().map(|exponent| self.request(*exponent)).collect();
        let tx = transaction(&[], &requests);
        assert_eq!(self.round(std::slice::from_ref(&tx)).await, [Ok(())]);
        assert_eq!(self.round(&[]).await, []);
        self.collect(tx.txid(ID), &requests).await
    }

    pub async fn collect(&self, txid: TxId, requests: &[NoteRequest]) -> Vec<Note> {
        let mut notes = Vec::new();
        for (index, request) in (0..).zip(requests) {
            let outcome = self.outcome(OutPoint { txid, index }).await.expect("an outcome");
            notes.push(finish(request, &outcome, &self.config).unwrap());
        }
        notes
    }

    /// msat in circulation, by the audit.
    pub async fn owed(&self) -> u64 {
        let guardian = &self.guardians[0];
        let lines = guardian.module.audit(&guardian.reader()).await.unwrap();
        lines.iter().map(|line| -line.amount_msat).sum::<i64>().try_into().unwrap()
    }

    pub async fn alarms(&self) -> Vec<String> {
        let guardian = &self.guardians[0];
        guardian.module.alarms(&guardian.reader()).await.unwrap()
    }

    pub async fn call(
        &self,
        guardian: usize,
        path: &str,
        query: &[(&str, &str)],
        body: serde_json::Value,
    ) -> Result<serde_json::Value, ApiError> {
        self.asking(guardian, path, query, body).await
    }

    /// The same as a future that borrows nothing.
    pub fn asking(
        &self,
        guardian: usize,
        path: &str,
        query: &[(&str, &str)],
        body: serde_json::Value,
    ) -> ApiFuture {
        let guardian = &self.guardians[guardian];
        let routes = guardian.module.routes();
        let route = routes.iter().find(|route| route.path == path).unwrap();
        assert_eq!(route.method == Method::Get, body.is_null());
        let query = query.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        (route.handler)(ApiRequest { query, body, db: guardian.reader() })
    }
}

/// Spends and asks; as on the wire.
pub fn transaction(spend: &[&Note], requests: &[NoteRequest]) -> Transaction {
    let (inputs, keys): (Vec<Input>, Vec<_>) = spend.iter().map(|note| spend_input(note, MODULE)).unzip();
    let outputs: Vec<Output> = requests.iter().map(|request| request.output(MODULE)).collect();
    Transaction::sign(ID, inputs, outputs, &keys)
}

async fn apply(
    module: &dyn DynModule,
    batch: &mut WriteBatch,
    epoch: Epoch,
    transaction: &Transaction,
) -> Result<(), ModuleError> {
    let prepared = module.prepare(&transaction.inputs.iter().collect::<Vec<_>>());
    let mut db = Namespaced::new(batch, PREFIX.to_vec());
    for (input, prepared) in transaction.inputs.iter().zip(prepared) {
        module.apply_input(&mut db, epoch, input, &prepared?).await?;
    }
    let txid = transaction.txid(ID);
    for (index, output) in (0..).zip(&transaction.outputs) {
        module.apply_output(&mut db, epoch, OutPoint { txid, index }, &module.read_output(output)?).await?;
    }
    Ok(())
}

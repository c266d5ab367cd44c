//! A federation of one guardian in memory, and a gateway, behind [`Transport`]: real keys, real signatures and the rules of
//! the mint and of contracts in short form; and faults on demand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::Network;
use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::secp256k1::{Keypair, PublicKey, SECP256K1, SecretKey};
use federation_core::config::{ConfigResponse, ConsensusConfig, Endpoint, GuardianKeys, ModuleConfig};
use federation_core::db::Database;
use federation_core::encoding::{decode, encode};
use federation_core::invite::InviteCode;
use federation_core::rest::{OutputStatus, TransactionResponse, TransactionStatus};
use federation_core::{Amount, FederationId, ModuleId, PeerId, Transaction, TxId};
use federation_lightning::client::LightningKeys;
use federation_lightning::contract::{sign_cancellation, verify_cancellation};
use federation_lightning::gateway::LIFETIME;
use federation_lightning::report::{ContractKind, ContractReport, ContractState};
use federation_lightning::{
    Announcement, Contract, ContractId, GatewayFees, GatewayInfo, IncomingContract, LightningConfig,
    LightningFees, LightningInput, LightningOutcome, LightningOutput, OutgoingContract, Preimage,
};
use federation_mint::{MintConfig, MintParams, MintSecret, NoteInput, NoteOutput, PointBytes};
use federation_tbs::{combine, sign};
use federation_wallet::body::{DepositStatus, DepositsStatus, Outcome, Quote, WithdrawalOutput};
use federation_wallet::{WalletConfig, WalletParams};
use lightning_invoice::{Currency, InvoiceBuilder, PaymentSecret};
use rand::SeedableRng as _;
use serde_json::{Value, json};

use crate::api::{CallError, Method, Request, Transport};
use crate::gateway::{InvoiceRequest, InvoiceResponse, PayRequest, PayResponse};
use crate::{Client, Words};

pub const GUARDIAN: &str = "http://guardian";
pub const GATEWAY: &str = "http://gateway";
const MINT: ModuleId = ModuleId(0);
const WALLET: ModuleId = ModuleId(1);
const LIGHTNING: ModuleId = ModuleId(2);
/// What a withdrawal costs, in satoshi.
pub const WITHDRAWAL_FEE: u64 = 2;
/// 1 msat to about 16 sat.
const DENOMINATIONS: usize = 15;

struct Keys {
    mint: MintConfig,
    secret: MintSecret,
    wallet: WalletConfig,
    lightning: LightningConfig,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let mut sets =
            federation_tbs::dkg::testing::run(1, DENOMINATIONS + 2, &mut rng).unwrap().swap_remove(0).keys;
        let (preimages, beacon) = (sets.pop().unwrap(), sets.pop().unwrap());
        let (mint, secret) = federation_mint::generate(sets, MintParams::default());
        let fees = LightningFees { fund: Amount::from_msat(3), spend: Amount::from_msat(2) };
        let (lightning, _) = LightningConfig::generate(preimages, Network::Regtest, fees);
        let guardian = SecretKey::from_slice(&[1; 32]).unwrap().public_key(SECP256K1);
        let wallet = WalletConfig::generate(
            Network::Regtest,
            WalletParams::for_network(Network::Regtest),
            0,
            BTreeMap::from([(PeerId(0), guardian)]),
            beacon.public,
            beacon.shares,
        );
        Keys { mint, secret, wallet: wallet.unwrap(), lightning }
    })
}

pub fn mint_config() -> MintConfig {
    keys().mint.clone()
}

pub fn config() -> ConsensusConfig {
    let module = |kind: &str, config| ModuleConfig { kind: kind.to_owned(), config };
    let identity = SecretKey::from_slice(&[2; 32]).unwrap().x_only_public_key(SECP256K1).0;
    ConsensusConfig {
        version: 1,
        name: "test".to_owned(),
        network: Network::Regtest,
        guardians: BTreeMap::from([(PeerId(0), GuardianKeys { identity, certificate: [0; 32] })]),
        coin_keys: Vec::new(),
        modules: BTreeMap::from([
            (MINT, module("mint", encode(&keys().mint))),
            (WALLET, module("wallet", encode(&keys().wallet))),
            (LIGHTNING, module("lightning", encode(&keys().lightning))),
        ]),
    }
}

/// What happens to the next requests whose path contains a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request never arrives.
    Down,
    /// It arrives and is done, and the answer is lost.
    LostAnswer,
    /// It is refused with this code.
    Refused(&'static str),
    /// The process that asks is killed here: the answer never comes.
    Hang,
    /// A transaction that is handed in: the guardian keeps it to itself, until [`World::hand_in`], and does not answer.
    Kept,
    /// A transaction that is handed in: what was kept is handed in just before it.
    Overtaken,
}

#[derive(Default)]
struct State {
    transactions: BTreeMap<TxId, TransactionResponse>,
    spent: BTreeSet<[u8; 32]>,
    /// Where each blinded nonce was issued, in hex, and its denomination.
    issued: BTreeMap<String, (TxId, u16, federation_mint::Denomination)>,
    /// A second use of a blinded nonce is refused, rather than the wallet's fault.
    copies: bool,
    /// Outputs are not signed yet.
    unsigned: bool,
    /// What the chain has paid to deposit keys, in hex: outpoint and satoshi.
    deposits: BTreeMap<String, Vec<(String, u64)>>,
    /// Backups, by key, the newest last.
    backups: BTreeMap<String, Vec<federation_core::backup::Backup>>,
    /// Requests, with the connection that they came over.
    log: Vec<(usize, String)>,
    contracts: BTreeMap<ContractId, (OutgoingContract, ContractState, Option<Preimage>)>,
    /// Incoming contracts that the gateway made invoices for, and where they stand once they are funded.
    incoming: BTreeMap<ContractId, (IncomingContract, Option<ContractState>)>,
    /// Blocks beyond height 100.
    blocks: u32,
    faults: VecDeque<(String, Fault)>,
    /// Transactions that a guardian has told nobody of.
    kept: Vec<Transaction>,
    /// It says of them that they are on their way.
    claims: bool,
    /// What was paid out, in satoshi.
    paid_out: Vec<u64>,
    /// How often the transactions' endpoint was handed something.
    submissions: usize,
    /// What the gateway does.
    gateway: GatewayMood,
    /// What it takes on top of its usual fee, in millionths.
    greed: u64,
    /// Faces and fees of all that went in and out, in msat.
    minted: i128,
}

/// What the gateway does with a payment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GatewayMood {
    /// Pays.
    #[default]
    Pays,
    /// Fails and signs a cancellation.
    Cancels,
    /// Answers with a signature that is not its own.
    Forges,
    /// Claims the contract and does not answer.
    TakesSilently,
    /// Answers something that makes no sense.
    Babbles,
    /// Does not answer at all.
    Gone,
}

/// The world outside the wallet.
pub struct World {
    state: Mutex<State>,
    connections: AtomicUsize,
    us: Weak<World>,
}

/// The preimage that all test invoices have.
pub const PREIMAGE: Preimage = Preimage([9; 32]);

fn gateway_key() -> Keypair {
    LightningKeys::new(&[8; 64], config().id()).gateway().unwrap()
}

fn refused(status: u16, code: &str) -> CallError {
    CallError::Refused { status, code: code.to_owned(), detail: code.to_owned() }
}

impl World {
    pub fn new() -> Arc<Self> {
        Arc::new_cyclic(|us| Self {
            state: Mutex::default(),
            connections: AtomicUsize::new(0),
            us: us.clone(),
        })
    }

    pub fn invite() -> InviteCode {
        InviteCode { federation: config().id(), api_urls: vec![GUARDIAN.to_owned()] }
    }

    /// A wallet in this world.
    pub async fn join(self: &Arc<Self>, db: &Arc<dyn Database>, words: &Words) -> Client {
        Client::join_over(db.clone(), words, &Self::invite(), self.clone()).await.unwrap()
    }

    /// The same wallet after a restart.
    pub async fn open(self: &Arc<Self>, db: &Arc<dyn Database>, words: &Words) -> Client {
        Client::open_over(db.clone(), words, self.clone()).await.unwrap()
    }

    pub fn fault(&self, path: &str, fault: Fault) {
        self.state.lock().unwrap().faults.push_back((path.to_owned(), fault));
    }

    pub fn gateway(&self, mood: GatewayMood) {
        self.state.lock().unwrap().gateway = mood;
    }

    pub fn greed(&self, ppm: u64) {
        self.state.lock().unwrap().greed = ppm;
    }

    pub fn submissions(&self) -> usize {
        self.state.lock().unwrap().submissions
    }

    /// What notes are out there.
    pub fn circulating(&self) -> i128 {
        self.state.lock().unwrap().minted
    }

    /// Spends a note behind its owner's back.
    pub fn spend(&self, nonce: [u8; 32]) {
        self.state.lock().unwrap().spent.insert(nonce);
    }

    /// From now on blinded nonces may come twice, and the second one is refused.
    pub fn allow_copies(&self) {
        self.state.lock().unwrap().copies = true;
    }

    /// From now on the guardian says that what it keeps is on its way.
    pub fn claim_kept(&self) {
        self.state.lock().unwrap().claims = true;
    }

    /// Nothing happens to the next requests.
    pub fn forget_faults(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    /// The same for those of one path.
    pub fn forget_fault(&self, path: &str) {
        self.state.lock().unwrap().faults.retain(|(of, _)| of != path);
    }

    /// How many transactions are kept.
    pub fn kept(&self) -> usize {
        self.state.lock().unwrap().kept.len()
    }

    /// Hands in what was kept; what of it was refused, by code.
    pub fn hand_in(&self) -> Vec<Option<String>> {
        let mut state = self.state.lock().unwrap();
        let kept = std::mem::take(&mut state.kept);
        let handed = kept.iter().map(|transaction| match state.apply(transaction) {
            Ok(_) => None,
            Err(CallError::Refused { code, .. }) => Some(code),
            Err(error) => panic!("{error}"),
        });
        handed.collect()
    }

    /// Somebody pays the only invoice that there is: the gateway funds its contract, and the guardians find the preimage right.
    pub fn pay_invoice(&self) {
        let mut state = self.state.lock().unwrap();
        assert_eq!(state.incoming.len(), 1);
        state.incoming.values_mut().for_each(|(_, at)| *at = Some(ContractState::Decrypted));
    }

    /// So many blocks more.
    pub fn mine(&self, blocks: u32) {
        self.state.lock().unwrap().blocks += blocks;
    }

    /// What was paid out on chain, in satoshi.
    pub fn paid_out(&self) -> Vec<u64> {
        self.state.lock().unwrap().paid_out.clone()
    }

    /// Whether `issued` shows signatures.
    pub fn sign(&self, yes: bool) {
        self.state.lock().unwrap().unsigned = !yes;
    }

    /// Pays to a deposit key; never final.
    pub fn deposit(&self, key: &str, sat: u64) {
        let mut state = self.state.lock().unwrap();
        state.deposits.entry(key.to_owned()).or_default().push((format!("{}:0", "ab".repeat(32)), sat));
    }

    /// As if only the first so many had arrived.
    pub fn forget_backups(&self, keep: usize) {
        self.state.lock().unwrap().backups.values_mut().for_each(|kept| kept.truncate(keep));
    }

    /// All backups that were written under the only key that there is.
    pub fn backups(&self) -> Vec<federation_core::backup::Backup> {
        let state = self.state.lock().unwrap();
        assert!(state.backups.len() <= 1);
        state.backups.values().flatten().cloned().collect()
    }

    /// Requests since the last call: connection and path.
    pub fn log(&self) -> Vec<(usize, String)> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }

    async fn call_over(&self, connection: usize, base: &str, request: &Request) -> Result<Value, CallError> {
        let fault = {
            let mut state = self.state.lock().unwrap();
            state.log.push((connection, request.path.clone()));
            let place = state.faults.iter().position(|(path, fault)| {
                let of_submissions = matches!(fault, Fault::Kept | Fault::Overtaken);
                request.path.contains(path.as_str()) && (request.method == Method::Post || !of_submissions)
            });
            place.and_then(|place| state.faults.remove(place)).map(|(_, fault)| fault)
        };
        if fault == Some(Fault::Down) {
            return Err(CallError::Down("down".into()));
        }
        if let Some(Fault::Refused(code)) = fault {
            return Err(refused(422, code));
        }
        if fault == Some(Fault::Kept) {
            let transaction: Transaction = serde_json::from_value(request.body.clone()).unwrap();
            self.state.lock().unwrap().kept.push(transaction);
            return std::future::pending().await;
        }
        if fault == Some(Fault::Overtaken) {
            self.hand_in();
        }
        let answer = if base == GATEWAY { self.gateway_answer(request) } else { self.answer(request) };
        match fault {
            Some(Fault::LostAnswer) => Err(CallError::Down("lost".into())),
            Some(Fault::Hang) => std::future::pending().await,
            _ => answer,
        }
    }

    fn answer(&self, request: &Request) -> Result<Value, CallError> {
        let mut state = self.state.lock().unwrap();
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let parameter = |name: &str| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, v)| v)
        };
        match (request.method, path) {
            (Method::Get, "/v1/config") => {
                let api_url = GUARDIAN.to_owned();
                let endpoint = Endpoint { name: "g".into(), api_url, link_address: String::new() };
                Ok(json!(ConfigResponse {
                    federation_id: config().id(),
                    consensus: encode(&config()),
                    endpoints: BTreeMap::from([(PeerId(0), endpoint)]),
                    modules: BTreeMap::new(),
                }))
            }
            (Method::Post, "/v1/transactions") => {
                state.submissions += 1;
                let transaction: Transaction = serde_json::from_value(request.body.clone()).unwrap();
                state.apply(&transaction).map(|response| json!(response))
            }
            (Method::Post, "/v1/modules/mint/issued") => {
                let nonces = request.body["blinded_nonces"].as_array().unwrap();
                assert!(nonces.len() <= 512);
                let found = nonces.iter().map(|nonce| {
                    let (txid, index, denomination) = state.issued.get(nonce.as_str().unwrap())?;
                    let outcome = match &state.transactions[txid].outputs[usize::from(*index)] {
                        OutputStatus::Ready { bytes, .. } if !state.unsigned => Some(hex::encode(bytes)),
                        _ => None,
                    };
                    Some(json!({ "txid": txid, "index": index, "denomination": denomination, "outcome": outcome }))
                });
                Ok(json!({ "notes": found.collect::<Vec<_>>() }))
            }
            (Method::Get, "/v1/modules/mint/shares") => {
                let txid: TxId = parameter("txid").unwrap().parse().unwrap();
                let response = state.transactions.get(&txid).ok_or(refused(404, "unknown_output"))?;
                let asked = state.issued.values().filter(|(issued, ..)| *issued == txid);
                // Of a single guardian the share is the signature.
                let share = |index: &u16| match &response.outputs[usize::from(*index)] {
                    OutputStatus::Ready { bytes, .. } => hex::encode(bytes),
                    OutputStatus::Pending => panic!("{index}"),
                };
                let shares: BTreeMap<u16, String> =
                    asked.map(|(_, index, _)| (*index, share(index))).collect();
                Ok(json!({ "guardian": 0, "shares": shares, "outcomes": {} }))
            }
            (Method::Get, "/v1/modules/mint/audit") => {
                let spent = state.spent.len();
                Ok(json!({ "denominations": [{ "denomination": 0, "spent": spent, "issued": 0 }] }))
            }
            (Method::Post, "/v1/backups") => {
                let backup: federation_core::backup::Backup =
                    serde_json::from_value(request.body.clone()).unwrap();
                assert!(backup.is_signed(config().id()) && backup.is_worked(config().id()));
                assert!(backup.sealed.len() <= federation_core::backup::MAX_SEALED);
                let kept = state.backups.entry(backup.key.to_string()).or_default();
                if kept.last().is_some_and(|last| last.version >= backup.version) {
                    return Err(refused(409, "backup_old"));
                }
                kept.push(backup);
                Ok(json!({}))
            }
            (Method::Get, path) if path.starts_with("/v1/backups/") => {
                let key = path.rsplit('/').next().unwrap();
                let kept = state.backups.get(key).and_then(|kept| kept.last());
                kept.map(|backup| json!(backup)).ok_or(refused(404, "unknown_backup"))
            }
            (Method::Post, "/v1/modules/wallet/register") => Ok(Value::Null),
            (Method::Get, "/v1/modules/wallet/quote") => Ok(json!(Quote {
                address: parameter("address").unwrap().to_owned(),
                amount_sat: parameter("amount_sat").unwrap().parse().unwrap(),
                fee_sat: WITHDRAWAL_FEE,
                rate_sat_per_kvb: 1000,
                valid_until_height: 200,
            })),
            (Method::Get, "/v1/modules/wallet/deposits") => {
                let paid = state.deposits.get(parameter("key").unwrap()).cloned().unwrap_or_default();
                let deposits = paid.into_iter().map(|(outpoint, amount_sat)| DepositStatus {
                    outpoint,
                    amount_sat,
                    too_small: false,
                    height: 1,
                    confirmations: 1,
                    claimed: false,
                    proof: None,
                });
                Ok(json!(DepositsStatus {
                    address: String::new(),
                    confirmations_needed: 2,
                    min_deposit_sat: 1,
                    tip_height: None,
                    deposits: deposits.collect(),
                }))
            }
            (Method::Get, "/v1/modules/mint/spent") => {
                let prefix = parameter("prefix").unwrap();
                let found = state.spent.iter().map(hex::encode).filter(|nonce| nonce.starts_with(prefix));
                Ok(json!({ "nonces": found.collect::<Vec<_>>(), "more": false }))
            }
            (Method::Get, "/v1/modules/lightning/height") => Ok(json!({ "height": state.height() })),
            (Method::Get, "/v1/modules/lightning/gateways") => Ok(json!([announcement(state.greed)])),
            (Method::Get, "/v1/modules/lightning/contract") => {
                let id: ContractId = parameter("id").unwrap().parse().unwrap();
                if let Some((contract, Some(at))) = state.incoming.get(&id) {
                    return Ok(json!(ContractReport {
                        id,
                        kind: ContractKind::Incoming,
                        amount: contract.terms.amount,
                        state: *at,
                        preimage: None,
                        deadline_height: contract.terms.fund_before_height,
                        height: state.height(),
                    }));
                }
                let (contract, at, preimage) =
                    state.contracts.get(&id).ok_or(refused(404, "unknown_contract"))?;
                Ok(json!(ContractReport {
                    id,
                    kind: ContractKind::Outgoing,
                    amount: contract.amount,
                    state: *at,
                    preimage: *preimage,
                    deadline_height: contract.expiry_height,
                    height: state.height(),
                }))
            }
            (Method::Get, path) => {
                let mut parts = path.trim_start_matches("/v1/").split('/');
                let (kind, txid) = (parts.next().unwrap(), parts.next().unwrap_or_default());
                let response = txid.parse().ok().and_then(|txid: TxId| state.transactions.get(&txid));
                let is_kept = |of: &Transaction| of.txid(config().id()).to_string() == txid;
                if kind == "transactions"
                    && response.is_none()
                    && state.claims
                    && state.kept.iter().any(is_kept)
                {
                    let (txid, status) = (txid.parse().unwrap(), TransactionStatus::Proposed);
                    return Ok(json!(TransactionResponse { txid, status, outputs: Vec::new() }));
                }
                let response = response.ok_or(refused(404, "unknown_transaction"))?;
                match (kind, parts.next()) {
                    ("transactions", None) => Ok(json!(response)),
                    ("outcomes", Some(index)) => {
                        let output = response.outputs.get(index.parse::<usize>().unwrap());
                        output.map(|output| json!(output)).ok_or(refused(404, "unknown_output"))
                    }
                    _ => panic!("{path}"),
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn gateway_answer(&self, request: &Request) -> Result<Value, CallError> {
        let mut state = self.state.lock().unwrap();
        if request.path == "/v1/info" {
            return if state.gateway == GatewayMood::Gone {
                Err(CallError::Down("gone".into()))
            } else {
                Ok(json!({}))
            };
        }
        if request.path == "/v1/invoices" {
            return Ok(json!(state.make_invoice(request)));
        }
        let mood = state.gateway;
        let pay: PayRequest = serde_json::from_value(request.body.clone()).unwrap();
        let contract = state.contracts.get_mut(&pay.contract_id).expect("funded before the gateway is asked");
        assert_eq!(contract.0, decode(&pay.contract, 1000).unwrap());
        let mut claim = || (contract.1, contract.2) = (ContractState::Claimed, Some(PREIMAGE));
        let sign = |key: &Keypair| sign_cancellation(config().id(), pay.contract_id, key);
        let reason = || "no route".to_owned();
        let answer = match mood {
            GatewayMood::Pays => {
                claim();
                PayResponse::Succeeded { preimage: PREIMAGE }
            }
            GatewayMood::Cancels => {
                PayResponse::Failed { reason: reason(), cancellation: sign(&gateway_key()) }
            }
            GatewayMood::Forges => {
                let other = Keypair::from_secret_key(SECP256K1, &SecretKey::from_slice(&[5; 32]).unwrap());
                PayResponse::Failed { reason: reason(), cancellation: sign(&other) }
            }
            GatewayMood::TakesSilently => {
                claim();
                return Err(CallError::Down("silence".into()));
            }
            GatewayMood::Babbles => return Ok(json!({ "status": "fine" })),
            GatewayMood::Gone => return Err(CallError::Down("gone".into())),
        };
        Ok(json!(answer))
    }
}

pub fn announcement(greed: u64) -> Announcement {
    let info = GatewayInfo {
        key: gateway_key().x_only_public_key().0,
        alias: "g".into(),
        api_url: GATEWAY.to_owned(),
        node_id: PublicKey::from_keypair(&gateway_key()),
        send_fees: GatewayFees { base: Amount::from_msat(10), ppm: 1000 + greed },
        receive_fees: GatewayFees::default(),
        min: Amount::from_msat(1),
        max: Amount::from_msat(1_000_000),
        expires_at: crate::ops::now().as_secs() + LIFETIME,
    };
    Announcement::sign(config().id(), info, &gateway_key())
}

impl State {
    fn height(&self) -> u32 {
        100 + self.blocks
    }

    fn make_invoice(&mut self, request: &Request) -> InvoiceResponse {
        let asked: InvoiceRequest = serde_json::from_value(request.body.clone()).unwrap();
        let contract: IncomingContract = decode(&asked.contract, 10_000).unwrap();
        let invoice = InvoiceBuilder::new(Currency::Regtest)
            .description(asked.description)
            .payment_hash(sha256::Hash::from_byte_array(contract.terms.payment_hash.0))
            .payment_secret(PaymentSecret([1; 32]))
            .duration_since_epoch(crate::ops::now())
            .min_final_cltv_expiry_delta(18)
            .amount_milli_satoshis(asked.amount_msat.msat())
            .build_signed(|hash| SECP256K1.sign_ecdsa_recoverable(hash, &gateway_key().secret_key()));
        self.incoming.insert(contract.id(config().id()), (contract, None));
        InvoiceResponse { invoice: invoice.unwrap().to_string() }
    }

    /// The rules, all of an epoch at once.
    fn apply(&mut self, transaction: &Transaction) -> Result<TransactionResponse, CallError> {
        let federation: FederationId = config().id();
        let txid = transaction.txid(federation);
        if let Some(known) = self.transactions.get(&txid) {
            return Ok(known.clone());
        }
        transaction.check_signatures(federation).map_err(|_| refused(400, "bad_signature"))?;
        let (mut sum, mut minted) = (0i128, 0i128);
        let (mut spent, mut refunded, mut claimed) = (Vec::new(), Vec::new(), Vec::new());
        for input in &transaction.inputs {
            match input.module {
                MINT => {
                    let note: NoteInput = decode(&input.body, 1000).unwrap();
                    let nonce = input.key.serialize();
                    let key = &keys().mint.keys(note.denomination).unwrap().public;
                    assert!(
                        federation_tbs::verify(&nonce, &note.signature.decode().unwrap(), key),
                        "a bad note"
                    );
                    if self.spent.contains(&nonce) || spent.contains(&nonce) {
                        return Err(refused(422, "double_spend"));
                    }
                    spent.push(nonce);
                    sum += i128::from(note.denomination.amount().msat());
                    minted -= i128::from(note.denomination.amount().msat());
                }
                LIGHTNING => match decode(&input.body, 1000).unwrap() {
                    LightningInput::RefundOutgoing { contract, cancellation } => {
                        let (found, state, _) = self.contracts.get(&contract).unwrap();
                        assert_eq!(found.user_key, input.key);
                        match cancellation {
                            Some(signature) => {
                                let key = &found.gateway_key;
                                assert!(verify_cancellation(federation, contract, key, &signature.0));
                            }
                            None if self.height() >= found.expiry_height => {}
                            None => return Err(refused(422, "not_expired")),
                        }
                        if *state != ContractState::Funded {
                            return Err(refused(422, "contract_spent"));
                        }
                        sum += i128::from(found.amount.msat()) - 2;
                        refunded.push(contract);
                    }
                    LightningInput::ClaimIncoming { contract } => {
                        let (found, state) = self.incoming.get(&contract).unwrap();
                        assert_eq!(found.terms.user_key, input.key);
                        if *state != Some(ContractState::Decrypted) {
                            return Err(refused(422, "contract_spent"));
                        }
                        sum += i128::from(found.terms.amount.msat()) - 2;
                        claimed.push(contract);
                    }
                    other => panic!("{other:?}"),
                },
                // Money from nowhere, for tests to begin with.
                _ => sum += i128::from(decode::<u64>(&input.body, 8).unwrap()),
            }
        }
        let mut outputs = Vec::new();
        let (mut contracts, mut issued, mut paid_out) = (Vec::new(), Vec::new(), Vec::new());
        for output in &transaction.outputs {
            let bytes = match output.module {
                MINT => {
                    let note: NoteOutput = decode(&output.body, 1000).unwrap();
                    let blinded = hex::encode(note.blinded_nonce.to_bytes());
                    if self.issued.contains_key(&blinded) {
                        assert!(self.copies, "a blinded nonce was used twice");
                        return Err(refused(422, "blinded_nonce_reused"));
                    }
                    issued.push((blinded, (txid, outputs.len() as u16, note.denomination)));
                    sum -= i128::from(note.denomination.amount().msat());
                    minted += i128::from(note.denomination.amount().msat());
                    let share = &keys().secret.shares[usize::from(note.denomination.exponent())];
                    let share = sign(&note.blinded_nonce, share);
                    encode(&PointBytes(combine(&BTreeMap::from([(0, share)]), 1).unwrap().to_bytes()))
                }
                WALLET => {
                    let withdrawal: WithdrawalOutput = decode(&output.body, 1000).unwrap();
                    sum -= i128::from(withdrawal.amount_sat + withdrawal.fee_sat) * 1000;
                    paid_out.push(withdrawal.amount_sat);
                    encode(&Outcome { txid: bitcoin::Txid::from_byte_array(txid.0) })
                }
                _ => match decode::<LightningOutput>(&output.body, 10_000).unwrap().0 {
                    Contract::Outgoing(contract) => {
                        sum -= i128::from(contract.amount.msat()) + 3;
                        contracts.push(contract);
                        encode(&LightningOutcome::Funded)
                    }
                    other => panic!("{other:?}"),
                },
            };
            outputs.push(OutputStatus::Ready { bytes, outcome: Value::Null });
        }
        if sum < 0 {
            return Err(refused(422, "unbalanced"));
        }
        self.spent.extend(spent);
        self.issued.extend(issued);
        self.paid_out.extend(paid_out);
        for contract in refunded {
            self.contracts.get_mut(&contract).unwrap().1 = ContractState::Refunded;
        }
        for contract in claimed {
            self.incoming.get_mut(&contract).unwrap().1 = Some(ContractState::Claimed);
        }
        for contract in contracts {
            let id = Contract::Outgoing(contract.clone()).id(federation);
            self.contracts.insert(id, (contract, ContractState::Funded, None));
        }
        self.minted += minted;
        let response =
            TransactionResponse { txid, status: TransactionStatus::Accepted { epoch: 1 }, outputs };
        self.transactions.insert(txid, response.clone());
        Ok(response)
    }
}

#[async_trait]
impl Transport for World {
    async fn call(&self, base: &str, request: &Request, _: Duration) -> Result<Value, CallError> {
        self.call_over(0, base, request).await
    }

    fn apart(&self) -> crate::Result<Arc<dyn Transport>> {
        let world = self.us.upgrade().unwrap();
        Ok(Arc::new(Connection { world, number: self.connections.fetch_add(1, Ordering::Relaxed) + 1 }))
    }
}

/// Another way to the same world.
struct Connection {
    world: Arc<World>,
    number: usize,
}

#[async_trait]
impl Transport for Connection {
    async fn call(&self, base: &str, request: &Request, _: Duration) -> Result<Value, CallError> {
        self.world.call_over(self.number, base, request).await
    }

    fn apart(&self) -> crate::Result<Arc<dyn Transport>> {
        self.world.apart()
    }
}

/// Gives a wallet money from nowhere.
pub async fn fund(client: &Client, msat: u64) {
    use federation_core::Input;
    use federation_core::module::Value;
    let key = Keypair::new(SECP256K1, &mut rand::thread_rng());
    let input = Input { module: ModuleId(9), key: key.x_only_public_key().0, body: encode(&msat) };
    let op = crate::ops::fresh_id();
    let value = Value::free(Amount::from_msat(msat));
    client.transact(op, vec![(input, key, value)], Vec::new()).await.unwrap();
    client.settled(op).await.unwrap();
}

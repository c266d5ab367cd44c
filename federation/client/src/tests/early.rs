//! Notes out of the guardians' shares, before their outcomes: with guardians that lie, are silent, slow, behind or down.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bitcoin::secp256k1::{SECP256K1, SecretKey};
use federation_core::config::{ConsensusConfig, GuardianKeys};
use federation_core::db::Database;
use federation_core::encoding::{decode, encode};
use federation_core::module::Value as Worth;
use federation_core::rest::{OutputStatus, TransactionResponse, TransactionStatus};
use federation_core::{ModuleId, OutPoint, PeerId, Transaction, TxId};
use federation_lightning::LightningOutcome;
use federation_mint::{MintConfig, MintParams, MintSecret, NoteOutput, PointBytes};
use federation_tbs::{SecretKeyShare, combine, sign};
use rand::SeedableRng as _;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::engine::free_money;
use super::msat;
use crate::api::{CallError, FederationApi, Method, Request, Transport};
use crate::store::{Held, NOTES};
use crate::{Client, Words};

const MINT: ModuleId = ModuleId(0);
const DENOMINATIONS: usize = 12;
/// What is slow on a busy machine; nothing here takes as long when it goes well.
const SOON: Duration = Duration::from_secs(20);

/// How long it takes until a transaction is accepted, where that matters.
const LATER: Duration = Duration::from_millis(500);
/// What a slow guardian takes.
const SLOW: Duration = Duration::from_secs(8);

/// What a guardian does when it is asked for its shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Honest,
    /// Signed with a key of its own.
    Wrong,
    /// The shares of two outputs exchanged.
    Exchanged,
    /// No points.
    Malformed,
    /// One share less.
    Fewer,
    /// Something else altogether.
    Babbles,
    /// Says that all is over, with signatures that are none.
    SaysOver,
    /// Never answers.
    Silent,
    /// Takes its time.
    Slow,
    /// Honest, of a transaction that is accepted a while after it was handed in.
    Later,
    /// No shares.
    Empty,
    /// Has not accepted it for as long as one waits.
    Behind,
    /// Does not know how to wait.
    Unaware,
    Down,
}

/// Guardians that accept everything at once.
struct Panel {
    config: ConsensusConfig,
    mint: MintConfig,
    secrets: Vec<MintSecret>,
    ways: Mutex<Vec<Way>>,
    accepted: Mutex<BTreeMap<TxId, Transaction>>,
    /// Who was asked for what.
    log: Mutex<Vec<(usize, String)>>,
    /// Whether outputs have their outcomes.
    ready: watch::Sender<bool>,
}

fn refused(status: u16) -> CallError {
    CallError::Refused { status, code: "unknown_output".into(), detail: "unknown".into() }
}

impl Panel {
    fn new(ways: &[Way]) -> Arc<Self> {
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let outputs = federation_tbs::dkg::testing::run(ways.len(), DENOMINATIONS, &mut rng).unwrap();
        let made =
            outputs.into_iter().map(|output| federation_mint::generate(output.keys, MintParams::default()));
        let (mut configs, secrets): (Vec<_>, Vec<_>) = made.unzip();
        let mint = configs.swap_remove(0);
        let mut config = crate::testing::config();
        config.modules.get_mut(&MINT).unwrap().config = encode(&mint);
        let key = |n: u16| SecretKey::from_slice(&[n as u8 + 1; 32]).unwrap().x_only_public_key(SECP256K1).0;
        config.guardians = (0..ways.len() as u16)
            .map(|n| (PeerId(n), GuardianKeys { identity: key(n), certificate: [n as u8; 32] }))
            .collect();
        Arc::new(Self {
            config,
            mint,
            secrets,
            ways: Mutex::new(ways.to_vec()),
            accepted: Mutex::default(),
            log: Mutex::default(),
            ready: watch::Sender::new(false),
        })
    }

    fn behave(&self, way: Way) {
        self.ways.lock().unwrap().fill(way);
    }

    /// How often the path was asked for, by guardian.
    fn asked(&self, path: &str) -> Vec<usize> {
        let mut counts = vec![0; self.secrets.len()];
        for (guardian, asked) in self.log.lock().unwrap().iter() {
            counts[*guardian] += usize::from(asked.contains(path));
        }
        counts
    }

    /// The wallet of these words, guardian 0 asked first; it goes on with what it was at.
    async fn wallet(self: &Arc<Self>, db: &Arc<dyn Database>, words: &Words) -> Client {
        let urls = (0..self.secrets.len() as u16).map(|n| (PeerId(n), n.to_string())).collect();
        let api = FederationApi::new(self.clone(), urls, 0);
        let client = Client::assemble(db.clone(), api, self.config.clone(), words.seed().unwrap()).unwrap();
        client.resume().await.unwrap();
        client
    }

    async fn new_wallet(self: &Arc<Self>) -> Client {
        self.wallet(&federation_store::memory(), &Words::generate().unwrap()).await
    }

    fn note(&self, point: OutPoint) -> Option<NoteOutput> {
        let accepted = self.accepted.lock().unwrap();
        let output = &accepted[&point.txid].outputs[usize::from(point.index)];
        (output.module == MINT).then(|| decode(&output.body, 1000).unwrap())
    }

    fn share(&self, guardian: usize, note: &NoteOutput) -> PointBytes {
        let key = &self.secrets[guardian].shares[usize::from(note.denomination.exponent())];
        PointBytes(sign(&note.blinded_nonce, key).to_bytes())
    }

    fn shares(&self, guardian: usize, txid: TxId, way: Way) -> Value {
        let outputs = self.accepted.lock().unwrap()[&txid].outputs.len() as u16;
        let notes: Vec<_> =
            (0..outputs).filter_map(|index| Some((index, self.note(OutPoint { txid, index })?))).collect();
        let mut shares: BTreeMap<u16, PointBytes> =
            notes.iter().map(|(index, note)| (*index, self.share(guardian, note))).collect();
        let mut outcomes = BTreeMap::new();
        match way {
            Way::Wrong => {
                let key = SecretKeyShare::from_bytes(&[5; 32]).unwrap();
                let (index, note) = notes.last().unwrap();
                shares.insert(*index, PointBytes(sign(&note.blinded_nonce, &key).to_bytes()));
            }
            Way::Exchanged => {
                let [a, b] = [notes[0].0, notes[1].0];
                let (first, second) = (shares[&a], shares[&b]);
                shares.extend([(a, second), (b, first)]);
            }
            Way::Malformed => shares.values_mut().for_each(|share| *share = PointBytes([0x55; 48])),
            Way::Fewer => drop(shares.pop_last()),
            Way::Empty => shares.clear(),
            Way::SaysOver => outcomes = std::mem::take(&mut shares),
            Way::Babbles => return json!({ "shares": "fine", "outcomes": [] }),
            _ => {}
        }
        json!({ "guardian": guardian, "shares": shares, "outcomes": outcomes })
    }

    fn response(&self, txid: TxId) -> TransactionResponse {
        let outputs = self.accepted.lock().unwrap()[&txid].outputs.len() as u16;
        let output = |index| {
            let bytes = match self.note(OutPoint { txid, index }) {
                None => encode(&LightningOutcome::Funded),
                Some(_) if !*self.ready.borrow() => return OutputStatus::Pending,
                Some(note) => {
                    let shares = (0..self.secrets.len())
                        .map(|guardian| (guardian as u16, self.share(guardian, &note).decode().unwrap()))
                        .collect();
                    let signature = combine(&shares, usize::from(self.mint.threshold)).unwrap();
                    encode(&PointBytes(signature.to_bytes()))
                }
            };
            OutputStatus::Ready { bytes, outcome: Value::Null }
        };
        let outputs = (0..outputs).map(output).collect();
        TransactionResponse { txid, status: TransactionStatus::Accepted { epoch: 1 }, outputs }
    }

    async fn until_ready(&self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.ready.subscribe().wait_for(|ready| *ready)).await;
    }
}

#[async_trait]
impl Transport for Panel {
    async fn call(&self, base: &str, request: &Request, limit: Duration) -> Result<Value, CallError> {
        let guardian: usize = base.parse().unwrap();
        self.log.lock().unwrap().push((guardian, format!("{:?} {}", request.method, request.path)));
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        if request.method == Method::Post {
            let transaction: Transaction = serde_json::from_value(request.body.clone()).unwrap();
            let txid = transaction.txid(self.config.id());
            self.accepted.lock().unwrap().insert(txid, transaction);
            let status = TransactionStatus::Proposed;
            return Ok(json!(TransactionResponse { txid, status, outputs: Vec::new() }));
        }
        if path == "/v1/modules/mint/shares" {
            let parameter = |name: &str| {
                let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
                pairs.find(|(key, _)| *key == name).unwrap().1
            };
            let wait = Duration::from_secs(parameter("wait").parse().unwrap());
            let way = self.ways.lock().unwrap()[guardian];
            match way {
                Way::Silent => {
                    tokio::time::sleep(limit).await;
                    return Err(CallError::Down("no answer in time".into()));
                }
                Way::Down => return Err(CallError::Down("down".into())),
                Way::Behind => {
                    tokio::time::sleep(wait).await;
                    return Err(refused(404));
                }
                Way::Unaware => return Err(refused(404)),
                Way::Slow => tokio::time::sleep(SLOW).await,
                Way::Later => tokio::time::sleep(LATER).await,
                _ => {}
            }
            return Ok(self.shares(guardian, parameter("txid").parse().unwrap(), way));
        }
        let mut parts = path.trim_start_matches("/v1/").split('/');
        let (kind, txid) = (parts.next().unwrap(), parts.next().unwrap().parse().unwrap());
        match (kind, parts.next()) {
            ("transactions", None) if !query.contains("until=ready") => {}
            _ => self.until_ready(limit).await,
        }
        let response = self.response(txid);
        match parts.next() {
            _ if kind == "transactions" => Ok(json!(response)),
            _ => Ok(json!(response.outputs.last().unwrap())),
        }
    }
}

async fn notes(client: &Client) -> Vec<([u8; 32], Held)> {
    NOTES.all(client.db()).await.unwrap()
}

/// Hands something in and waits for its notes.
async fn reissued(client: &Client, op: u8) -> bool {
    client.transact([op; 32], vec![free_money(700)], Vec::new()).await.unwrap();
    client.settled([op; 32]).await.unwrap();
    true
}

async fn soon(work: impl Future<Output = bool>) -> bool {
    tokio::time::timeout(SOON, work).await.unwrap_or(false)
}

#[tokio::test]
async fn notes_are_there_before_their_outcomes_and_are_the_same() {
    for n in [1, 2, 4, 7] {
        let panel = Panel::new(&vec![Way::Honest; n]);
        let words = Words::generate().unwrap();
        let quick = panel.wallet(&federation_store::memory(), &words).await;
        assert!(soon(reissued(&quick, 1)).await);
        assert_eq!(quick.balance().await.unwrap(), msat(700));
        // No guardian more than needed was asked, none twice, and none for anything else.
        let threshold = usize::from(panel.mint.threshold);
        assert_eq!(panel.asked("mint/shares"), [vec![1; threshold], vec![0; n - threshold]].concat());
        assert_eq!(panel.asked("Get /v1/transactions/").iter().sum::<usize>(), 0);

        panel.behave(Way::Unaware);
        panel.ready.send_replace(true);
        let slow = panel.wallet(&federation_store::memory(), &words).await;
        assert!(soon(reissued(&slow, 1)).await);
        assert!(panel.asked("Get /v1/transactions/").iter().sum::<usize>() > 0);
        assert_eq!(notes(&quick).await, notes(&slow).await, "{n} guardians");
    }
}

#[tokio::test]
async fn one_that_is_of_no_use_is_worked_around() {
    use Way::{Babbles, Behind, Down, Exchanged, Fewer, Malformed, SaysOver, Silent, Unaware, Wrong};
    for way in [Wrong, Exchanged, Malformed, Fewer, Babbles, SaysOver, Silent, Behind, Unaware, Down] {
        for place in [0, 2] {
            let mut ways = [Way::Honest; 4];
            ways[place] = way;
            let panel = Panel::new(&ways);
            let client = panel.new_wallet().await;
            let begun = Instant::now();
            assert!(soon(reissued(&client, 1)).await, "{way:?} at {place}");
            assert!(begun.elapsed() < Duration::from_secs(10), "{way:?} at {place}");
            assert_eq!(panel.asked("mint/shares"), [1; 4], "{way:?} at {place}");
            // Whoever lied, was down or silent is asked last from now on.
            if matches!(way, Wrong | Exchanged | Malformed | Down | Silent | Behind) {
                assert!(soon(reissued(&client, 2)).await);
                let mut asked = [2; 4];
                asked[place] = 1;
                assert_eq!(panel.asked("mint/shares"), asked, "{way:?} at {place}");
            }
            assert!(!*panel.ready.borrow());
        }
    }
}

#[tokio::test]
async fn two_of_seven_may_be_of_no_use() {
    use Way::{Down, Exchanged, Malformed, Silent, Unaware, Wrong};
    for (first, second) in [(Wrong, Wrong), (Exchanged, Silent), (Malformed, Down), (Unaware, Wrong)] {
        let mut ways = [Way::Honest; 7];
        (ways[1], ways[4]) = (first, second);
        let panel = Panel::new(&ways);
        let client = panel.new_wallet().await;
        assert!(soon(reissued(&client, 1)).await, "{first:?}, {second:?}");
        assert_eq!(panel.asked("mint/shares"), [1; 7], "{first:?}, {second:?}");
    }
}

#[tokio::test]
async fn one_that_is_slow_is_not_waited_for() {
    let panel = Panel::new(&[Way::Slow, Way::Honest, Way::Honest, Way::Honest]);
    let client = panel.new_wallet().await;
    let begun = Instant::now();
    assert!(soon(reissued(&client, 1)).await);
    assert!(begun.elapsed() < SLOW);
    assert_eq!(panel.asked("mint/shares"), [1; 4]);
}

#[tokio::test]
async fn one_that_speaks_too_early_hurries_nobody() {
    use Way::{Babbles, Empty, Fewer, Honest, Later, SaysOver};
    // (The honest one here signs before anything is accepted.)
    for early in [Honest, Empty, Fewer, Babbles, SaysOver] {
        let panel = Panel::new(&[early, Later, Later, Later]);
        let client = panel.new_wallet().await;
        let begun = Instant::now();
        assert!(soon(reissued(&client, 1)).await, "{early:?}");
        assert!(begun.elapsed() >= LATER, "{early:?}");
        // The others are not late: nobody is asked beside them, and nobody for the outcome.
        let fourth = usize::from(early != Honest);
        assert_eq!(panel.asked("mint/shares"), [1, 1, 1, fourth], "{early:?}");
        assert_eq!(panel.asked("Get /v1/transactions/").iter().sum::<usize>(), 0, "{early:?}");
    }
}

#[tokio::test]
async fn fewer_than_the_threshold_leave_it_to_the_outcomes() {
    use Way::{Behind, Down, Exchanged, Silent, Unaware, Wrong};
    for way in [Wrong, Exchanged, Silent, Behind, Unaware, Down] {
        let panel = Panel::new(&[Way::Honest, way, Way::Honest, way]);
        let client = panel.new_wallet().await;
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { reissued(&client, 1).await }
        });
        // As soon as it is clear that it is needed the ordinary way is under way, beside the other.
        soon(async {
            while panel.asked("Get /v1/transactions/").iter().sum::<usize>() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            true
        })
        .await;
        assert!(!waiting.is_finished() && notes(&client).await.is_empty(), "{way:?}");
        panel.ready.send_replace(true);
        let begun = Instant::now();
        assert!(soon(async { waiting.await.unwrap() }).await, "{way:?}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{way:?}: the other way kept it");
        assert_eq!(client.balance().await.unwrap(), msat(700));
        assert!(panel.asked("mint/shares").iter().all(|count| *count == 1), "{way:?}: asked again");
    }
}

#[tokio::test]
async fn what_pays_somebody_has_its_change_at_once() {
    let panel = Panel::new(&[Way::Honest; 4]);
    let client = panel.new_wallet().await;
    let output = (super::pay::contract_output(100), Worth::free(msat(100)));
    let done = async {
        client.transact([1; 32], vec![free_money(700)], vec![output]).await.unwrap();
        client.settled([1; 32]).await.is_ok()
    };
    assert!(soon(done).await);
    assert_eq!(client.balance().await.unwrap(), msat(600));
    assert_eq!(panel.asked("Get /v1/transactions/").iter().sum::<usize>(), 0);
}

#[tokio::test]
async fn a_crash_in_between_loses_nothing() {
    use Way::{Honest, Silent};
    // With no share there, and with all but one.
    for ways in [[Silent; 4], [Honest, Honest, Silent, Silent]] {
        let panel = Panel::new(&ways);
        let (db, words) = (federation_store::memory(), Words::generate().unwrap());
        let client = panel.wallet(&db, &words).await;
        let output = (super::pay::contract_output(100), Worth::free(msat(100)));
        let begin = client.transact([1; 32], vec![free_money(700)], vec![output]);
        // Long enough to be asked.
        let asked = async {
            while panel.asked("mint/shares").iter().sum::<usize>() < 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            _ = begin => {}
            () = asked => {}
        }
        // All of its tasks end with it.
        drop(client);
        panel.behave(Honest);
        let client = panel.wallet(&db, &words).await;
        assert!(soon(async { client.settle_all(SOON).await.unwrap() }).await);
        assert_eq!(client.balance().await.unwrap(), msat(600));
        assert!(!*panel.ready.borrow());
        let done = client.transact([1; 32], Vec::new(), Vec::new()).await.unwrap();
        assert!(panel.accepted.lock().unwrap().keys().eq([&done]), "one transaction");
    }
}

//! Restoring with four guardians, one of which lies, withholds, lags or is down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use federation_core::PeerId;
use federation_core::backup::Backup;
use serde_json::{Value, json};

use super::{Wallet, msat};
use crate::api::{CallError, FederationApi, Request, Transport};
use crate::store::NOTES;
use crate::testing::{GUARDIAN, World, config};
use crate::{Client, ClientError};

const SOON: Duration = Duration::from_secs(10);

/// What guardian 3 does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// Knows of no note.
    Withholds,
    /// Claims that all numbers were issued, and serves another note's signature.
    Invents,
    /// Claims that all numbers were issued and wait for their signatures.
    Promises,
    /// Serves right signatures under wrong denominations.
    Exaggerates,
    /// Says that all notes are spent.
    Spends,
    /// The same, and that there are more of them without end.
    Endless,
    /// Says that nothing is spent.
    Unspends,
    /// Answers with too few lines.
    Shortens,
    Down,
    /// Serves the first backup for ever.
    OldBackup,
    /// Serves another content under the right signature.
    FalseBackup,
    /// Knows of no backup.
    NoBackup,
    /// Serves something that is none.
    Babbles,
    /// Does not answer about backups.
    MuteAboutBackups,
}

const LIES: [Lie; 9] = [
    Lie::Withholds,
    Lie::Invents,
    Lie::Promises,
    Lie::Exaggerates,
    Lie::Spends,
    Lie::Endless,
    Lie::Unspends,
    Lie::Shortens,
    Lie::Down,
];

/// Four guardians of one mind, but for the last one.
struct Four {
    world: Arc<World>,
    lies: BTreeMap<String, Lie>,
    nonces: Vec<String>,
}

impl Four {
    fn twist(&self, lie: Lie, request: &Request, answer: Value) -> Value {
        if request.path.contains("/mint/issued") {
            let notes = answer["notes"].as_array().unwrap().clone();
            let real = notes.iter().find(|note| !note.is_null()).cloned();
            let notes: Vec<Value> = match lie {
                Lie::Withholds => notes.iter().map(|_| Value::Null).collect(),
                Lie::Invents => notes.iter().map(|_| json!(real)).collect(),
                Lie::Promises => {
                    let pending =
                        json!({ "txid": "00".repeat(32), "index": 0, "denomination": 14, "outcome": null });
                    notes.iter().map(|_| pending.clone()).collect()
                }
                Lie::Exaggerates => {
                    let more = |mut note: Value| {
                        if !note.is_null() {
                            note["denomination"] = json!(14);
                        }
                        note
                    };
                    notes.into_iter().map(more).collect()
                }
                Lie::Shortens => notes.into_iter().skip(1).collect(),
                _ => notes,
            };
            return json!({ "notes": notes });
        }
        if let Some((_, prefix)) = request.path.split_once("/mint/spent?prefix=") {
            let prefix = prefix.split('&').next().unwrap();
            return match lie {
                Lie::Spends | Lie::Endless => {
                    let ours = self.nonces.iter().filter(|nonce| nonce.starts_with(prefix));
                    json!({ "nonces": ours.collect::<Vec<_>>(), "more": lie == Lie::Endless })
                }
                Lie::Unspends => json!({ "nonces": [], "more": false }),
                _ => answer,
            };
        }
        if request.path.contains("/v1/backups/") {
            let first = || self.world.backups().first().cloned().unwrap();
            return match lie {
                Lie::OldBackup => json!(first()),
                Lie::FalseBackup => {
                    let version = u64::MAX;
                    json!(federation_core::backup::Backup { version, ..first() })
                }
                Lie::Babbles => json!({ "key": 7 }),
                _ => answer,
            };
        }
        answer
    }
}

struct Way(Arc<Four>, Arc<dyn Transport>);

#[async_trait]
impl Transport for Way {
    async fn call(&self, base: &str, request: &Request, limit: Duration) -> Result<Value, CallError> {
        let lie = self.0.lies.get(base).copied();
        if lie == Some(Lie::Down) {
            return Err(CallError::Down("down".into()));
        }
        if lie == Some(Lie::MuteAboutBackups) && request.path.contains("/v1/backups/") {
            return Err(CallError::Down("down".into()));
        }
        if lie == Some(Lie::NoBackup) && request.path.contains("/v1/backups/") {
            let code = "unknown_backup".to_owned();
            return Err(CallError::Refused { status: 404, detail: code.clone(), code });
        }
        let answer = self.1.call(GUARDIAN, request, limit).await?;
        Ok(lie.map_or(answer.clone(), |lie| self.0.twist(lie, request, answer)))
    }

    fn apart(&self) -> crate::Result<Arc<dyn Transport>> {
        Ok(Arc::new(Way(self.0.clone(), self.0.world.apart()?)))
    }
}

async fn restore(of: &Wallet, lies: &[(u16, Lie)]) -> crate::Result<Client> {
    let url = |peer: u16| format!("http://{peer}");
    let nonces = NOTES.all(&*of.db).await.unwrap().into_iter().map(|(nonce, _)| hex::encode(nonce)).collect();
    let lies = lies.iter().map(|(peer, lie)| (url(*peer), *lie)).collect();
    let four = Arc::new(Four { world: of.world.clone(), lies, nonces });
    let urls = (0..4).map(|peer| (PeerId(peer), url(peer))).collect();
    let transport = Arc::new(Way(four, of.world.clone()));
    let api = FederationApi::new(transport, urls, 0);
    let client =
        Client::assemble(federation_store::memory(), api, config(), of.words.seed().unwrap()).unwrap();
    client.run_restore(|_| {}).await.map(|_| client)
}

async fn alice(world: &Arc<World>) -> Wallet {
    let (alice, bob) = (Wallet::with(world, 10_000).await, Wallet::new(world).await);
    let sent = alice.client.send(msat(2345), "").await.unwrap();
    bob.client.receive(&sent.ecash, "").await.unwrap();
    assert!(alice.client.settle_all(Duration::from_secs(10)).await.unwrap());
    alice
}

#[tokio::test]
async fn one_liar_injects_nothing_and_hides_nothing() {
    let world = World::new();
    let alice = alice(&world).await;
    for lie in LIES {
        for peer in [0, 3] {
            let lies = [(peer, lie)];
            let restoring = restore(&alice, &lies);
            let client = tokio::time::timeout(Duration::from_secs(60), restoring).await.unwrap().unwrap();
            assert_eq!(
                client.balance().await.unwrap(),
                alice.client.balance().await.unwrap(),
                "{lie:?} {peer}"
            );
        }
    }
}

#[tokio::test]
async fn one_guardian_that_answers_rightly_is_enough_for_what_is_proven() {
    let world = World::new();
    let alice = alice(&world).await;
    // More than f liars: the signatures that one serves are proof all the same.
    let client = restore(&alice, &[(0, Lie::Withholds), (1, Lie::Withholds), (2, Lie::Exaggerates)]).await;
    // (Who asks three of four may not have met him; then the fourth is asked, since somebody claims more.)
    let balance = client.unwrap().balance().await.unwrap();
    assert_eq!(balance, alice.client.balance().await.unwrap());
}

#[tokio::test]
async fn with_two_down_nothing_is_given_up() {
    let world = World::new();
    let alice = alice(&world).await;
    // Three must have said that there is nothing more.
    let result = restore(&alice, &[(0, Lie::Down), (1, Lie::Down)]).await.map(|_| ());
    assert!(matches!(result, Err(ClientError::Unreachable(_))), "{result:?}");
}

#[tokio::test]
async fn the_newest_backup_wins_whoever_lies() {
    let world = World::new();
    let alice = alice(&world).await;
    assert!(alice.client.finish_backup(SOON).await.unwrap());
    alice.client.send(msat(11), "the second one").await.unwrap();
    assert!(alice.client.finish_backup(SOON).await.unwrap());
    assert_eq!(world.backups().len(), 2);
    // (What was received shows as claimed, since its notes are gone.)
    let ids = async |client: &Client| -> Vec<(String, String)> {
        let history = client.history().await.unwrap().into_iter();
        history.map(|entry| (entry.id, entry.memo)).collect()
    };
    let history = ids(&alice.client).await;
    assert_eq!(history.len(), 2);
    for lie in [Lie::OldBackup, Lie::FalseBackup, Lie::NoBackup, Lie::Babbles, Lie::Down] {
        for peer in [0, 3] {
            let client = restore(&alice, &[(peer, lie)]).await.unwrap();
            assert_eq!(ids(&client).await, history, "{lie:?} {peer}");
            assert_eq!(client.balance().await.unwrap(), alice.client.balance().await.unwrap());
        }
    }
    // One that has it is enough.
    let most = [(0, Lie::OldBackup), (1, Lie::NoBackup), (2, Lie::Babbles)];
    assert_eq!(ids(&restore(&alice, &most).await.unwrap()).await, history);
    // Without any the notes come back all the same, those of the string among them.
    let all = [0, 1, 2, 3].map(|peer| (peer, Lie::NoBackup));
    let bare = restore(&alice, &all).await.unwrap();
    assert!(bare.history().await.unwrap().is_empty());
    assert_eq!(bare.balance().await.unwrap().msat(), alice.balance().await + 11);
}

#[tokio::test(start_paused = true)]
async fn without_enough_word_about_the_backup_there_is_no_wallet_to_overwrite_it() {
    let world = World::new();
    let alice = alice(&world).await;
    assert!(alice.client.finish_backup(SOON).await.unwrap());
    // The one that answers may be the one that does not have it.
    for lies in [
        [(0, Lie::MuteAboutBackups), (1, Lie::MuteAboutBackups), (2, Lie::NoBackup)],
        [(3, Lie::MuteAboutBackups), (1, Lie::MuteAboutBackups), (2, Lie::NoBackup)],
    ] {
        let result = restore(&alice, &lies).await.map(drop);
        assert!(matches!(result, Err(ClientError::Unreachable(_))), "{result:?}");
        let restored = restore(&alice, &lies[..1]).await.unwrap();
        assert_eq!(restored.history().await.unwrap().len(), 1);
    }
    assert_eq!(world.backups().len(), 1);
}

#[tokio::test]
async fn a_newest_backup_that_cannot_be_read_is_not_gone_around() {
    let world = World::new();
    let alice = alice(&world).await;
    assert!(alice.client.finish_backup(SOON).await.unwrap());
    let (seed, federation) = (alice.words.seed().unwrap(), config().id());
    let key = crate::words::derive_key(&seed, federation, "cln-federation/client/backup", 0).unwrap();
    let old = world.backups().remove(0);
    // As if a newer version of this program had written it.
    let newer = Backup::sign(federation, &key, old.version + 1, old.work, old.sealed);
    let write = Request::post("/v1/backups", json!(newer));
    world.call(GUARDIAN, &write, SOON).await.unwrap();
    // An older one that can be read does not stand for it.
    let unreadable = |error: &ClientError| matches!(error, ClientError::BadAnswer { reason, .. } if reason.contains("newer version"));
    let result = restore(&alice, &[(0, Lie::OldBackup)]).await.map(drop);
    assert!(result.as_ref().is_err_and(unreadable), "{result:?}");
    let db = federation_store::memory();
    let result = super::restore::restore(&world, &db, &alice).await.map(drop);
    assert!(result.as_ref().is_err_and(unreadable), "{result:?}");
    let open = Client::open_over(db, &alice.words, world.clone()).await.map(drop);
    assert!(matches!(open, Err(ClientError::RestoreUnfinished)), "{open:?}");
    assert_eq!(world.backups().len(), 2);
}

//! Wallets from their words alone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use federation_core::db::Database;

use super::engine::free_money;
use super::mortal::Mortal;
use super::{Wallet, msat};
use crate::restore::{DEPOSIT_GAP, GAP, Restored};
use crate::store::{ADDRESSES, FOUND, NEXT, NOTES, RESTORE, SENT, counter};
use crate::testing::{Fault, World, fund};
use crate::{Client, ClientError};

impl Wallet {
    /// The same wallet from its words, in a folder of its own.
    pub async fn restored(&self) -> (Wallet, Restored) {
        let db = federation_store::memory();
        let (client, restored) = restore(&self.world, &db, self).await.unwrap();
        let (world, words) = (self.world.clone(), self.words.clone());
        (Wallet { world, db, words, client }, restored)
    }

    async fn nonces(&self) -> BTreeSet<[u8; 32]> {
        NOTES.all(&*self.db).await.unwrap().into_iter().map(|(nonce, _)| nonce).collect()
    }
}

pub async fn restore(
    world: &Arc<World>,
    db: &Arc<dyn Database>,
    of: &Wallet,
) -> crate::Result<(Client, Restored)> {
    Client::restore_over(db.clone(), &of.words, &World::invite(), world.clone(), |_| {}).await
}

/// Two wallets after some payments; what Alice has sent and nobody has received.
pub async fn some_life(world: &Arc<World>) -> (Wallet, Wallet, u64) {
    let (alice, bob) = (Wallet::with(world, 10_000).await, Wallet::with(world, 3_000).await);
    for (from, to, amount) in [(&alice, &bob, 1234), (&bob, &alice, 77), (&alice, &bob, 4000)] {
        let sent = from.client.send(msat(amount), "").await.unwrap();
        to.client.receive(&sent.ecash, "").await.unwrap();
    }
    alice.client.send(msat(55), "").await.unwrap();
    assert!(alice.client.settle_all(Duration::from_secs(10)).await.unwrap());
    (alice, bob, 55)
}

#[tokio::test]
async fn all_that_is_unspent_comes_back() {
    let world = World::new();
    let (alice, bob, unclaimed) = some_life(&world).await;
    let (alice2, restored) = alice.restored().await;
    let (bob2, _) = bob.restored().await;
    assert_eq!(alice2.balance().await, alice.balance().await + unclaimed);
    assert_eq!(restored.balance.msat(), alice2.balance().await);
    assert_eq!(bob2.nonces().await, bob.nonces().await);
    assert_eq!(i128::from(alice2.balance().await + bob2.balance().await), world.circulating());
    assert!(FOUND.all(&*alice2.db).await.unwrap().is_empty());
    assert_eq!(
        NEXT.get(&*alice2.db, &counter::NOTES).await.unwrap(),
        NEXT.get(&*alice.db, &counter::NOTES).await.unwrap()
    );
    // Numbers go on where they were: the federation would not sign one twice.
    let sent = alice2.client.send(msat(3333), "").await.unwrap();
    bob2.client.receive(&sent.ecash, "").await.unwrap();
    assert_eq!(i128::from(alice2.balance().await + bob2.balance().await), world.circulating());
    // Preimages and contract keys are never used again, though nobody can say which were.
    assert!(NEXT.get(&*alice2.db, &counter::INCOMING).await.unwrap().unwrap() > 1 << 40);
}

#[tokio::test]
async fn a_wallet_that_is_there_is_left_alone() {
    let world = World::new();
    let alice = Wallet::with(&world, 1000).await;
    let again = restore(&world, &alice.db, &alice).await.map(|_| ());
    assert!(matches!(again, Err(ClientError::WalletExists)), "{again:?}");
    assert_eq!(alice.balance().await, 1000);
}

#[tokio::test]
async fn an_empty_wallet_is_restored_empty() {
    let world = World::new();
    let alice = Wallet::new(&world).await;
    let (restored, what) = alice.restored().await;
    assert_eq!((what.notes, what.numbers, restored.balance().await), (0, 0, 0));
    fund(&restored.client, 1000).await;
}

#[tokio::test]
async fn no_request_and_no_connection_carries_both_lookups() {
    let world = World::new();
    let (alice, _, _) = some_life(&world).await;
    world.log();
    alice.restored().await;
    let log = world.log();
    let with = |part: &str| -> BTreeSet<usize> {
        let of = log.iter().filter(|(_, path)| path.contains(part));
        of.map(|(connection, _)| *connection).collect()
    };
    let (issued, spent) = (with("/mint/issued"), with("/mint/spent"));
    assert!(!issued.is_empty() && !spent.is_empty());
    assert!(issued.is_disjoint(&spent));
    for (connection, path) in &log {
        // Nor anything else that says who asks.
        if issued.contains(connection) {
            assert_eq!(path, "/v1/modules/mint/issued");
        }
        if spent.contains(connection) {
            let prefix = path.strip_prefix("/v1/modules/mint/spent?prefix=");
            assert!(
                prefix.is_some_and(|prefix| prefix.len() <= 8) || path == "/v1/modules/mint/audit",
                "{path}"
            );
        }
    }
    // All of the one before all of the other.
    let last = log.iter().rposition(|(_, path)| path.contains("issued")).unwrap();
    let first = log.iter().position(|(_, path)| path.contains("spent?")).unwrap();
    assert!(last < first);
}

#[tokio::test]
async fn a_crash_at_any_commit_loses_and_doubles_nothing() {
    let world = World::new();
    let (alice, _, unclaimed) = some_life(&world).await;
    assert!(alice.client.finish_backup(Duration::from_secs(10)).await.unwrap());
    let (whole, _) = alice.restored().await;
    let history = whole.client.history().await.unwrap();
    assert!(history.len() >= 4);
    let mut crashes = 0;
    for commits in 1.. {
        let mut died = false;
        for after in [false, true] {
            let inner: Arc<dyn Database> = federation_store::memory();
            let mortal = Mortal::at(&inner, commits, after);
            let first = restore(&world, &mortal, &alice).await;
            let unfinished = RESTORE.contains(&*inner, &()).await.unwrap();
            if first.is_ok() {
                continue;
            }
            (died, crashes) = (true, crashes + 1);
            drop(first);
            if unfinished {
                // Nobody spends from half a wallet.
                let open = Client::open_over(inner.clone(), &alice.words, world.clone()).await;
                assert!(matches!(open.map(|_| ()), Err(ClientError::RestoreUnfinished)));
            }
            match restore(&world, &inner, &alice).await {
                Ok(_) => {}
                // The last commit was made: it is a wallet.
                Err(ClientError::WalletExists) => assert!(after && !unfinished),
                Err(error) => panic!("{error}"),
            }
            let client = world.open(&inner, &alice.words).await;
            assert!(client.settle_all(Duration::from_secs(10)).await.unwrap());
            let balance = client.balance().await.unwrap().msat();
            assert_eq!(balance, alice.balance().await, "{commits} {after}");
            let sent = SENT.all(&*inner).await.unwrap().into_iter();
            let sent: u64 = sent.map(|(_, held)| held.denomination.amount().msat()).sum();
            assert_eq!(sent, unclaimed, "{commits} {after}");
            assert_eq!(client.history().await.unwrap(), history);
            let nonces: BTreeSet<_> = NOTES.all(&*inner).await.unwrap().into_iter().map(|(n, _)| n).collect();
            assert_eq!(nonces, whole.nonces().await);
        }
        if !died {
            break;
        }
    }
    assert!(crashes >= 10, "{crashes}");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_signed_yet_comes_later() {
    let world = World::new();
    let alice = Wallet::with(&world, 1000).await;
    world.sign(false);
    let (mut restored, what) = alice.restored().await;
    assert_eq!((restored.balance().await, what.pending), (0, msat(1000)));
    assert!(!restored.client.settle_all(Duration::from_millis(10)).await.unwrap());
    restored.restart().await;
    world.sign(true);
    assert!(restored.client.settle_all(Duration::from_secs(60)).await.unwrap());
    assert_eq!((restored.balance().await, restored.client.incoming().await.unwrap()), (1000, msat(0)));
    // Once it can be spent it is not counted twice.
    restored.restart().await;
    assert_eq!(restored.balance().await, 1000);
}

#[tokio::test]
async fn refused_transactions_never_lead_beyond_the_gap() {
    let world = World::new();
    let alice = Wallet::with(&world, 10_000).await;
    let next = || async { NEXT.get(&*alice.db, &counter::NOTES).await.unwrap().unwrap() };
    let issued = next().await;
    let mut beyond = 0;
    for refusal in 0..200u8 {
        world.fault("/v1/transactions", Fault::Refused("issuance_limit"));
        let refused = alice.client.transact([refusal; 32], vec![free_money(777)], Vec::new()).await;
        assert!(
            matches!(&refused, Err(ClientError::Rejected { code, .. }) if code == "issuance_limit"),
            "{refused:?}"
        );
        assert!(next().await <= issued + GAP);
        beyond += u8::from(next().await == issued + GAP);
        if beyond == 20 {
            break;
        }
    }
    assert_eq!(beyond, 20);
    assert_eq!(alice.balance().await, 10_000);
    let sent = alice.client.send(msat(4321), "").await.unwrap();
    assert!(alice.client.settle_all(Duration::from_secs(10)).await.unwrap());
    let (restored, _) = alice.restored().await;
    assert_eq!(restored.balance().await, 10_000);
    // Fresh numbers are to be had again.
    restored.client.receive(&sent.ecash, "").await.unwrap();
    assert_eq!(world.circulating(), 10_000);
}

#[tokio::test]
async fn too_much_under_way_waits_rather_than_go_beyond_the_gap() {
    let world = World::new();
    let alice = Wallet::with(&world, 10_000).await;
    let mut batch = federation_store::WriteBatch::new(alice.db.clone());
    let next = NEXT.get(&*alice.db, &counter::NOTES).await.unwrap().unwrap();
    NEXT.put(&mut batch, &counter::NOTES, &(next + GAP));
    let result = alice.client.take_numbers(&mut batch, 1).await;
    assert!(matches!(result, Err(ClientError::TooManyPending)), "{result:?}");
}

#[tokio::test]
async fn a_copy_finds_its_numbers_used_and_goes_on() {
    let world = World::new();
    let old = Wallet::with(&world, 5000).await;
    let (new, _) = old.restored().await;
    // The new one asks for notes, and the old one, which should not be used any more, knows nothing of it.
    fund(&new.client, 3000).await;
    world.allow_copies();
    fund(&old.client, 2000).await;
    assert!(old.client.settle_all(Duration::from_secs(10)).await.unwrap());
    // It has what it asked for, and has found what the other one has.
    assert_eq!(old.balance().await, 10_000);
    assert_eq!(world.circulating(), 10_000);
    // And the other way round.
    fund(&new.client, 500).await;
    assert!(new.client.settle_all(Duration::from_secs(10)).await.unwrap());
    assert_eq!((new.balance().await, world.circulating()), (10_500, 10_500));
    let sent = new.client.send(msat(8000 - 3), "").await.unwrap();
    let bob = Wallet::new(&world).await;
    bob.client.receive(&sent.ecash, "").await.unwrap();
    let (fresh, _) = old.restored().await;
    assert_eq!(i128::from(fresh.balance().await + bob.balance().await), world.circulating());
}

#[tokio::test]
async fn a_copy_that_is_killed_while_it_goes_on_loses_nothing() {
    let world = World::new();
    let old = Wallet::with(&world, 5000).await;
    let (new, _) = old.restored().await;
    fund(&new.client, 3000).await;
    world.allow_copies();
    let inner = old.db.clone();
    for commits in 1.. {
        let mortal = Mortal::at(&inner, commits, commits % 2 == 0);
        let client = world.open(&mortal, &old.words).await;
        let sending = tokio::time::timeout(Duration::from_secs(3), client.send(msat(1003), "")).await;
        let done = matches!(sending, Ok(Ok(_)));
        drop(client);
        let client = world.open(&inner, &old.words).await;
        assert!(client.settle_all(Duration::from_secs(20)).await.unwrap());
        let wallet = Wallet { world: world.clone(), db: inner.clone(), words: old.words.clone(), client };
        let found = NEXT.get(&*inner, &counter::NOTES).await.unwrap()
            >= NEXT.get(&*new.db, &counter::NOTES).await.unwrap();
        let expected = if found { 8000 } else { 5000 };
        assert_eq!(wallet.balance().await + wallet.sent().await, expected, "{commits}");
        if done || commits > 6 {
            break;
        }
    }
    assert_eq!(world.circulating(), 8000);
}

#[tokio::test]
async fn deposit_addresses_are_found_again() {
    let world = World::new();
    let alice = Wallet::new(&world).await;
    let mut addresses = Vec::new();
    for _ in 0..DEPOSIT_GAP + 3 {
        addresses.push(alice.client.deposit_address().await.unwrap());
    }
    // None is beyond what a restore would find.
    assert!(addresses.iter().all(|address| address.key < DEPOSIT_GAP));
    let paid = &addresses[7];
    let (key, address) = alice.client.deposit_place(paid.key).unwrap();
    assert_eq!(address, paid.address);
    world.deposit(&key.to_string(), 50_000);
    let (restored, _) = alice.restored().await;
    let known = ADDRESSES.all(&*restored.db).await.unwrap();
    assert_eq!(known.len() as u32, 8 + DEPOSIT_GAP);
    assert!(known.contains(&(paid.key, paid.address.clone())));
    let seen = restored.client.check_deposits().await.unwrap();
    assert_eq!((seen.len(), seen[0].amount_sat), (1, 50_000));
    // A fresh address is none that was paid to.
    assert!(restored.client.deposit_address().await.unwrap().key > paid.key);
}

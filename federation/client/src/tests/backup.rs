//! What the words alone do not bring back.

use std::collections::BTreeSet;
use std::time::Duration;

use super::pay::{COST, invoice};
use super::restore::{restore, some_life};
use super::{Wallet, msat};
use crate::ops::{Kind, pay};
use crate::restore::Restored;
use crate::store::OPERATIONS;
use crate::testing::{Fault, GatewayMood, PREIMAGE, World};
use crate::{Client, ClientError};

const SOON: Duration = Duration::from_secs(10);

/// The same wallet in another folder, when the first one is gone.
pub(super) async fn lost(wallet: Wallet) -> (Wallet, Restored) {
    let Wallet { world, words, client, .. } = wallet;
    drop(client);
    let db = federation_store::memory();
    let invite = World::invite();
    let restoring = Client::restore_over(db.clone(), &words, &invite, world.clone(), |_| {});
    let (client, restored) = restoring.await.unwrap();
    (Wallet { world, db, words, client }, restored)
}

/// Waits for the end of the only payment of a wallet.
async fn paid(wallet: &Wallet) -> crate::Result<pay::Paid> {
    let all = OPERATIONS.all(&*wallet.db).await.unwrap().into_iter();
    let mut payments = all.filter(|(_, operation)| matches!(operation.kind, Kind::Pay(_)));
    let (op, _) = payments.next().expect("a payment");
    assert!(payments.next().is_none());
    tokio::time::timeout(SOON, wallet.client.wait_paid(op)).await.unwrap()
}

#[tokio::test]
async fn history_comes_back_and_sent_strings_stay_sent() {
    let world = World::new();
    let (alice, bob, unclaimed) = some_life(&world).await;
    assert!(alice.client.backup_status().await.unwrap().is_due);
    assert!(alice.client.finish_backup(SOON).await.unwrap());
    let status = alice.client.backup_status().await.unwrap();
    assert!(
        !status.is_due && status.last.at > 0 && status.last.kept_by == 1 && status.last.problem.is_empty()
    );
    let (restored, what) = alice.restored().await;
    let (before, after) = (alice.client.history().await.unwrap(), restored.client.history().await.unwrap());
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        // Of strings that were received the notes are gone.
        let received = before.kind == "send" && before.amount_msat != msat(unclaimed);
        let status = if received { "claimed" } else { before.status };
        assert_eq!(*after, crate::Entry { status, ..before.clone() });
    }
    assert_eq!((restored.balance().await, restored.sent().await), (alice.balance().await, unclaimed));
    assert_eq!((what.sent, what.answered), (msat(unclaimed), 1));
    let last = after.iter().find(|entry| entry.status == "sent").unwrap();
    let op = restored.client.find_operation(&last.id).await.unwrap();
    assert_eq!(restored.client.sent(op).await.unwrap(), alice.client.sent(op).await.unwrap());
    assert_eq!(restored.client.reclaim(op).await.unwrap(), msat(unclaimed));
    assert!(restored.client.settle_all(SOON).await.unwrap());
    assert_eq!(i128::from(restored.balance().await + bob.balance().await), world.circulating());
}

#[tokio::test]
async fn a_payment_under_way_comes_back_from_what_was_written_before_it() {
    for (mood, balance) in [
        (GatewayMood::Pays, 20_000 - COST),
        (GatewayMood::TakesSilently, 20_000 - COST),
        (GatewayMood::Cancels, 20_000 - 3 - 2),
    ] {
        let world = World::new();
        let alice = Wallet::with(&world, 20_000).await;
        world.gateway(GatewayMood::Babbles);
        alice.client.begin_pay(&invoice(5000), None, "shoes").await.unwrap();
        assert_eq!(paid(&alice).await.map(drop).unwrap_err().code(), "payment_pending");
        // Nothing was written since the money was locked.
        assert_eq!(world.backups().len(), 1);
        world.gateway(mood);
        let (restored, what) = lost(alice).await;
        assert_eq!(what.operations, 1);
        match (mood, paid(&restored).await) {
            (GatewayMood::Cancels, result) => {
                assert!(matches!(result, Err(ClientError::PaymentFailed(_))), "{result:?}");
            }
            (_, result) => assert_eq!(result.unwrap().preimage, PREIMAGE),
        }
        assert!(restored.client.settle_all(SOON).await.unwrap());
        assert_eq!(restored.balance().await, balance, "{mood:?}");
        let entry = restored.client.history().await.unwrap().remove(0);
        assert_eq!((entry.memo.as_str(), entry.open), ("shoes", false));
        // The same invoice is known again.
        let again = restored.client.pay(&invoice(5000), None, "").await;
        match mood {
            GatewayMood::Cancels => assert!(matches!(again, Err(ClientError::PaymentFailed(_))), "{again:?}"),
            _ => assert!(matches!(again, Err(ClientError::InvoicePaid)), "{again:?}"),
        }
    }
}

#[tokio::test]
async fn a_payment_that_never_began_stays_in_doubt_and_costs_nothing() {
    let world = World::new();
    let alice = Wallet::with(&world, 20_000).await;
    for _ in 0..3 {
        world.fault("/v1/transactions", Fault::Down);
    }
    alice.client.begin_pay(&invoice(5000), None, "").await.unwrap();
    let (restored, _) = lost(alice).await;
    assert_eq!(restored.balance().await, 20_000);
    let result = paid(&restored).await;
    assert!(matches!(&result, Err(ClientError::PaymentPending(_))), "{result:?}");
    assert_eq!(restored.balance().await, 20_000);
}

#[tokio::test]
async fn an_old_backup_is_harmless() {
    let world = World::new();
    let (alice, bob) = (Wallet::with(&world, 20_000).await, Wallet::new(&world).await);
    let save = async || assert!(alice.client.finish_backup(SOON).await.unwrap());
    // One string is received, one is taken back, one is left; one payment is made, one is refunded.
    let first = alice.client.send(msat(1001), "").await.unwrap();
    save().await;
    bob.client.receive(&first.ecash, "").await.unwrap();
    let second = alice.client.send(msat(502), "").await.unwrap();
    save().await;
    alice.client.reclaim(second.operation).await.unwrap();
    save().await;
    let back = bob.client.send(msat(7), "").await.unwrap();
    alice.client.receive(&back.ecash, "").await.unwrap();
    save().await;
    world.gateway(GatewayMood::Cancels);
    alice.client.pay(&invoice(5000), None, "").await.unwrap_err();
    save().await;
    world.gateway(GatewayMood::Pays);
    alice.client.pay(&invoice(5000), None, "").await.unwrap();
    save().await;
    alice.client.send(msat(33), "").await.unwrap();
    save().await;
    assert!(alice.client.settle_all(SOON).await.unwrap());
    let there = alice.balance().await + 33;
    let written = world.backups().len();
    assert!(written >= 9, "{written}");
    // The federation decides alone.
    world.gateway(GatewayMood::Gone);
    // From the newest to the oldest, and to none at all.
    for keep in (0..=written).rev() {
        world.forget_backups(keep);
        let db = federation_store::memory();
        let (client, what) = restore(&world, &db, &alice).await.unwrap();
        let restored = Wallet { world: world.clone(), db, words: alice.words.clone(), client };
        assert!(restored.client.settle_all(SOON).await.unwrap());
        assert_eq!(what.sent, msat(restored.sent().await));
        assert_eq!(restored.balance().await + restored.sent().await, there, "{keep}");
        // Whatever it believes is under way ends, or waits, without moving anything.
        for (op, operation) in OPERATIONS.all(&*restored.db).await.unwrap() {
            if let Kind::Pay(_) = operation.kind {
                let result = tokio::time::timeout(SOON, restored.client.wait_paid(op)).await.unwrap();
                assert!(matches!(result, Ok(_) | Err(ClientError::PaymentFailed(_))), "{keep} {result:?}");
            }
        }
        assert_eq!(restored.balance().await + restored.sent().await, there, "{keep}");
    }
}

#[tokio::test]
async fn a_backup_that_fails_keeps_nothing_from_happening() {
    let world = World::new();
    let alice = Wallet::with(&world, 20_000).await;
    world.fault("/v1/backups", Fault::Down);
    alice.client.pay(&invoice(5000), None, "").await.unwrap();
    assert!(world.backups().is_empty());
    // Nor does one that takes for ever.
    world.fault("/v1/backups", Fault::Hang);
    alice.client.back_up_first(None).await;
    world.forget_backups(0);
    world.fault("/v1/backups", Fault::Refused("backups_full"));
    assert!(!alice.client.finish_backup(SOON).await.unwrap());
    let status = alice.client.backup_status().await.unwrap();
    assert!(status.is_due && status.last.problem.contains("backups_full"), "{status:?}");
    assert_eq!((status.last.at, status.last.kept_by), (0, 0));
    // The answer is lost: it is written again, under another version.
    world.fault("/v1/backups", Fault::LostAnswer);
    assert!(!alice.client.finish_backup(SOON).await.unwrap());
    assert!(alice.client.finish_backup(SOON).await.unwrap());
    let versions: BTreeSet<u64> = world.backups().iter().map(|backup| backup.version).collect();
    assert_eq!(versions.len(), 2);
}

#[tokio::test]
async fn versions_go_on_after_a_restore() {
    let world = World::new();
    let (alice, _, _) = some_life(&world).await;
    assert!(alice.client.finish_backup(SOON).await.unwrap());
    let (restored, _) = alice.restored().await;
    let work = restored.client.backup_status().await.unwrap().last.work;
    assert_eq!(work, Some(world.backups()[0].work));
    restored.client.send(msat(5), "").await.unwrap();
    assert!(restored.client.finish_backup(SOON).await.unwrap());
    let backups = world.backups();
    assert!(backups.len() == 2 && backups[1].version > backups[0].version);
    // Nothing in it can be told from its length.
    assert!(backups.iter().all(|backup| backup.sealed.len().is_power_of_two()));
}

#[tokio::test]
async fn nothing_else_goes_over_a_backups_connection() {
    let world = World::new();
    let (alice, _, _) = some_life(&world).await;
    assert!(alice.client.finish_backup(SOON).await.unwrap());
    alice.restored().await;
    let log = world.log();
    let of = |backup: bool| -> BTreeSet<usize> {
        let with = log.iter().filter(|(_, path)| path.starts_with("/v1/backups") == backup);
        with.map(|(connection, _)| *connection).collect()
    };
    assert_eq!(of(true).len(), 2);
    assert!(of(true).is_disjoint(&of(false)));
}

#[tokio::test]
async fn an_invoice_that_is_paid_after_the_loss_or_during_it_comes_in() {
    for early in [false, true] {
        let world = World::new();
        let alice = Wallet::with(&world, 20_000).await;
        let made = alice.client.invoice(msat(5000), "cake", None, "birthday").await.unwrap();
        // Written before it could be shown.
        assert_eq!(world.backups().len(), 1);
        if early {
            world.pay_invoice();
        }
        let (restored, what) = lost(alice).await;
        assert_eq!(what.operations, 1);
        if !early {
            world.pay_invoice();
        }
        let waiting = restored.client.wait_invoice(made.operation);
        let amount = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();
        assert_eq!(amount, msat(5000 - 2));
        assert!(restored.client.settle_all(SOON).await.unwrap());
        assert_eq!(restored.balance().await, 25_000 - 2);
        let entry = restored.client.history().await.unwrap().remove(0);
        assert_eq!((entry.status, entry.memo.as_str(), entry.open), ("received", "birthday", false));
        // And once more, from a backup that knows nothing of its end.
        let (again, _) = lost(restored).await;
        let waiting = again.client.wait_invoice(made.operation);
        assert_eq!(tokio::time::timeout(SOON, waiting).await.unwrap().unwrap(), msat(5000));
        assert_eq!((again.balance().await, world.circulating()), (25_000 - 2, 25_000 - 2));
    }
}

#[tokio::test]
async fn a_payment_whose_gateway_is_silent_comes_back_when_it_expires() {
    let world = World::new();
    let alice = Wallet::with(&world, 20_000).await;
    world.gateway(GatewayMood::Babbles);
    alice.client.begin_pay(&invoice(5000), None, "").await.unwrap();
    assert_eq!(paid(&alice).await.map(drop).unwrap_err().code(), "payment_pending");
    let (restored, _) = lost(alice).await;
    assert_eq!(paid(&restored).await.map(drop).unwrap_err().code(), "payment_pending");
    assert_eq!(restored.balance().await, 20_000 - COST);
    world.mine(100_000);
    let end = async {
        loop {
            match paid(&restored).await {
                Err(ClientError::PaymentPending(_)) => {}
                other => break other.map(drop).unwrap_err(),
            }
        }
    };
    let end = tokio::time::timeout(SOON, end).await.unwrap();
    assert!(matches!(&end, ClientError::PaymentFailed(why) if why.contains("expired")), "{end:?}");
    assert!(restored.client.settle_all(SOON).await.unwrap());
    assert_eq!(restored.balance().await, 20_000 - 3 - 2);
    assert_eq!(world.circulating(), 20_000 - 3 - 2);
}

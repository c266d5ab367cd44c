//! Withdrawals that were under way when the wallet was lost: paid once, or their money is back, whoever has their transaction.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::{SECP256K1, SecretKey};
use bitcoin::{Address, Network};
use federation_mint::Denomination;

use super::backup::lost;
use super::engine::free_money;
use super::mortal::Mortal;
use super::{Wallet, msat};
use crate::Client;
use crate::engine::Plan;
use crate::ops::withdraw::{State, Wish, Withdraw};
use crate::ops::{Kind, Operation};
use crate::store::{OPERATIONS, OpId, RESTORED};
use crate::testing::{Fault, WITHDRAWAL_FEE, World};

const SOON: Duration = Duration::from_secs(20);
/// What the wallets begin with, in msat: in large notes, so that a withdrawal has change.
const ALL: u64 = NOTES as u64 * (1 << LARGE);
const NOTES: usize = 60;
const LARGE: u8 = 14;
/// What is withdrawn, in satoshi.
const PAID: u64 = 400;
/// What it takes, in msat.
const TAKEN: u64 = (PAID + WITHDRAWAL_FEE) * 1000;

fn address() -> String {
    let key = SecretKey::from_slice(&[6; 32]).unwrap().x_only_public_key(SECP256K1).0;
    Address::p2tr(SECP256K1, key, None, Network::Regtest).to_string()
}

async fn withdraw(client: &Client) -> crate::Result<()> {
    client.withdraw(&address(), Wish::Sat(PAID), None, "rent").await.map(drop)
}

/// A wallet whose withdrawal a guardian has, and nobody else; with a backup of that.
async fn kept(world: &Arc<World>) -> Wallet {
    let alice = Wallet::new(world).await;
    let notes = vec![Denomination::new(LARGE).unwrap(); NOTES];
    let plan = Plan { notes, ..Plan::new([99; 32], vec![free_money(ALL)], Vec::new()) };
    alice.client.begin(plan, |_, _| Ok(())).await.unwrap();
    alice.client.settled([99; 32]).await.unwrap();
    // The first one takes some work.
    alice.client.backup_is_due().await.unwrap();
    assert!(alice.client.finish_backup(SOON).await.unwrap());
    world.fault("/v1/transactions", Fault::Kept);
    let client = alice.client.clone();
    let withdrawing = tokio::spawn(async move { withdraw(&client).await });
    let arrived = async {
        while world.kept() == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(SOON, arrived).await.unwrap();
    withdrawing.abort();
    // It was written before the transaction left.
    assert_eq!(world.backups().len(), 2);
    assert!(!alice.client.backup_status().await.unwrap().is_due);
    alice
}

/// The only withdrawal that is called so.
async fn withdrawal(wallet: &Wallet, memo: &str) -> (OpId, State) {
    let all = OPERATIONS.all(&*wallet.db).await.unwrap().into_iter();
    let mut found = all.filter_map(|(op, Operation { kind, memo: of, .. })| match kind {
        Kind::Withdraw(Withdraw { state, .. }) if of == memo => Some((op, state)),
        _ => None,
    });
    let only = found.next().expect("a withdrawal");
    assert!(found.next().is_none());
    only
}

async fn settled(wallet: &Wallet) {
    assert!(wallet.client.settle_all(SOON).await.unwrap());
    assert!(wallet.is_settled().await);
}

#[tokio::test]
async fn what_one_guardian_kept_to_itself_is_never_paid_beside_another_one() {
    let world = World::new();
    let (restored, what) = lost(kept(&world).await).await;
    assert_eq!(what.operations, 1);
    settled(&restored).await;
    assert!(
        matches!(withdrawal(&restored, "rent").await.1, State::Failed { code, .. } if code == "not_made")
    );
    assert_eq!(restored.balance().await, ALL);
    // With all there is, so that no note is left out.
    restored.client.withdraw(&address(), Wish::All, None, "again").await.unwrap();
    settled(&restored).await;
    assert_eq!(world.paid_out(), [ALL / 1000 - WITHDRAWAL_FEE]);
    assert_eq!(world.hand_in(), [Some("double_spend".to_owned())]);
    assert_eq!(world.paid_out().len(), 1);
    assert_eq!(i128::from(restored.balance().await), world.circulating());
}

#[tokio::test]
async fn its_notes_are_not_spent_by_accident_while_it_is_not_decided() {
    let world = World::new();
    let alice = kept(&world).await;
    // Nobody tells what became of it.
    for _ in 0..30 {
        world.fault("/v1/transactions/", Fault::Down);
    }
    let (restored, _) = lost(alice).await;
    let held = restored.client.reserved().await.unwrap().msat();
    assert!(held >= TAKEN && restored.balance().await + held == ALL, "{held}");
    let too_much = restored.client.send(msat(ALL), "").await.unwrap_err();
    assert_eq!(too_much.code(), "insufficient_funds");
    assert_eq!(withdrawal(&restored, "rent").await.1, State::Submitting);
}

#[tokio::test]
async fn what_is_handed_in_after_all_is_paid_and_its_change_comes_in() {
    // Before the wallet looks; and just before it would end it.
    for late in [false, true] {
        let world = World::new();
        let alice = kept(&world).await;
        match late {
            false => assert_eq!(world.hand_in(), [None]),
            true => world.fault("/v1/transactions", Fault::Overtaken),
        }
        let (restored, _) = lost(alice).await;
        settled(&restored).await;
        let (_, state) = withdrawal(&restored, "rent").await;
        assert!(matches!(state, State::Sent { .. }), "{late} {state:?}");
        assert_eq!(restored.balance().await, ALL - TAKEN, "{late}");
        assert_eq!((world.paid_out(), world.circulating()), (vec![PAID], i128::from(ALL - TAKEN)));
        // Numbers go on, and nothing is found twice.
        let sent = restored.client.send(msat(ALL - TAKEN - 1), "").await.unwrap();
        let bob = Wallet::new(&world).await;
        bob.client.receive(&sent.ecash, "").await.unwrap();
        let (again, _) = lost(restored).await;
        assert_eq!((again.balance().await, bob.balance().await), (1, ALL - TAKEN - 1));
    }
}

#[tokio::test]
async fn notes_that_were_spent_otherwise_end_it() {
    let world = World::new();
    let alice = kept(&world).await;
    let backup = world.backups().len();
    // The old wallet lived on, and another guardian refused the withdrawal: its notes went elsewhere.
    let mut alice = alice;
    world.fault("/v1/transactions", Fault::Refused("fee_too_low"));
    alice.restart().await;
    settled(&alice).await;
    assert!(
        matches!(withdrawal(&alice, "rent").await.1, State::Failed { code, .. } if code == "fee_too_low")
    );
    let sent = alice.client.send(msat(ALL), "").await.unwrap();
    let bob = Wallet::new(&world).await;
    bob.client.receive(&sent.ecash, "").await.unwrap();
    world.forget_backups(backup);
    let (restored, _) = lost(alice).await;
    settled(&restored).await;
    let (_, state) = withdrawal(&restored, "rent").await;
    assert!(matches!(&state, State::Failed { code, .. } if code == "not_made"), "{state:?}");
    assert_eq!((restored.balance().await, bob.balance().await), (0, ALL));
    assert_eq!(world.hand_in(), [Some("double_spend".to_owned())]);
}

#[tokio::test]
async fn a_guardian_that_says_it_is_on_its_way_is_believed_for_a_while_only() {
    let world = World::new();
    let alice = kept(&world).await;
    world.claim_kept();
    let begun =
        OPERATIONS.get(&*alice.db, &withdrawal(&alice, "rent").await.0).await.unwrap().unwrap().created;
    let (restored, _) = lost(alice).await;
    let state = withdrawal(&restored, "rent").await.1;
    let young = crate::ops::now() < Duration::from_millis(begun) + Duration::from_secs(1);
    assert!(!young || state == State::Submitting);
    settled(&restored).await;
    assert!(matches!(withdrawal(&restored, "rent").await.1, State::Failed { .. }));
    assert!(crate::ops::now() >= Duration::from_millis(begun) + Duration::from_secs(1));
    assert_eq!(restored.balance().await, ALL);
    assert_eq!(world.hand_in(), [Some("double_spend".to_owned())]);
}

#[tokio::test]
async fn it_survives_a_second_loss() {
    for handed_in in [false, true] {
        let world = World::new();
        let alice = kept(&world).await;
        for _ in 0..2 {
            world.fault("/v1/transactions/", Fault::Hang);
        }
        let (first, _) = lost(alice).await;
        let (op, state) = withdrawal(&first, "rent").await;
        assert_eq!(state, State::Submitting);
        let remembered = RESTORED.get(&*first.db, &op).await.unwrap().unwrap();
        assert!(!remembered.spends.is_empty() && !remembered.asks.is_empty());
        let backups = world.backups().len();
        assert!(first.client.finish_backup(SOON).await.unwrap());
        assert_eq!(world.backups().len(), backups + 1);
        if handed_in {
            assert_eq!(world.hand_in(), [None]);
        }
        world.forget_faults();
        let (second, _) = lost(first).await;
        assert_eq!(RESTORED.get(&*second.db, &op).await.unwrap(), Some(remembered));
        settled(&second).await;
        let state = withdrawal(&second, "rent").await.1;
        assert_eq!(matches!(state, State::Sent { .. }), handed_in, "{state:?}");
        let left = if handed_in { ALL - TAKEN } else { ALL };
        assert_eq!((second.balance().await, world.circulating()), (left, i128::from(left)));
    }
}

#[tokio::test]
async fn a_kill_at_any_commit_of_it_loses_and_doubles_nothing() {
    let mut kills = 0;
    for commits in 1.. {
        let mut died = false;
        for (after, overtaken) in [(false, false), (true, false), (false, true), (true, true)] {
            let world = World::new();
            let alice = kept(&world).await;
            if overtaken {
                world.fault("/v1/transactions", Fault::Overtaken);
            }
            let words = alice.words.clone();
            // Restored, and killed before it began to ask.
            world.fault("/v1/transactions/", Fault::Hang);
            let (restored, _) = lost(alice).await;
            let inner = restored.db.clone();
            drop(restored);
            world.forget_fault("/v1/transactions/");
            let client = world.open(&Mortal::at(&inner, commits, after), &words).await;
            let done = tokio::time::timeout(Duration::from_millis(700), client.settle_all(SOON)).await;
            let done = matches!(done, Ok(Ok(true)));
            drop(client);
            (died, kills) = (died | !done, kills + usize::from(!done));
            let client = world.open(&inner, &words).await;
            let wallet = Wallet { world: world.clone(), db: inner, words, client };
            settled(&wallet).await;
            let paid = matches!(withdrawal(&wallet, "rent").await.1, State::Sent { .. });
            assert_eq!(paid, overtaken, "{commits} {after}");
            let left = if paid { ALL - TAKEN } else { ALL };
            assert_eq!(wallet.balance().await, left, "{commits} {after} {overtaken}");
            assert_eq!(world.circulating(), i128::from(left));
            world.hand_in();
            assert_eq!(world.paid_out().len(), usize::from(paid));
        }
        if !died {
            break;
        }
    }
    assert!(kills >= 8, "{kills}");
}

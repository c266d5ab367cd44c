//! Looking ahead changes nothing but the time that it takes.

use federation_core::PeerId;
use federation_core::db::{Database, Namespaced, Pair};
use federation_core::module::{Epoch, ServerModule as _, Trust};
use federation_core::{OutPoint, Transaction};
use federation_store::{WriteBatch, memory};
use std::sync::Arc;

use super::federation::{Federation, ID, Items, keysets, transaction};
use crate::server::Mint;
use crate::{MintParams, NoteOutput, PartialSignatures, PointBytes, generate};

/// What an epoch brings.
#[derive(Clone)]
struct Agreed {
    items: Items,
    transactions: Vec<Transaction>,
}

/// A guardian that wasn't there when its federation ran these epochs.
struct Behind {
    mint: Mint,
    db: Arc<dyn Database>,
}

impl Behind {
    fn new() -> Self {
        let (config, secret) = generate(keysets(4).swap_remove(3), MintParams::default());
        Self { mint: Mint::new(config, secret, PeerId(3)).unwrap(), db: memory() }
    }

    fn look_ahead(&self, epochs: &[(u64, Agreed)], trust: Trust) {
        let items: Vec<(u64, PeerId, PartialSignatures)> = epochs
            .iter()
            .flat_map(|(number, agreed)| {
                agreed.items.iter().map(|(from, item)| (*number, *from, item.clone()))
            })
            .collect();
        let outputs: Vec<(OutPoint, NoteOutput)> =
            epochs.iter().flat_map(|(_, agreed)| &agreed.transactions).flat_map(outputs).collect();
        self.mint.look_ahead(
            &items,
            &outputs.iter().map(|(point, output)| (*point, output)).collect::<Vec<_>>(),
            trust,
        );
    }

    /// The state after this epoch.
    async fn apply(&self, number: u64, agreed: &Agreed) -> Vec<Pair> {
        let epoch = Epoch { number, version: 1 };
        let mut batch = WriteBatch::new(Arc::clone(&self.db));
        let mut db = Namespaced::new(&mut batch, Vec::new());
        for (from, item) in &agreed.items {
            self.mint.apply_item(&mut db, epoch, *from, item.clone()).await.unwrap();
        }
        for (point, output) in agreed.transactions.iter().flat_map(outputs) {
            self.mint.apply_output(&mut db, epoch, point, &output).await.unwrap();
        }
        self.mint.end_epoch(&mut db, epoch).await.unwrap();
        batch.commit().await.unwrap();
        self.db.scan(&[], None, usize::MAX / 2).await.unwrap()
    }
}

fn outputs(transaction: &Transaction) -> Vec<(OutPoint, NoteOutput)> {
    let txid = transaction.txid(ID);
    (0..)
        .zip(&transaction.outputs)
        .map(|(index, output)| (OutPoint { txid, index }, borsh::from_slice(&output.body).unwrap()))
        .collect()
}

/// Ten epochs of a federation of which guardian 3 is away, with what goes wrong in some of them. The epochs in which nothing
/// does are `clean`.
async fn history() -> Vec<(u64, Agreed)> {
    let mut federation = Federation::new(4, MintParams::default());
    let mut epochs = Vec::new();
    let mut held: Option<(PeerId, PartialSignatures)> = None;
    for number in 0..10u64 {
        let all = federation.proposals().await;
        let mut items = all.clone();
        match number {
            // A wrong share and an undecodable one, with the fourth guardian's in reserve.
            2 => spoil(&mut items, 0, |shares| shares.0[1].share = shares.0[0].share),
            3 => spoil(&mut items, 1, |shares| shares.0[2].share = PointBytes([0x55; 48])),
            // And without: it is completed in the next epoch.
            5 => {
                held = items.remove_entry(&PeerId(3));
                spoil(&mut items, 2, |shares| shares.0[0].share = PointBytes([0xff; 48]));
            }
            6 => {
                let (from, old) = held.take().unwrap();
                items.entry(from).or_default().0.extend(old.0);
                // Twice, too late, and for nothing.
                let late = epochs
                    .last()
                    .map(|(_, agreed): &(u64, Agreed)| agreed.items[&PeerId(0)].clone())
                    .unwrap();
                items.get_mut(&PeerId(1)).unwrap().0.extend(late.0);
            }
            // A share that comes an epoch later than the others, from the lowest guardian.
            8 => held = items.remove_entry(&PeerId(0)),
            9 => {
                let (from, old) = held.take().unwrap();
                items.entry(from).or_default().0.extend(old.0);
            }
            _ => drop(items.remove(&PeerId(3))),
        }
        let requests: Vec<_> = (0..3).map(|exponent| federation.request(exponent)).collect();
        let transactions = vec![transaction(&[], &requests)];
        federation.epoch(&items, &transactions).await;
        epochs.push((number, Agreed { items, transactions }));
    }
    assert!(federation.alarms().await.len() == 3, "{:?}", federation.alarms().await);
    epochs
}

fn spoil(items: &mut Items, peer: u16, change: impl FnOnce(&mut PartialSignatures)) {
    change(items.get_mut(&PeerId(peer)).unwrap());
}

#[tokio::test]
async fn the_state_is_the_same_after_each_epoch_however_much_was_looked_at() {
    let epochs = history().await;
    let reference = Behind::new();
    let mut states = Vec::new();
    for (number, agreed) in &epochs {
        states.push(reference.apply(*number, agreed).await);
    }
    for size in [1, 2, 3, 10] {
        let behind = Behind::new();
        behind.look_ahead(&epochs[..size], Trust::Nobody);
        let mut remembered = 0;
        for (at, (number, agreed)) in epochs.iter().enumerate() {
            if at % size == 0 {
                // The group after this, as in the main loop; some of it twice.
                behind.look_ahead(&epochs[(at + size / 2).min(10)..(at + 2 * size).min(10)], Trust::Nobody);
            }
            remembered = remembered.max(behind.mint.remembered_ahead());
            assert!(
                behind.apply(*number, agreed).await == states[at],
                "after epoch {number}, {size} at once"
            );
        }
        assert!(remembered > 0, "nothing was done ahead, {size} at once");
        assert_eq!(behind.mint.remembered_ahead(), 0, "what is finished is forgotten");
    }
}

#[tokio::test]
async fn what_was_looked_at_counts_only_if_exactly_that_is_used() {
    let epochs = history().await;
    let reference = Behind::new();
    for (number, agreed) in &epochs[..1] {
        reference.apply(*number, agreed).await;
    }
    // One guardian's share is wrong in what is agreed on, and wasn't in what was looked at; and the other way round.
    let right = epochs[1].1.clone();
    let mut wrong = right.clone();
    spoil(&mut wrong.items, 1, |shares| shares.0[0].share = shares.0[1].share);
    for (seen, agreed) in [(&right, &wrong), (&wrong, &right)] {
        let (plain, ahead) = (Behind::new(), Behind::new());
        ahead.look_ahead(&[epochs[0].clone(), (1, seen.clone())], Trust::Nobody);
        assert_eq!(ahead.mint.remembered_ahead(), if std::ptr::eq(seen, &right) { 3 } else { 2 });
        for (number, agreed) in [(0, &epochs[0].1), (1, agreed)] {
            assert!(plain.apply(number, agreed).await == ahead.apply(number, agreed).await);
        }
        assert_eq!(
            plain.mint.alarms(&db(&plain)).await.unwrap(),
            ahead.mint.alarms(&db(&ahead)).await.unwrap()
        );
        let faulty = plain.mint.alarms(&db(&plain)).await.unwrap();
        assert_eq!(faulty.len(), usize::from(std::ptr::eq(agreed, &wrong)));
    }
}

fn db(guardian: &Behind) -> federation_core::db::NamespacedReader {
    federation_core::db::NamespacedReader::new(Arc::clone(&guardian.db) as _, Vec::new())
}

/// Where n − f have signed what comes of it, shares are combined unchecked: right ones lead to the same state, wrong ones to
/// another, until they are looked at without trust.
#[tokio::test]
async fn what_is_combined_on_trust_is_the_same_or_shows() {
    let epochs = history().await;
    let reference = Behind::new();
    let mut states = Vec::new();
    for (number, agreed) in &epochs[..3] {
        states.push(reference.apply(*number, agreed).await);
    }
    let behind = Behind::new();
    behind.look_ahead(&epochs[..3], Trust::Signed);
    // The outputs of epochs 0 and 1; one of them with a wrong share.
    assert_eq!(behind.mint.remembered_ahead(), 6);
    for (number, agreed) in &epochs[..3] {
        let same = behind.apply(*number, agreed).await == states[*number as usize];
        assert_eq!(same, *number < 2, "after epoch {number}");
    }
    let wary = Behind::new();
    wary.look_ahead(&epochs[..3], Trust::Signed);
    wary.mint.distrust();
    assert_eq!(wary.mint.remembered_ahead(), 0);
    for (number, agreed) in &epochs[..3] {
        assert!(wary.apply(*number, agreed).await == states[*number as usize], "after epoch {number}");
    }
}

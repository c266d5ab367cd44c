//! Guardians that are late, silent or wrong.

use federation_core::db::Namespaced;
use federation_core::module::{Epoch, ModuleError, ServerModule as _};
use federation_core::{OutPoint, PeerId, TxId};
use federation_store::{WriteBatch, memory};
use federation_tbs::{BlindedSignatureShare, SecretKeyShare, sign};

use super::federation::{Federation, ID, Items, denomination, keysets, transaction};
use crate::client::{Note, NoteRequest, finish};
use crate::server::Mint;
use crate::types::MAX_PARTIAL_SIGNATURES;
use crate::{MintError, MintParams, PartialSignature, PartialSignatures, PointBytes, generate};

/// An accepted transaction that waits for its signatures.
async fn pending(federation: &mut Federation, notes: usize) -> (TxId, Vec<NoteRequest>) {
    let requests: Vec<_> = (0..notes).map(|n| federation.request((n % 10) as u8)).collect();
    let tx = transaction(&[], &requests);
    assert_eq!(federation.round(std::slice::from_ref(&tx)).await, [Ok(())]);
    (tx.txid(ID), requests)
}

fn point(txid: TxId) -> OutPoint {
    OutPoint { txid, index: 0 }
}

fn only(items: &Items, peers: &[u16]) -> Items {
    items.iter().filter(|(peer, _)| peers.contains(&peer.0)).map(|(p, item)| (*p, item.clone())).collect()
}

/// Wrong in each way that there is: another key's signature, no point, the identity, the share of somebody else.
fn spoil(items: &mut Items, peer: u16, request: &NoteRequest, way: usize) {
    let stolen = items[&PeerId(3)].0[0].share;
    let share = match way {
        0 => {
            let key = SecretKeyShare::from_bytes(&[5; 32]).unwrap();
            PointBytes(sign(request.blinded_nonce(), &key).to_bytes())
        }
        1 => PointBytes([0x55; 48]),
        2 => {
            let mut identity = [0; 48];
            identity[0] = 0xc0;
            PointBytes(identity)
        }
        _ => stolen,
    };
    items.get_mut(&PeerId(peer)).unwrap().0[0].share = share;
}

#[tokio::test]
async fn fewer_than_the_threshold_never_make_a_note() {
    let mut federation = Federation::new(4, MintParams::default());
    let (txid, requests) = pending(&mut federation, 1).await;
    for _ in 0..3 {
        let items = federation.proposals().await;
        federation.epoch(&only(&items, &[1, 2]), &[]).await;
        assert_eq!(federation.outcome(point(txid)).await, None);
    }
    let items = federation.proposals().await;
    assert_eq!(
        items.keys().copied().collect::<Vec<_>>(),
        [PeerId(0), PeerId(3)],
        "the others are not waited for twice"
    );
    federation.epoch(&only(&items, &[0]), &[]).await;
    federation.collect(txid, &requests).await;
}

#[tokio::test]
async fn being_late_is_no_fault_and_opens_no_epoch() {
    let mut federation = Federation::new(4, MintParams::default());
    let (txid, requests) = pending(&mut federation, 20).await;
    let items = federation.proposals().await;
    federation.epoch(&only(&items, &[0, 1, 3]), &[]).await;
    let notes = federation.collect(txid, &requests).await;
    assert_eq!(notes.len(), 20);
    assert!(federation.proposals().await.is_empty());
    federation.epoch(&only(&items, &[2]), &[]).await;
    // The same thing twice, and things that nobody asked for.
    let mut twice = items[&PeerId(2)].clone();
    twice.0.extend(twice.0.clone());
    twice.0.push(PartialSignature { point: point(TxId([1; 32])), share: PointBytes([1; 48]) });
    federation.epoch(&Items::from([(PeerId(2), twice)]), &[]).await;
    assert!(federation.alarms().await.is_empty());
}

#[tokio::test]
async fn a_wrong_share_is_found_counted_and_replaced_at_once() {
    for way in 0..4 {
        let mut federation = Federation::new(4, MintParams::default());
        let (txid, requests) = pending(&mut federation, 20).await;
        let mut items = federation.proposals().await;
        spoil(&mut items, 1, &requests[0], way);
        federation.epoch(&items, &[]).await;
        federation.collect(txid, &requests).await;
        let alarms = federation.alarms().await;
        assert_eq!(alarms.len(), 1);
        assert!(alarms[0].starts_with("guardian 1 sent 1 wrong"), "{alarms:?}");
    }
}

#[tokio::test]
async fn a_wrong_share_without_a_replacement_waits_for_one_and_gets_no_second_try() {
    let mut federation = Federation::new(4, MintParams::default());
    let (txid, requests) = pending(&mut federation, 1).await;
    let good = federation.proposals().await;
    let mut bad = good.clone();
    spoil(&mut bad, 1, &requests[0], 0);
    federation.epoch(&only(&bad, &[0, 1, 2]), &[]).await;
    assert_eq!(federation.outcome(point(txid)).await, None);
    federation.epoch(&only(&good, &[1]), &[]).await;
    assert_eq!(federation.outcome(point(txid)).await, None);
    let items = federation.proposals().await;
    assert_eq!(items.keys().copied().collect::<Vec<_>>(), [PeerId(3)]);
    federation.epoch(&items, &[]).await;
    federation.collect(txid, &requests).await;
    assert!(federation.alarms().await[0].starts_with("guardian 1 sent 1 wrong"));
    assert!(federation.proposals().await.is_empty());
}

#[tokio::test]
async fn items_out_of_bounds_are_their_senders_fault() {
    let (config, secret) = generate(keysets(4).swap_remove(2), MintParams::default());
    assert_eq!(Mint::new(config.clone(), secret.clone(), PeerId(1)).err(), Some(MintError::SecretMismatch));
    let mint = Mint::new(config, secret, PeerId(2)).unwrap();
    let mut batch = WriteBatch::new(memory());
    let mut db = Namespaced::new(&mut batch, Vec::new());
    let partial = PartialSignature { point: point(TxId([0; 32])), share: PointBytes([0; 48]) };
    let long = PartialSignatures(vec![partial; MAX_PARTIAL_SIGNATURES + 1]);
    assert!(borsh::to_vec(&long).unwrap().len() < federation_core::module::MAX_ITEM);
    let epoch = Epoch { number: 0, version: 1 };
    for (from, item) in [(PeerId(0), long), (PeerId(4), PartialSignatures::default())] {
        assert!(matches!(
            mint.apply_item(&mut db, epoch, from, item).await,
            Err(ModuleError::Refused { .. })
        ));
    }
    assert!(batch.is_empty());
}

#[tokio::test]
async fn forged_notes_cannot_drain_more_than_was_issued() {
    let mut federation = Federation::new(4, MintParams::default());
    let note = federation.issue(&[5]).await.remove(0);
    // Three guardians conspire.
    let request = federation.request(5);
    let shares = (0u16..3)
        .map(|guardian| {
            let key = &federation.secrets[usize::from(guardian)].shares[5];
            (guardian, sign(request.blinded_nonce(), key))
        })
        .collect::<std::collections::BTreeMap<u16, BlindedSignatureShare>>();
    let forged: Note =
        finish(&request, &federation_tbs::combine(&shares, 3).unwrap(), &federation.config).unwrap();
    assert_eq!(forged.denomination, denomination(5));
    let ask = [federation.request(4), federation.request(4)];
    let txs = [&forged, &note].map(|note| transaction(&[note], &ask));
    let results = federation.round(&[txs[0].clone()]).await;
    assert_eq!(results, [Ok(())]);
    assert_eq!(federation.round(&[txs[1].clone()]).await, [Err("more_spent_than_issued")]);
}

//! Blocks, fee rates and the beacon.

use federation_core::PeerId;
use federation_core::encoding::encode;
use federation_core::module::{ServerModule as _, Trust};
use federation_tbs::MessageSignature;
use serde_json::Value;

use super::federation::{BIRTHDAY, FakeChain, Federation};
use crate::beacon;
use crate::body::{BlockHeader, Item};
use crate::server::blocks::last_final;

async fn final_height(federation: &Federation) -> Option<u32> {
    last_final(&federation.guardians[0].state()).await.unwrap().map(|(height, _)| height)
}

#[tokio::test]
async fn blocks_are_final_at_their_depth() {
    let mut federation = Federation::new(4, 3).await;
    federation.synced().await;
    federation.epoch(&[]).await;
    assert_eq!(final_height(&federation).await, None);
    federation.mine(Vec::new()).await;
    assert_eq!(final_height(&federation).await, None);
    federation.mine(Vec::new()).await;
    assert_eq!(final_height(&federation).await, Some(BIRTHDAY));
    federation.mine(Vec::new()).await;
    assert_eq!(final_height(&federation).await, Some(BIRTHDAY + 1));
}

#[tokio::test]
async fn nothing_new_opens_no_epoch() {
    let mut federation = Federation::new(4, 1).await;
    federation.synced().await;
    let guardian = &federation.guardians[0];
    assert!(guardian.wallet.propose(&guardian.state()).await.unwrap().opens_epoch);
    federation.epoch(&[]).await;
    for guardian in &federation.guardians {
        assert!(!guardian.wallet.propose(&guardian.state()).await.unwrap().opens_epoch);
    }
}

#[tokio::test]
async fn hundreds_of_blocks_take_a_few_epochs() {
    let mut federation = Federation::new(4, 1).await;
    federation.chain.mine_empty(400);
    federation.synced().await;
    for _ in 0..3 {
        federation.epoch(&[]).await;
    }
    assert_eq!(final_height(&federation).await, Some(BIRTHDAY + 400));
}

#[tokio::test]
async fn it_takes_n_minus_f_votes_for_the_same_block() {
    let mut federation = Federation::new(4, 1).await;
    federation.synced().await;
    let items = federation.proposals(&[0, 1]).await;
    federation.epoch_of(&items, &[]).await;
    assert_eq!(final_height(&federation).await, None);
    let items = federation.proposals(&[2]).await;
    federation.epoch_of(&items, &[]).await;
    assert_eq!(final_height(&federation).await, Some(BIRTHDAY));
}

#[tokio::test]
async fn votes_that_make_no_sense_are_faults() {
    let mut federation = Federation::new(4, 1).await;
    federation.chain.mine_empty(5);
    federation.synced().await;
    let items = federation.proposals(&[0]).await;
    let Item::Blocks { height, headers } = items[0].1.clone() else { panic!("no vote first") };
    let unlinked: Vec<BlockHeader> = headers.iter().rev().copied().collect();
    let share = match &items.last().unwrap().1 {
        Item::BeaconShare { share, .. } => *share,
        _ => {
            federation.epoch(&[]).await;
            let items = federation.proposals(&[0]).await;
            let Item::BeaconShare { share, .. } = &items.last().unwrap().1 else { panic!("no share") };
            *share
        }
    };
    let bad = [
        (PeerId(1), Item::Blocks { height, headers: Vec::new() }),
        (PeerId(1), Item::Blocks { height, headers: unlinked }),
        (PeerId(1), Item::Blocks { height: height + 1_000, headers: headers.clone() }),
        (PeerId(1), Item::Blocks { height: u32::MAX, headers }),
        (PeerId(1), Item::FeeRate(0)),
        (PeerId(1), Item::FeeRate(u64::MAX)),
        (PeerId(1), Item::BeaconShare { epoch: 1_000, share }),
        (PeerId(9), Item::FeeRate(1_000)),
    ];
    let (faults, _) = federation.epoch_of(&bad, &[]).await;
    assert!(faults.iter().all(Option::is_some), "{faults:?}");
}

#[tokio::test]
async fn a_shallow_reorganisation_is_invisible_and_a_deep_one_is_an_alarm() {
    let mut federation = Federation::new(4, 3).await;
    for _ in 0..6 {
        federation.mine(Vec::new()).await;
    }
    let height = final_height(&federation).await;
    federation.chain.reorganise(2, 1);
    federation.synced().await;
    federation.epoch(&[]).await;
    assert!(final_height(&federation).await > height);
    let guardian = &federation.guardians[0];
    assert_eq!(guardian.wallet.alarms(&guardian.state()).await.unwrap(), Vec::<String>::new());

    let height = final_height(&federation).await;
    federation.chain.reorganise(6, 100);
    federation.synced().await;
    federation.epoch(&[]).await;
    assert_eq!(final_height(&federation).await, height);
    let guardian = &federation.guardians[0];
    assert!(guardian.wallet.alarms(&guardian.state()).await.unwrap()[0].contains("deeper than the finality"));
}

#[tokio::test]
async fn one_guardian_on_another_branch_does_not_stop_the_others() {
    let (chain, other) = (FakeChain::default(), FakeChain::default());
    chain.mine_empty(3);
    other.mine_empty(2);
    other.reorganise(1, 7);
    let chains = vec![chain.clone(), chain.clone(), chain.clone(), other];
    let mut federation = Federation::over(chain, chains, 1).await;
    federation.synced().await;
    federation.epoch(&[]).await;
    federation.epoch(&[]).await;
    assert_eq!(final_height(&federation).await, Some(BIRTHDAY + 2));
    let stranger = &federation.guardians[3];
    assert!(!stranger.wallet.alarms(&stranger.state()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_node_that_stops_is_an_alarm_until_it_is_back() {
    let federation = Federation::new(1, 1).await;
    federation.synced().await;
    let guardian = &federation.guardians[0];
    federation.chain.stop(true);
    guardian.until("the alarm", || guardian.wallet.view().trouble.is_some()).await;
    assert!(guardian.wallet.alarms(&guardian.state()).await.unwrap()[0].contains("cannot be reached"));
    federation.chain.stop(false);
    guardian.until("the end of the alarm", || guardian.wallet.view().trouble.is_none()).await;
}

#[tokio::test]
async fn the_beacon_follows_the_epochs_and_can_be_verified() {
    for n in [1, 4] {
        let mut federation = Federation::new(n, 1).await;
        federation.synced().await;
        let guardian = &federation.guardians[0];
        assert_eq!(guardian.call("beacon", &[]).await.unwrap_err().code, "no_beacon");
        federation.epoch(&[]).await;
        federation.epoch(&[]).await;
        let answer: Value = federation.guardians[0].call("beacon", &[]).await.unwrap();
        assert_eq!(answer["epoch"], 0);
        let signature: MessageSignature = serde_json::from_value(answer["signature"].clone()).unwrap();
        assert_eq!(encode(&signature), signature.to_bytes(), "what is stored may be either");
        let wallet = &federation.guardians[0].wallet;
        let random = beacon::verified(wallet.federation, 0, &signature, &federation.config.beacon).unwrap();
        assert_eq!(answer["randomness"], hex::encode(random));
        assert!(beacon::verified(wallet.federation, 1, &signature, &federation.config.beacon).is_none());
    }
}

#[tokio::test]
async fn a_false_beacon_share_is_found_and_the_rest_suffices() {
    let mut federation = Federation::new(4, 1).await;
    federation.synced().await;
    federation.epoch(&[]).await;
    let mut items = federation.proposals(&[0, 1, 2, 3]).await;
    let foreign = items.iter().find_map(|(from, item)| match item {
        Item::BeaconShare { share, .. } if from.0 == 3 => Some(*share),
        _ => None,
    });
    for (from, item) in &mut items {
        if let (0, Item::BeaconShare { share, .. }) = (from.0, item) {
            *share = foreign.unwrap();
        }
    }
    federation.epoch_of(&items, &[]).await;
    let mut next = federation.proposals(&[0, 1, 2, 3]).await;
    // The false one is thrown out, and the others complete the beacon in the same epoch: else its sender could send it
    // again in each.
    let answer = federation.guardians[0].call("beacon", &[]).await.unwrap();
    assert_eq!(answer["epoch"], 0);
    // Bytes that are no point at all are no better.
    for (from, item) in &mut next {
        if let (1, Item::BeaconShare { share, .. }) = (from.0, item) {
            *share = [0xff; 48];
        }
    }
    federation.epoch_of(&next, &[]).await;
    let answer = federation.guardians[0].call("beacon", &[]).await.unwrap();
    assert_eq!(answer["epoch"], 1);
}

/// Some epochs' beacon shares: wrong ones, undecodable ones, late ones, and more than are needed.
async fn shares(federation: &mut Federation) -> Vec<Vec<(PeerId, Item)>> {
    federation.synced().await;
    let mut epochs = Vec::new();
    let mut late = Vec::new();
    for number in 0..12 {
        let mut items = federation.proposals(&[0, 1, 2, 3]).await;
        items.append(&mut late);
        let foreign = items.iter().find_map(|(from, item)| match item {
            Item::BeaconShare { share, .. } if from.0 == 3 => Some(*share),
            _ => None,
        });
        for (from, item) in &mut items {
            match (number, from.0, item) {
                (3, 0, Item::BeaconShare { share, .. }) => *share = foreign.unwrap(),
                (5, 1, Item::BeaconShare { share, .. }) => *share = [0xff; 48],
                _ => {}
            }
        }
        if number == 7 || number == 8 {
            // Two of the four are late: nothing can be combined in 7.
            let (now, later): (Vec<_>, Vec<_>) = items
                .into_iter()
                .partition(|(from, item)| from.0 > 1 || !matches!(item, Item::BeaconShare { .. }));
            items = now;
            late = later;
        }
        federation.epoch_of(&items, &[]).await;
        epochs.push(items);
    }
    epochs
}

#[tokio::test]
async fn beacons_that_were_combined_ahead_are_the_same() {
    let mut federation = Federation::new(4, 1).await;
    let epochs = shares(&mut federation).await;
    let said = |range: std::ops::Range<usize>| {
        let of = |number: usize| {
            epochs[number].iter().map(move |(from, item)| (number as u64, *from, item.clone()))
        };
        range.flat_map(of).collect::<Vec<_>>()
    };
    let mut states = Vec::new();
    for size in [0, 1, 2, 4, 12] {
        let mut behind = federation.newcomer(2).await;
        let mut remembered = 0;
        for (number, items) in epochs.iter().enumerate() {
            if size > 0 && number % size == 0 {
                behind.wallet.look_ahead(
                    &said(number..(number + size + size / 2).min(12)),
                    &[],
                    Trust::Nobody,
                );
            }
            remembered = remembered.max(behind.wallet.ahead.work().found.len());
            let state = behind.apply(number as u64, items).await;
            if size == 0 {
                states.push(state);
            } else {
                assert!(state == states[number], "after epoch {number}, {size} at once");
            }
        }
        assert_eq!(remembered > 0, size > 0, "{size} at once");
        assert_eq!(behind.wallet.ahead.work().found.len(), 0, "what is done is forgotten");
    }
    assert!(*states.last().unwrap() == federation.guardians[2].content().await, "those who were there agree");
}

#[tokio::test]
async fn a_beacon_counts_only_with_the_shares_that_it_was_combined_from() {
    let mut federation = Federation::new(4, 1).await;
    let epochs = shares(&mut federation).await;
    let right: Vec<_> = epochs[1].clone();
    let mut wrong = right.clone();
    for (from, item) in &mut wrong {
        if let (1, Item::BeaconShare { share, .. }) = (from.0, item) {
            *share = [0xff; 48];
        }
    }
    for (seen, agreed) in [(&right, &wrong), (&wrong, &right)] {
        let (mut plain, mut ahead) = (federation.newcomer(0).await, federation.newcomer(0).await);
        let said: Vec<_> = seen.iter().map(|(from, item)| (1, *from, item.clone())).collect();
        ahead.wallet.look_ahead(&said, &[], Trust::Nobody);
        assert_eq!(ahead.wallet.ahead.work().found.len(), usize::from(std::ptr::eq(seen, &right)));
        for (number, items) in [(0, &epochs[0]), (1, agreed)] {
            assert!(plain.apply(number, items).await == ahead.apply(number, items).await);
        }
        assert_eq!(plain.call("beacon", &[]).await.unwrap()["epoch"], 0);
    }
}

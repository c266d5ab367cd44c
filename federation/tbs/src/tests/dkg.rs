//! Key generation with each kind of bad dealer.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::encoding::outside_g2;
use super::federation;
use crate::curve::{G2, Scalar};
use crate::dkg::{Committed, Dkg, DkgError, DkgFault, DkgOutput, DkgSetupError, MAX_MESSAGE, Revealed};
use crate::threshold;

const KEYS: usize = 2;

type Messages = BTreeMap<u16, Vec<u8>>;

fn start(n: usize) -> Vec<Dkg> {
    let rng = &mut rand::thread_rng();
    (0..n as u16).map(|me| Dkg::new(b"session", me, n, KEYS, rng).unwrap()).collect()
}

/// Runs round 1 and 2 at guardian 0 with the last guardian's messages replaced.
fn reveal_with(n: usize, replace: impl Fn(&mut Messages, &mut Messages)) -> Result<Revealed, DkgError> {
    let mut states = start(n);
    let mut first: Messages = (0..).zip(states.iter().map(Dkg::commitment)).collect();
    let first_ones = first.clone();
    let states_2: Vec<Committed> =
        states.split_off(1).into_iter().map(|s| s.round_1(first_ones.clone()).unwrap()).collect();
    let mut second: Messages = (1..).zip(states_2.iter().map(Committed::reveal)).collect();
    replace(&mut first, &mut second);
    states.remove(0).round_1(first)?.round_2(second)
}

/// Replaces the last guardian's reveal, and its commitment to match.
fn lie(n: usize, change: impl Fn(&mut Vec<u8>)) -> DkgError {
    // The hash of round 1 covers the session, so another run of the same parameters computes it for us.
    let context = start(n).remove(0).context();
    let replace = |first: &mut Messages, second: &mut Messages| {
        let dealer = n as u16 - 1;
        let reveal = second.get_mut(&dealer).unwrap();
        change(reveal);
        first.insert(dealer, context.commitment(dealer, reveal).to_vec());
    };
    reveal_with(n, replace).err().unwrap()
}

/// Where the first key's first coefficient starts in a reveal, and how long a key is.
const FIRST: usize = 4 + 4;

fn key_len(n: usize) -> usize {
    4 + threshold(n) * 96 + 64
}

#[test]
fn keys_are_made_for_every_size() {
    for n in 1..=7 {
        let outputs = federation(n, KEYS);
        assert_eq!(outputs.len(), n);
        for output in &outputs {
            assert_eq!(output.keys.len(), KEYS);
            assert_eq!(output.transcript_hash(), outputs[0].transcript_hash());
            for (key, first) in output.keys.iter().zip(&outputs[0].keys) {
                assert_eq!((&key.public, &key.shares), (&first.public, &first.shares));
                assert_eq!(key.shares.len(), n);
            }
            let stored = borsh::to_vec(output).unwrap();
            assert_eq!(&borsh::from_slice::<DkgOutput>(&stored).unwrap(), output);
        }
        for (i, output) in outputs.iter().enumerate() {
            assert!(output.keys.iter().all(|key| key.secret.public() == key.shares[i]));
        }
        assert_ne!(outputs[0].keys[0].public, outputs[0].keys[1].public);
    }
}

#[test]
fn honest_messages_pass_the_harness() {
    for n in [2, 4] {
        assert!(reveal_with(n, |_, _| ()).is_ok());
    }
}

#[test]
fn parameters_out_of_range() {
    let rng = &mut rand::thread_rng();
    assert_eq!(Dkg::new(b"", 0, 0, 1, rng).err(), Some(DkgSetupError::Guardians(0)));
    assert_eq!(Dkg::new(b"", 0, 21, 1, rng).err(), Some(DkgSetupError::Guardians(21)));
    assert_eq!(Dkg::new(b"", 0, 65537, 1, rng).err(), Some(DkgSetupError::Guardians(65537)));
    assert_eq!(Dkg::new(b"", 4, 4, 1, rng).err(), Some(DkgSetupError::Index(4)));
    assert_eq!(Dkg::new(b"", 0, 4, 0, rng).err(), Some(DkgSetupError::Keys(0)));
    assert_eq!(Dkg::new(b"", 0, 4, 257, rng).err(), Some(DkgSetupError::Keys(257)));
}

#[test]
fn silence_is_named_in_every_round() {
    let n = 4;
    let missing = |dealer| DkgError { dealer, kind: DkgFault::Missing };
    let first = |first: &mut Messages, _: &mut Messages| drop(first.remove(&2));
    assert_eq!(reveal_with(n, first).err(), Some(missing(2)));
    let second = |_: &mut Messages, second: &mut Messages| drop(second.remove(&3));
    assert_eq!(reveal_with(n, second).err(), Some(missing(3)));
    let nothing = reveal_with(n, |_, _| ()).unwrap().round_3(Messages::new());
    assert_eq!(nothing.err(), Some(missing(1)));
    let outputs = federation(n, 1);
    assert_eq!(outputs[0].confirm(Messages::new()), Err(missing(1)));
}

#[test]
fn strangers_and_oversized_messages_are_named() {
    let stranger = |first: &mut Messages, _: &mut Messages| drop(first.insert(4, vec![0; 32]));
    let error = DkgError { dealer: 4, kind: DkgFault::Unknown };
    assert_eq!(reveal_with(4, stranger).err(), Some(error));
    let huge = |_: &mut Messages, second: &mut Messages| drop(second.insert(1, vec![0; MAX_MESSAGE + 1]));
    let error = DkgError { dealer: 1, kind: DkgFault::Undecodable };
    assert_eq!(reveal_with(4, huge).err(), Some(error));
    let short = |first: &mut Messages, _: &mut Messages| drop(first.insert(1, vec![0; 31]));
    let error = DkgError { dealer: 1, kind: DkgFault::Undecodable };
    assert_eq!(reveal_with(4, short).err(), Some(error));
}

#[test]
fn a_key_chosen_after_seeing_the_others_is_named() {
    for n in 2..=7 {
        // Another sound reveal than the one committed to, made after the first round.
        let late = |_: &mut Messages, second: &mut Messages| {
            let me = n as u16 - 1;
            let dkg = Dkg::new(b"session", me, n, KEYS, &mut rand::thread_rng()).unwrap();
            second.insert(me, dkg.own_reveal().to_vec());
        };
        let error = DkgError { dealer: n as u16 - 1, kind: DkgFault::CommitmentMismatch };
        assert_eq!(reveal_with(n, late).err(), Some(error));
    }
}

#[test]
fn bad_reveals_are_named() {
    for n in 2..=7 {
        let (dealer, t) = (n as u16 - 1, threshold(n));
        let named = |kind| DkgError { dealer, kind };
        assert_eq!(lie(n, Vec::clear), named(DkgFault::Undecodable));
        assert_eq!(lie(n, |bytes| bytes.push(0)), named(DkgFault::Undecodable));
        assert_eq!(lie(n, |bytes| bytes[3] = 0xff), named(DkgFault::Undecodable));

        // One coefficient less or more in the second key.
        let second = 4 + key_len(n);
        let fewer = lie(n, |bytes| {
            bytes[second] = t as u8 - 1;
            bytes.drain(second + 4..second + 100);
        });
        assert_eq!(fewer, named(DkgFault::WrongDegree { key: 1, expected: t, got: t - 1 }));
        let more = lie(n, |bytes| {
            bytes[second] = t as u8 + 1;
            let copy = bytes[second + 4..second + 100].to_vec();
            bytes.splice(second + 4..second + 4, copy);
        });
        assert_eq!(more, named(DkgFault::WrongDegree { key: 1, expected: t, got: t + 1 }));

        let one_key = lie(n, |bytes| {
            bytes[0] = 1;
            bytes.drain(4..4 + key_len(n));
        });
        assert_eq!(one_key, named(DkgFault::KeyCount { expected: KEYS, got: 1 }));

        // Identity as constant and as leading coefficient; points off the curve and outside the subgroup.
        for coefficient in [0, t - 1] {
            let at = FIRST + 96 * coefficient;
            let identity = lie(n, |bytes| {
                bytes[at..at + 96].fill(0);
                bytes[at] = 0xc0;
            });
            assert_eq!(identity, named(DkgFault::IdentityPoint { key: 0 }));
            let invalid = lie(n, |bytes| bytes[at..at + 96].fill(0xff));
            assert_eq!(invalid, named(DkgFault::InvalidPoint { key: 0 }));
            let outside = lie(n, |bytes| bytes[at..at + 96].copy_from_slice(&outside_g2()));
            assert_eq!(outside, named(DkgFault::InvalidPoint { key: 0 }));
        }

        // A wrong response; a challenge that is no number; a constant without its proof; a proof of another key.
        let proof = FIRST + 96 * t;
        assert_eq!(lie(n, |bytes| bytes[proof + 63] ^= 1), named(DkgFault::BadProof { key: 0 }));
        assert_eq!(lie(n, |bytes| bytes[proof..proof + 32].fill(0xff)), named(DkgFault::BadProof { key: 0 }));
        let rogue = lie(n, |bytes| bytes[FIRST..FIRST + 96].copy_from_slice(&G2::generator().to_bytes()));
        assert_eq!(rogue, named(DkgFault::BadProof { key: 0 }));
        let copied = lie(n, |bytes| {
            let key = bytes[4..4 + key_len(n)].to_vec();
            bytes[4 + key_len(n)..4 + 2 * key_len(n)].copy_from_slice(&key);
        });
        assert_eq!(copied, named(DkgFault::BadProof { key: 1 }));
    }
}

#[test]
fn another_dealers_part_can_not_be_copied() {
    let n = 4;
    let context = start(n).remove(0).context();
    let replace = |first: &mut Messages, second: &mut Messages| {
        let copy = second[&1].clone();
        first.insert(3, context.commitment(3, &copy).to_vec());
        second.insert(3, copy);
    };
    let error = DkgError { dealer: 3, kind: DkgFault::BadProof { key: 0 } };
    assert_eq!(reveal_with(n, replace).err(), Some(error));
}

#[test]
fn sessions_do_not_mix() {
    let rng = &mut rand::thread_rng();
    let here = Dkg::new(b"one", 0, 2, 1, rng).unwrap();
    let there = Dkg::new(b"two", 1, 2, 1, rng).unwrap();
    let state = here.round_1([(1, there.commitment())].into()).unwrap();
    let error = state.round_2([(1, there.own_reveal().to_vec())].into()).err();
    assert_eq!(error, Some(DkgError { dealer: 1, kind: DkgFault::CommitmentMismatch }));
}

/// All guardians after round 2, and the shares that each gets.
fn dealt(n: usize) -> (Vec<Revealed>, Vec<Messages>) {
    let states = start(n);
    let sent: Messages = (0..).zip(states.iter().map(Dkg::commitment)).collect();
    let states: Vec<_> = states.into_iter().map(|s| s.round_1(sent.clone()).unwrap()).collect();
    let sent: Messages = (0..).zip(states.iter().map(Committed::reveal)).collect();
    let states: Vec<_> = states.into_iter().map(|s| s.round_2(sent.clone()).unwrap()).collect();
    let inbox =
        |peer| (0..).zip(&states).map(|(dealer, s)| (dealer, s.share_for(peer).unwrap().to_vec())).collect();
    let inboxes = (0..n as u16).map(inbox).collect();
    (states, inboxes)
}

#[test]
fn wrong_shares_are_named() {
    for n in 2..=7 {
        let dealer = n as u16 - 1;
        let (mut states, inboxes) = dealt(n);
        assert!(states[0].share_for(n as u16).is_none());
        let wrong: [(Vec<u8>, DkgFault); 4] = [
            // What another guardian should get; a share that is one off; no number; not the right number of them.
            (inboxes[1][&dealer].clone(), DkgFault::WrongShare { key: 0 }),
            (one_more(&inboxes[0][&dealer]), DkgFault::WrongShare { key: 1 }),
            (vec![0xff; 64], DkgFault::WrongShare { key: 0 }),
            (vec![0; 63], DkgFault::Undecodable),
        ];
        for (share, kind) in wrong {
            let (mut again, mut inboxes) = dealt(n);
            // A share of this second run, wrong in the same way.
            let share = match &kind {
                DkgFault::WrongShare { key: 1 } => one_more(&inboxes[0][&dealer]),
                _ => share,
            };
            inboxes[0].insert(dealer, share);
            let error = again.remove(0).round_3(inboxes.remove(0)).err();
            assert_eq!(error, Some(DkgError { dealer, kind }));
        }
        assert!(states.remove(0).round_3(inboxes[0].clone()).is_ok());
    }
}

/// The second key's share, plus one.
fn one_more(bytes: &[u8]) -> Vec<u8> {
    let share = Scalar::from_bytes(bytes[32..].try_into().unwrap()).unwrap();
    [&bytes[..32], share.add(&Scalar::one()).to_bytes().as_ref()].concat()
}

#[test]
fn different_messages_to_different_guardians_are_named() {
    let n = 4;
    // Guardian 3 runs twice: one face for guardian 0, the other for the rest.
    let states = start(n);
    let other_face = Dkg::new(b"session", 3, n, KEYS, &mut rand::thread_rng()).unwrap();
    let first: Messages = (0..).zip(states.iter().map(Dkg::commitment)).collect();
    let mut first_0 = first.clone();
    first_0.insert(3, other_face.commitment());
    let mut states = states;
    let zero = states.remove(0).round_1(first_0).unwrap();
    let rest: Vec<_> = states.into_iter().map(|s| s.round_1(first.clone()).unwrap()).collect();
    let other_face = other_face.round_1(first.clone()).unwrap();
    let mut second: Messages = (1..).zip(rest.iter().map(Committed::reveal)).collect();
    second.insert(0, zero.reveal());
    let mut second_0 = second.clone();
    second_0.insert(3, other_face.reveal());
    let zero = zero.round_2(second_0).unwrap();
    let rest: Vec<_> = rest.into_iter().map(|s| s.round_2(second.clone()).unwrap()).collect();
    let other_face = other_face.round_2(second).unwrap();
    let third = |peer: u16| -> Messages {
        let mut shares: Messages =
            (1..).zip(&rest).map(|(dealer, s)| (dealer, s.share_for(peer).unwrap().to_vec())).collect();
        shares.insert(0, zero.share_for(peer).unwrap().to_vec());
        shares
    };
    let mut third_0 = third(0);
    third_0.insert(3, other_face.share_for(0).unwrap().to_vec());
    let (third_1, third_2, third_3) = (third(1), third(2), third(3));
    let zero = zero.round_3(third_0).unwrap();
    let mut rest = rest.into_iter();
    let one = rest.next().unwrap().round_3(third_1).unwrap();
    let two = rest.next().unwrap().round_3(third_2).unwrap();
    let three = rest.next().unwrap().round_3(third_3).unwrap();

    assert_ne!(zero.transcript_hash(), one.transcript_hash());
    let all: Messages = (0..).zip([&zero, &one, &two, &three].map(DkgOutput::confirmation)).collect();
    let named = |reporter| Err(DkgError { dealer: 3, kind: DkgFault::Equivocation { reporter } });
    assert_eq!(zero.confirm(all.clone()), named(3));
    assert_eq!(one.confirm(all.clone()), named(0));
    // Guardian 3 tells guardian 0 what that wants to hear: the others' reports still differ.
    let mut all = all;
    all.insert(3, zero.confirmation());
    assert_eq!(zero.confirm(all), named(1));
}

#[test]
fn other_results_and_garbage_confirmations_are_named() {
    let outputs = federation(4, 1);
    let all: Messages = (0..).zip(outputs.iter().map(DkgOutput::confirmation)).collect();
    assert_eq!(outputs[0].confirm(all.clone()), Ok(()));
    let mut other = all.clone();
    *other.get_mut(&2).unwrap().last_mut().unwrap() ^= 1;
    assert_eq!(outputs[0].confirm(other), Err(DkgError { dealer: 2, kind: DkgFault::OtherResult }));
    let mut short = all;
    short.get_mut(&1).unwrap().pop();
    assert_eq!(outputs[0].confirm(short), Err(DkgError { dealer: 1, kind: DkgFault::Undecodable }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever a dealer commits to and reveals, the answer is an error with its name, or (if still sound) a state.
    #[test]
    fn flipped_bytes_never_panic(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let context = start(2).remove(0).context();
        let replace = |first: &mut Messages, second: &mut Messages| {
            let reveal = second.get_mut(&1).unwrap();
            let at = at.index(reveal.len());
            reveal[at] = to;
            first.insert(1, context.commitment(1, reveal).to_vec());
        };
        if let Err(error) = reveal_with(2, replace) {
            prop_assert_eq!(error.dealer, 1);
        }
    }
}

//! One guardian's core among peers whose every word is written here: what random worlds meet too seldom, step by step.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use federation_consensus::engine::{EngineConfig, FaultKind};
use federation_consensus::header::{HeaderKeys, Signatures};
use federation_consensus::links::testing::{Connection, Receiver, Sender};
use federation_consensus::links::{CHANNEL_CONSENSUS, LinkEvent};
use federation_consensus::runner::core::{Core, Input};
use federation_consensus::runner::{ConsensusEvent, ConsensusStatus, Network, Tail};
use federation_consensus::{Bytes, Header, NodeId};

use crate::disk::{Disk, SimJournal};
use crate::keys::{self, FakeKeys};
use crate::life::Life;

/// Ticks within which all that is waited for here happens.
const TICKS: u32 = 40;

type Said = Vec<(NodeId, u8, Bytes)>;

/// A network that takes everything, and is always up.
#[derive(Clone, Default)]
struct Wire {
    peers: Vec<NodeId>,
    said: Arc<Mutex<Said>>,
}

impl Network for Wire {
    fn send(&self, to: NodeId, channel: u8, frame: Bytes) -> bool {
        self.said.lock().unwrap().push((to, channel, frame));
        true
    }

    fn connections(&self) -> BTreeMap<NodeId, u64> {
        self.peers.iter().map(|peer| (*peer, 1)).collect()
    }
}

/// Guardian 0.
struct Guardian {
    core: Core<Wire>,
    wire: Wire,
    links: BTreeMap<NodeId, (Sender, Receiver, Connection)>,
}

/// A header of this epoch.
fn header(epoch: u64) -> Header {
    Header { epoch, previous: [1; 32], items: [2; 32], state: [3; 32] }
}

fn signatures(n: u16, epoch: u64, by: &[NodeId]) -> Signatures {
    by.iter().map(|node| (*node, FakeKeys::new(*node, n).sign(&header(epoch).hash()))).collect()
}

/// `epoch u64 · 0xffff · kind u8 · body`.
fn statement(epoch: u64, kind: u8, body: &[u8]) -> Bytes {
    let mut out = epoch.to_be_bytes().to_vec();
    out.extend_from_slice(&[0xff, 0xff, kind]);
    out.extend_from_slice(body);
    out.into()
}

fn next(epoch: u64) -> Bytes {
    statement(epoch, 1, &[])
}

fn signed(n: u16, epoch: u64, by: NodeId) -> Bytes {
    let hash = header(epoch).hash();
    statement(epoch, 2, &[&hash[..], &FakeKeys::new(by, n).sign(&hash)].concat())
}

/// "I have forgotten all that I heard before `base`", with a header that these have signed, to the question of a `life`.
fn heard(life: u64, n: u16, base: u64, proof: Option<(u64, &[NodeId])>) -> Bytes {
    let mut body = life.to_be_bytes().to_vec();
    body.push(proof.is_some().into());
    if let Some((epoch, by)) = proof {
        body.extend(header(epoch).encode());
        body.extend((by.len() as u16).to_be_bytes());
        for (node, signature) in signatures(n, epoch, by) {
            body.extend(node.to_be_bytes());
            body.extend(signature);
        }
    }
    statement(base, 4, &body)
}

impl Guardian {
    /// It has committed all epochs before `next_epoch`, and stored these guardians' signatures of the last one.
    fn new(n: u16, next_epoch: u64, stored: &[NodeId]) -> Self {
        let wire = Wire { peers: (1..n).collect(), said: Arc::default() };
        let last = next_epoch.checked_sub(1);
        let headers = last.map(|epoch| (header(epoch), signatures(n, epoch, stored)));
        let tail = Tail { next_epoch, headers: headers.into_iter().collect(), diverged: None };
        let config = EngineConfig::new(0, n, keys::coin(n).remove(0));
        let journal = SimJournal { disk: Disk::default(), life: Life::default() };
        let keys = Arc::new(FakeKeys::new(0, n));
        let core = Core::new(config, wire.clone(), Box::new(journal), &tail, keys).unwrap();
        let link = |peer| {
            let (sender, receiver) = (Sender::new([1; 16]), Receiver::new(peer));
            let connection = Connection::open(&sender, &receiver).unwrap();
            (peer, (sender, receiver, connection))
        };
        Self { core, wire, links: (1..n).map(link).collect() }
    }

    fn arrives(&mut self, from: NodeId, frame: Bytes) -> LinkEvent {
        let (sender, receiver, connection) = self.links.get_mut(&from).unwrap();
        assert!(sender.send(CHANNEL_CONSENSUS, frame, usize::MAX));
        let packet = connection.transmit(sender).unwrap();
        connection.arrive(receiver, packet).unwrap().unwrap()
    }

    fn hears(&mut self, from: NodeId, frame: Bytes) -> Vec<ConsensusEvent> {
        let event = self.arrives(from, frame);
        self.core.round([Input::Frame(event)]).unwrap()
    }

    fn tick(&mut self) -> Vec<ConsensusEvent> {
        self.core.round([Input::Tick]).unwrap()
    }

    fn status(&self) -> ConsensusStatus {
        self.core.status().lock().unwrap().clone()
    }

    fn faults(&self, peer: NodeId, kind: FaultKind) -> u64 {
        self.status().peers.get(&peer).and_then(|peer| peer.faults.get(&kind)).copied().unwrap_or(0)
    }

    /// Ticks until `done`.
    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..TICKS {
            if done(self) {
                return;
            }
            self.tick();
        }
        panic!("{what}: it never happened: {:?}", self.status());
    }

    /// What a peer was told beside the engine's frames, in order: the kinds, and the numbers before them.
    fn statements(&self, peer: NodeId) -> Vec<(u8, u64)> {
        let said = self.wire.said.lock().unwrap();
        let statements = said.iter().filter(|(to, channel, frame)| {
            *to == peer && *channel == CHANNEL_CONSENSUS && frame.get(8..10) == Some(&[0xff, 0xff])
        });
        statements.map(|(.., frame)| (frame[10], u64::from_be_bytes(*frame.first_chunk().unwrap()))).collect()
    }

    fn told(&self, peer: NodeId) -> Vec<u8> {
        self.statements(peer).into_iter().map(|(kind, _)| kind).collect()
    }

    /// Waits until it has asked everyone what they have heard of it. Returns the number of its life.
    fn asks(&mut self) -> u64 {
        let peers: Vec<NodeId> = self.links.keys().copied().collect();
        self.until("it asks", |guardian| peers.iter().all(|peer| guardian.told(*peer).contains(&3)));
        self.statements(1).into_iter().find(|(kind, _)| *kind == 3).unwrap().1
    }
}

/// A liar that says it is far ahead is asked, in vain and again and again; the operator isn't told that the guardian lags.
#[test]
fn one_liar_does_not_make_a_guardian_lag() {
    let mut guardian = Guardian::new(4, 10, &[0, 1, 2]);
    for liar_says in [11, 10_000, u64::MAX] {
        guardian.hears(3, next(liar_says));
        for _ in 0..TICKS {
            guardian.tick();
            assert!(!guardian.status().catching_up, "{liar_says}");
        }
    }
    let asked = guardian.wire.said.lock().unwrap().iter().any(|(to, channel, _)| *to == 3 && *channel != 0);
    assert!(asked, "it is asked all the same");
    // Its signature of what nobody else has signed is no proof either.
    guardian.hears(3, signed(4, 30, 3));
    guardian.tick();
    assert!(!guardian.status().catching_up);
    // A second one is honest, or the other is.
    guardian.hears(2, next(60));
    guardian.until("it catches up", |guardian| guardian.status().catching_up);
    guardian.hears(2, next(10));
    guardian.until("it has caught up", |guardian| !guardian.status().catching_up);
    // Or a header that f + 1 have signed.
    guardian.hears(1, signed(4, 30, 1));
    guardian.until("it catches up", |guardian| guardian.status().catching_up);
}

#[test]
fn without_faulty_guardians_one_peer_is_enough() {
    let mut guardian = Guardian::new(3, 10, &[0, 1, 2]);
    guardian.hears(1, next(20));
    guardian.until("it catches up", |guardian| guardian.status().catching_up);
}

/// Killed after the commit of an epoch, before any signature of it was stored: with f = 0 its own makes it final.
#[test]
fn the_last_epoch_is_final_after_a_kill() {
    for n in 1..=3 {
        let mut guardian = Guardian::new(n, 10, &[]);
        assert_eq!(guardian.status().last_final, Some(9), "n = {n}");
        let expected = ConsensusEvent::Signatures { epoch: 9, signatures: signatures(n, 9, &[0]) };
        assert!(guardian.tick().contains(&expected), "n = {n}");
        assert!(!guardian.tick().contains(&expected), "once is enough");
    }
    assert_eq!(Guardian::new(4, 10, &[]).status().last_final, None);
}

/// A guardian whose disk was put back gets what its earlier self had asked for.
#[test]
fn an_honest_peer_may_not_know_yet_where_this_guardian_is() {
    let far = |epoch: u64| Bytes::from([&epoch.to_be_bytes()[..], &[0, 0, 0, 0]].concat());
    let mut guardian = Guardian::new(4, 10, &[0, 1, 2]);
    guardian.hears(1, next(60));
    for epoch in [14, 62, 63] {
        guardian.hears(1, far(epoch));
        assert_eq!(guardian.faults(1, FaultKind::EpochTooFar), 0, "before it can know better");
    }
    let life = guardian.asks();
    let told = guardian.told(1);
    assert!(
        told.iter().position(|kind| *kind == 1).unwrap() < told.iter().position(|kind| *kind == 3).unwrap(),
        "whoever answers knows where this guardian is: {told:?}"
    );
    guardian.hears(1, far(63));
    assert_eq!(guardian.faults(1, FaultKind::EpochTooFar), 0);
    guardian.tick();
    guardian.tick();
    assert_eq!(guardian.core.sizes(), Guardian::new(4, 10, &[0, 1, 2]).core.sizes(), "nothing is kept of it");
    guardian.hears(1, heard(life, 4, 0, None));
    guardian.hears(1, far(13));
    assert_eq!(guardian.faults(1, FaultKind::EpochTooFar), 0, "within the window");
    guardian.hears(1, far(14));
    guardian.hears(2, far(14));
    assert_eq!(guardian.faults(1, FaultKind::EpochTooFar), 1, "now it does know");
    assert_eq!(guardian.faults(2, FaultKind::EpochTooFar), 0, "and this one does not");
}

/// Epoch 10 is committed by guardian 2 alone, and the liar 3 has its signature: f + 1 with its own. Guardian 0 was killed in the
/// middle of it and is needed, since nobody else can prove the epoch: it must not be made silent.
#[test]
fn f_plus_1_signatures_silence_nobody() {
    let ready = |proof: (u64, &[NodeId])| {
        let mut guardian = Guardian::new(4, 10, &[0, 1, 2]);
        let life = guardian.asks();
        guardian.hears(3, heard(life, 4, 11, Some(proof)));
        guardian.hears(1, heard(life, 4, 0, None));
        guardian.hears(2, heard(life, 4, 0, None));
        guardian.status().speaks_from
    };
    assert!(ready((10, &[2, 3])) <= 10);
    // Nor does its own alone.
    assert!(ready((10, &[3])) <= 10);
    // n - f of them: f + 1 honest guardians have the epoch.
    assert_eq!(ready((10, &[1, 2, 3])), 11);
}

/// What a peer has answered to an earlier life, and what came late, says nothing of what that life has said since.
#[test]
fn an_answer_to_an_earlier_life_is_none() {
    let mut guardian = Guardian::new(4, 10, &[0, 1, 2]);
    let life = guardian.asks();
    for peer in 1..4 {
        guardian.hears(peer, heard(life ^ 1, 4, 0, None));
    }
    assert_eq!(guardian.status().speaks_from, u64::MAX, "nobody has answered");
    guardian.hears(1, heard(life, 4, 0, None));
    assert_eq!(guardian.status().speaks_from, u64::MAX, "one has");
    guardian.hears(2, heard(life, 4, 0, None));
    assert_eq!(guardian.status().speaks_from, 0);
    let other = Guardian::new(4, 10, &[0, 1, 2]).asks();
    assert_ne!(life, other);
}

/// In the agreement, a guardian that has decided still has to repeat what f + 1 others say, or those may wait for ever. So it
/// is told what is said in an epoch that it has committed, until n - f have.
#[test]
fn who_has_committed_an_epoch_is_still_needed_in_it() {
    let engine_frames = |guardian: &Guardian, to: NodeId, epoch: u64| {
        let said = guardian.wire.said.lock().unwrap();
        let of_epoch = |frame: &Bytes| frame[..8] == epoch.to_be_bytes() && frame[8..10] != [0xff, 0xff];
        said.iter().filter(|(peer, _, frame)| *peer == to && of_epoch(frame)).count()
    };
    let told = |next_epoch: u64, stored: &[NodeId], epoch: u64| {
        let mut guardian = Guardian::new(4, next_epoch, stored);
        let life = guardian.asks();
        for (peer, at) in [(1, 11), (2, 10), (3, 10)] {
            guardian.hears(peer, next(at));
            guardian.hears(peer, heard(life, 4, 0, None));
        }
        guardian.core.round([Input::Propose { epoch, value: Bytes::from_static(b"mine") }]).unwrap();
        guardian.tick();
        [1, 2].map(|peer| engine_frames(&guardian, peer, epoch))
    };
    let [past, there] = told(10, &[0, 1, 2], 10);
    assert!(past > 0 && past == there, "{past} {there}");
}

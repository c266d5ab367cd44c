//! What a Byzantine guardian does: it runs the honest core and says something else.

use federation_consensus::engine::{Body, Coding, MerkleTree, Message, Shard, epoch_of};
use federation_consensus::links::{CHANNEL_CONSENSUS, CHANNEL_HISTORY_ANSWER, CHANNEL_HISTORY_REQUEST};
use federation_consensus::{Bytes, Header, NodeId, max_faulty};
use hbbft::binary_agreement::{MessageContent, SbvMessage, bool_set};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::disk::TxId;
use crate::schedule::MAX_PROPOSAL;

/// One habit of a liar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Says nothing to some.
    Silent,
    /// Bytes that make no sense, and bits flipped in those that do.
    Garbage,
    /// Commits to something that is no codeword.
    NonCodeword,
    /// Different proposals and READYs to different guardians.
    Equivocate,
    /// Random values in the agreement.
    Twist,
    /// Says everything to few, and claims that it has decided.
    Starve,
    /// Names proposers that don't exist, or aren't meant.
    UnknownProposer,
    /// Coin shares of other coins.
    FalseCoin,
    /// Stale and future epochs.
    WrongEpoch,
    /// Frames larger than any honest one.
    Oversized,
    /// The same frame again and again.
    Repeat,
    /// Contributions that don't decode, or are others' transactions.
    BadContribution,
    /// Signs another header than its state gives.
    FalseHeader,
    /// Signatures that don't hold.
    FalseSignature,
    /// Wrong answers about past epochs.
    FalseHistory,
    /// Wrong answers about what it has heard.
    FalseHeard,
    /// Wrong statements about how far it has come.
    FalseNext,
    /// As many different statements as fit anywhere.
    Flood,
}

pub const LIES: [Lie; 18] = [
    Lie::Silent,
    Lie::Garbage,
    Lie::NonCodeword,
    Lie::Equivocate,
    Lie::Twist,
    Lie::Starve,
    Lie::UnknownProposer,
    Lie::FalseCoin,
    Lie::WrongEpoch,
    Lie::Oversized,
    Lie::Repeat,
    Lie::BadContribution,
    Lie::FalseHeader,
    Lie::FalseSignature,
    Lie::FalseHistory,
    Lie::FalseHeard,
    Lie::FalseNext,
    Lie::Flood,
];

/// A liar's mind.
pub struct Adversary {
    me: NodeId,
    n: u16,
    lies: Vec<Lie>,
    /// Of what could be a lie, how much is.
    rate: f64,
    rng: StdRng,
    /// Frames of others' or earlier, to be said again in the wrong place.
    stash: Vec<Bytes>,
    coins: Vec<MessageContent>,
}

impl Adversary {
    pub fn new(me: NodeId, n: u16, lies: Vec<Lie>, rate: f64, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self { me, n, lies, rate, rng, stash: Vec::new(), coins: Vec::new() }
    }

    fn has(&self, lie: Lie) -> bool {
        self.lies.contains(&lie)
    }

    fn feels_like(&mut self, lie: Lie) -> bool {
        self.has(lie) && self.rng.gen_bool(self.rate)
    }

    fn bytes(&mut self, max: usize) -> Vec<u8> {
        (0..self.rng.gen_range(0..=max)).map(|_| self.rng.r#gen()).collect()
    }

    fn epoch_near(&mut self, epoch: u64) -> u64 {
        match self.rng.gen_range(0..8) {
            0 => 0,
            1 => epoch.saturating_sub(1),
            2 => epoch.saturating_sub(self.rng.gen_range(0..20)),
            3 => epoch + 1,
            4 => epoch + self.rng.gen_range(0..6),
            5 => epoch + 1000,
            6 => u64::MAX,
            _ => epoch,
        }
    }

    /// What really goes to `to` instead of `frame`.
    pub fn twist(&mut self, to: NodeId, channel: u8, frame: Bytes) -> Vec<Bytes> {
        if self.has(Lie::Silent) && (self.me + to).is_multiple_of(2) && channel == CHANNEL_CONSENSUS {
            return Vec::new();
        }
        if self.feels_like(Lie::Garbage) && self.rng.gen_bool(0.3) {
            return vec![self.garble(&frame)];
        }
        let statement = frame.get(8..10) == Some(&[0xff, 0xff]);
        let mut out = match channel {
            CHANNEL_CONSENSUS if statement => vec![self.twist_statement(frame)],
            CHANNEL_CONSENSUS => self.twist_frame(to, frame),
            CHANNEL_HISTORY_ANSWER if self.feels_like(Lie::FalseHistory) => self.twist_answer(&frame),
            CHANNEL_HISTORY_REQUEST if self.feels_like(Lie::FalseNext) => vec![self.bytes(20).into()],
            _ => vec![frame],
        };
        if self.feels_like(Lie::Repeat)
            && let Some(last) = out.last().cloned()
        {
            let times = self.rng.gen_range(1..4);
            out.extend(std::iter::repeat_n(last, times));
        }
        out
    }

    fn garble(&mut self, frame: &Bytes) -> Bytes {
        let mut bytes = frame.to_vec();
        if bytes.is_empty() {
            return frame.clone();
        }
        match self.rng.gen_range(0..5) {
            0 => bytes.truncate(self.rng.gen_range(0..bytes.len())),
            1 => bytes = self.bytes(80),
            2 => bytes.extend(self.bytes(8)),
            3 if bytes.len() > 10 => bytes[10] = self.rng.r#gen(),
            _ => {
                let at = self.rng.gen_range(0..bytes.len());
                bytes[at] ^= 1 << self.rng.gen_range(0..8);
            }
        }
        bytes.into()
    }

    /// `epoch u64 · 0xffff · kind u8 · body`.
    fn twist_statement(&mut self, frame: Bytes) -> Bytes {
        let mut bytes = frame.to_vec();
        let epoch = epoch_of(&frame).unwrap_or(0);
        match frame.get(10) {
            Some(1) if self.feels_like(Lie::FalseNext) => {
                bytes[..8].copy_from_slice(&self.epoch_near(epoch).to_be_bytes());
            }
            Some(2) if self.feels_like(Lie::FalseSignature) => {
                if self.rng.gen_bool(0.3) {
                    bytes[..8].copy_from_slice(&self.epoch_near(epoch).to_be_bytes());
                }
                let at = self.rng.gen_range(11..bytes.len());
                bytes[at] ^= 1;
            }
            Some(4) if self.feels_like(Lie::FalseHeard) => return self.false_heard(bytes),
            _ => return frame,
        }
        bytes.into()
    }

    /// `base · mark · 4 · a final header or not · (epoch · id · tag)*`: forgets what it has heard, or makes up more.
    fn false_heard(&mut self, mut bytes: Vec<u8>) -> Bytes {
        const FRAME: usize = 8 + 8 + 8;
        let mut base = u64::from_be_bytes(bytes[..8].try_into().unwrap());
        let signatures = bytes.get(12 + Header::SIZE..).and_then(|rest| rest.first_chunk::<2>());
        let signatures = signatures.map_or(0, |count| u16::from_be_bytes(*count) as usize);
        let frames = 12 + if bytes[11] == 1 { Header::SIZE + 2 + 66 * signatures } else { 0 };
        let latest = bytes.get(frames..).and_then(|frames| frames.chunks_exact(FRAME).last());
        let latest = latest.and_then(|frame| frame.first_chunk::<8>()).map_or(base, |e| u64::from_be_bytes(*e));
        match self.rng.gen_range(0..4) {
            0 => bytes.truncate(frames),
            1 => base = self.epoch_near(base),
            2 if bytes.len() > frames => {
                // A right tag for another frame, or epoch.
                let at = self.rng.gen_range(frames..bytes.len());
                bytes[at] ^= 1;
            }
            _ => {
                for _ in 0..self.rng.gen_range(1..20) {
                    let epoch = latest.min(1 << 40) + self.rng.gen_range(0..5);
                    bytes.extend_from_slice(&epoch.to_be_bytes());
                    bytes.extend((0..16).map(|_| self.rng.r#gen::<u8>()));
                }
            }
        }
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        bytes.into()
    }

    fn twist_answer(&mut self, frame: &Bytes) -> Vec<Bytes> {
        let mut bytes = frame.to_vec();
        match self.rng.gen_range(0..5) {
            0 => Vec::new(),
            1 => {
                // Pretends that all of it is gone.
                let mut begins = vec![2];
                let first = self.rng.gen_range(0..40u64);
                begins.extend_from_slice(&first.to_be_bytes());
                vec![begins.into()]
            }
            2 => vec![self.garble(frame)],
            _ => {
                // Another batch, header or signature.
                if bytes.len() > 1 {
                    let at = self.rng.gen_range(1..bytes.len());
                    bytes[at] = bytes[at].wrapping_add(1);
                }
                vec![bytes.into()]
            }
        }
    }

    /// A leaf of a tree over shards that are a codeword but for one byte in one shard, no padding being there to give
    /// it away: any n - 2f of them decode to something, only not to the same.
    fn false_shard(&self, epoch: u64, node: NodeId) -> Shard {
        let data = (self.n - 2 * max_faulty(self.n)) as usize;
        let mut shards = Coding::new(self.n).encode(&vec![epoch as u8; 40 * data - 4]);
        let wrong = (epoch % u64::from(self.n)) as usize;
        let mut bytes = shards[wrong].to_vec();
        bytes[39] ^= 1;
        shards[wrong] = bytes.into();
        shard_of(&shards, node)
    }

    fn twist_frame(&mut self, to: NodeId, frame: Bytes) -> Vec<Bytes> {
        let Ok(message) = Message::decode(frame.clone(), self.n) else { return vec![frame] };
        if self.stash.len() < 32 {
            self.stash.push(frame.clone());
        } else if self.rng.gen_bool(0.1) {
            let at = self.rng.gen_range(0..self.stash.len());
            self.stash[at] = frame.clone();
        }
        let epoch = message.epoch;
        let again = |body: Body| vec![Message { body, ..message.clone() }.encode()];
        if self.feels_like(Lie::UnknownProposer) {
            let proposer =
                if self.rng.gen_bool(0.5) { self.rng.gen_range(0..self.n) } else { self.rng.gen_range(self.n..0xffff) };
            return vec![Message { proposer, ..message.clone() }.encode(), frame];
        }
        if self.has(Lie::WrongEpoch) && self.rng.gen_bool(self.rate * 0.2) {
            return vec![Message { epoch: self.epoch_near(epoch), ..message.clone() }.encode(), frame];
        }
        if self.has(Lie::Oversized) && self.rng.gen_bool(self.rate * 0.1) {
            let mut bytes = frame.to_vec();
            bytes.resize(4 * MAX_PROPOSAL + self.rng.gen_range(0..2 * MAX_PROPOSAL), 7);
            return vec![bytes.into(), frame];
        }
        if self.has(Lie::NonCodeword) {
            match &message.body {
                Body::Value(_) => return again(Body::Value(self.false_shard(epoch, to))),
                // It echoes to one guardian only, as in the attack on hbbft: what others decode from is different.
                Body::Echo(_) if message.proposer == self.me => {
                    let body = Body::Echo(self.false_shard(epoch, self.me));
                    return if u64::from(to) == epoch % u64::from(self.n) { again(body) } else { Vec::new() };
                }
                Body::Ready(_) if message.proposer == self.me => {
                    return again(Body::Ready(self.false_shard(epoch, self.me).root));
                }
                _ => {}
            }
        }
        if self.has(Lie::Equivocate) && to.is_multiple_of(2) {
            match &message.body {
                Body::Value(shard) => {
                    let shards = Coding::new(self.n).encode(&vec![to as u8; shard.data.len()]);
                    return again(Body::Value(shard_of(&shards, to)));
                }
                Body::Ready(_) => return again(Body::Ready([to as u8; 32])),
                _ => {}
            }
        }
        let Body::Agreement(agreement) = &message.body else { return vec![frame] };
        let round = agreement.epoch;
        if self.has(Lie::FalseCoin)
            && let MessageContent::Coin(_) = &agreement.content
        {
            let other = self.coins.choose(&mut self.rng).cloned();
            self.coins.push(agreement.content.clone());
            if let Some(other) = other.filter(|_| self.rng.gen_bool(self.rate)) {
                return again(Body::Agreement(other.with_epoch(round)));
            }
        }
        if self.feels_like(Lie::Twist) || self.feels_like(Lie::Equivocate) {
            let value = self.rng.r#gen();
            let content = match agreement.content.clone() {
                MessageContent::SbvBroadcast(SbvMessage::BVal(_)) => {
                    MessageContent::SbvBroadcast(SbvMessage::BVal(value))
                }
                MessageContent::SbvBroadcast(SbvMessage::Aux(_)) => {
                    MessageContent::SbvBroadcast(SbvMessage::Aux(value))
                }
                MessageContent::Conf(_) if value => MessageContent::Conf(bool_set::NONE),
                MessageContent::Conf(_) => MessageContent::Conf(bool_set::BOTH),
                MessageContent::Term(_) => MessageContent::Term(value),
                coin => coin,
            };
            let round = if self.rng.gen_bool(0.1) { round + self.rng.gen_range(1..4) } else { round };
            return again(Body::Agreement(content.with_epoch(round)));
        }
        if self.has(Lie::Starve) {
            // Says everything to one guardian and hardly anything to the others.
            if !to.is_multiple_of(3) && !self.rng.gen_bool(0.1) {
                return Vec::new();
            }
            if self.rng.gen_bool(0.2) {
                return again(Body::Agreement(MessageContent::Term(true).with_epoch(round + 1)));
            }
        }
        vec![frame]
    }

    /// Something out of the blue.
    pub fn inject(&mut self, epoch: u64) -> Vec<(u8, Bytes)> {
        if self.feels_like(Lie::Flood) {
            return (0..20).map(|_| (CHANNEL_CONSENSUS, self.any_statement(epoch))).collect();
        }
        if self.feels_like(Lie::Garbage) {
            let channel = self.rng.gen_range(0..8);
            return vec![(channel, self.bytes(120).into())];
        }
        let Some(frame) = self.stash.choose(&mut self.rng).cloned() else { return Vec::new() };
        let mut bytes = frame.to_vec();
        if self.feels_like(Lie::WrongEpoch) || self.feels_like(Lie::Repeat) {
            if self.rng.gen_bool(0.5) {
                bytes[..8].copy_from_slice(&self.epoch_near(epoch).to_be_bytes());
            }
        } else if self.feels_like(Lie::UnknownProposer) {
            bytes[8..10].copy_from_slice(&self.rng.r#gen::<u16>().to_be_bytes());
        } else {
            return Vec::new();
        }
        vec![(CHANNEL_CONSENSUS, bytes.into())]
    }

    /// A statement that one could make, in any epoch, about anyone and in any round.
    fn any_statement(&mut self, epoch: u64) -> Bytes {
        let value = self.rng.r#gen();
        if self.rng.gen_bool(0.2) {
            // A signature of a header.
            let mut bytes = (epoch + self.rng.gen_range(0..400)).to_be_bytes().to_vec();
            bytes.extend_from_slice(&[0xff, 0xff, 2]);
            bytes.extend((0..96).map(|_| self.rng.r#gen::<u8>()));
            return bytes.into();
        }
        let content = match self.rng.gen_range(0..5) {
            0 | 1 => MessageContent::SbvBroadcast(SbvMessage::BVal(value)),
            2 => MessageContent::SbvBroadcast(SbvMessage::Aux(value)),
            3 => MessageContent::Conf(if value { bool_set::BOTH } else { bool_set::TRUE }),
            _ => MessageContent::Term(value),
        };
        let body = match self.rng.gen_range(0..10) {
            0 => Body::Ready(self.rng.r#gen()),
            _ => Body::Agreement(content.with_epoch(self.rng.gen_range(0..260))),
        };
        let proposer = self.rng.gen_range(0..self.n);
        Message { epoch: epoch + self.rng.gen_range(0..5), proposer, body }.encode()
    }

    /// What it proposes instead of `value`.
    pub fn contribution(&mut self, value: Bytes, known: &[TxId]) -> Bytes {
        if !self.feels_like(Lie::BadContribution) {
            return value;
        }
        match self.rng.gen_range(0..4) {
            0 => self.bytes(MAX_PROPOSAL).into(),
            1 => vec![0xff; MAX_PROPOSAL].into(),
            2 => Bytes::new(),
            _ => {
                // What others have proposed, and has been applied.
                let ids = known.choose_multiple(&mut self.rng, 5);
                crate::disk::encode(&ids.map(|id| (*id, Bytes::new())).collect::<Vec<_>>())
            }
        }
    }

    /// What it commits to instead of `header`.
    pub fn header(&mut self, mut header: Header) -> Header {
        if self.feels_like(Lie::FalseHeader) {
            match self.rng.gen_range(0..3) {
                0 => header.state[0] ^= 1,
                1 => header.previous[0] ^= 1,
                _ => header.items[0] ^= 1,
            }
        }
        header
    }
}

fn shard_of(shards: &[Bytes], node: NodeId) -> Shard {
    let tree = MerkleTree::new(shards);
    Shard { root: tree.root(), proof: tree.proof(node), data: shards[node as usize].clone() }
}

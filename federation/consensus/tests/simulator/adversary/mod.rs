//! What a Byzantine guardian does: it runs the honest core and says something else.

mod frames;
mod lie;
mod statements;

use federation_consensus::engine::{Body, Message};
use federation_consensus::header::Signatures;
use federation_consensus::links::{CHANNEL_CONSENSUS, CHANNEL_HISTORY_ANSWER, CHANNEL_HISTORY_REQUEST};
use federation_consensus::{Bytes, Header, NodeId};
use hbbft::binary_agreement::{MessageContent, SbvMessage, bool_set};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

pub use self::lie::{LIES, Lie};
use crate::disk::TxId;
use crate::schedule::MAX_PROPOSAL;

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
    /// The last header of which it has others' signatures.
    proof: Option<(Header, Signatures)>,
}

impl Adversary {
    pub fn new(me: NodeId, n: u16, lies: Vec<Lie>, rate: f64, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self { me, n, lies, rate, rng, stash: Vec::new(), coins: Vec::new(), proof: None }
    }

    /// A header that its own guardian has committed, and signatures of it.
    pub fn learns(&mut self, header: Header, signatures: &Signatures) {
        if self.proof.as_ref().is_none_or(|(known, _)| known.epoch < header.epoch) {
            self.proof = Some((header, signatures.clone()));
        }
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

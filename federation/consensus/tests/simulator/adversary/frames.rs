//! Lies in the engine's frames.

use federation_consensus::engine::{Body, Coding, MerkleTree, Message, Shard};
use federation_consensus::{Bytes, NodeId, max_faulty};
use hbbft::binary_agreement::{MessageContent, SbvMessage, bool_set};
use rand::Rng;
use rand::seq::SliceRandom;

use super::{Adversary, Lie};
use crate::schedule::MAX_PROPOSAL;

impl Adversary {
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

    pub(super) fn twist_frame(&mut self, to: NodeId, frame: Bytes) -> Vec<Bytes> {
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
            let proposer = if self.rng.gen_bool(0.5) {
                self.rng.gen_range(0..self.n)
            } else {
                self.rng.gen_range(self.n..0xffff)
            };
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
}

fn shard_of(shards: &[Bytes], node: NodeId) -> Shard {
    let tree = MerkleTree::new(shards);
    Shard { root: tree.root(), proof: tree.proof(node), data: shards[node as usize].clone() }
}

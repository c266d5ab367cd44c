//! What moves: frames, transactions, and what liars add to it.

use std::collections::BTreeSet;

use federation_consensus::{Bytes, NodeId};
use rand::Rng;
use rand::seq::SliceRandom;

use super::{Phase, World};
use crate::checks::Fault;
use crate::disk::TxId;
use crate::network::MAX_QUEUED;

impl World {
    /// Something moves between two guardians.
    pub(super) fn serve_link(&mut self, from: NodeId, to: NodeId) -> Result<(), Fault> {
        let n = self.n as usize;
        let link = &mut self.links[from as usize * n + to as usize];
        if link.slow && self.rng.gen_bool(0.97) {
            return Ok(());
        }
        let burst = if link.slow { 64 } else { self.schedule.burst };
        let mut count = || self.rng.gen_range(0..=burst);
        let (transmit, deliver, acks) = (count(), count(), count());
        let greeting = self.rng.gen_bool(0.9);
        let mut pair =
            self.nodes.iter_mut().enumerate().filter(|(id, _)| *id == from as usize || *id == to as usize);
        let (Some((first, a)), Some((_, b))) = (pair.next(), pair.next()) else { return Ok(()) };
        let (sender, receiver) = if first == from as usize { (a, b) } else { (b, a) };
        let honest = sender.honest();
        let stream = sender.running.as_ref().map(|running| running.network.senders[&to].clone());
        let Some(target) = &mut receiver.running else { return Ok(()) };
        let other = &target.receivers[&from];
        let mut sent = Vec::new();
        if let Some(stream) = &stream {
            if !link.is_up() && !link.blocked {
                link.open(stream, other, greeting);
            }
            sent = link.transmit(stream, transmit);
        }
        self.tally.frames += sent.len() as u64;
        link.deliver(stream.as_ref(), other, deliver, &mut target.inboxes);
        link.acknowledge(other, target.life.may_acknowledge(from));
        if let Some(stream) = &stream {
            link.read_acks(stream, acks);
        }
        if honest { self.note(from, &sent) } else { Ok(()) }
    }

    /// An honest guardian's frames have left it.
    pub(super) fn note(&mut self, from: NodeId, frames: &[Bytes]) -> Result<(), Fault> {
        let nodes = &self.nodes;
        for frame in frames {
            self.checks.said(from, frame, || {
                let others = nodes.iter().filter(|node| node.honest() && node.id() != from);
                others.map(|node| node.disk.lock().journal.records.clone()).collect()
            })?;
        }
        Ok(())
    }

    pub(super) fn round(&mut self, tick: bool) -> Result<(), Fault> {
        let id = self.any();
        let most = self.schedule.group * (self.n as usize).div_ceil(4);
        let group = self.rng.gen_range(1..=most);
        self.nodes[id as usize].round(group, tick, &mut self.rng)?;
        let died = self.nodes[id as usize].running.as_ref().is_some_and(|running| running.life.is_dead());
        if died { self.bury(id) } else { Ok(()) }
    }

    /// A client hands a transaction to one guardian only.
    pub(super) fn submit(&mut self) {
        let waiting = self.next_tx - self.accepted.intersection(&self.applied()).count() as u64;
        if self.phase == Phase::Drain || waiting >= self.schedule.load as u64 + self.excused.len() as u64 {
            return;
        }
        let id = self.any();
        let size = *[0, 10, 100, 1000].choose(&mut self.rng).unwrap_or(&0);
        let node = &self.nodes[id as usize];
        if node.running.is_some() {
            let bytes = Bytes::from(vec![7; size]);
            node.disk.lock().database.pool.insert(self.next_tx, bytes);
            if node.honest() {
                self.accepted.insert(self.next_tx);
            } else {
                self.excused.insert(self.next_tx);
            }
            self.next_tx += 1;
        }
    }

    pub(super) fn applied(&self) -> BTreeSet<TxId> {
        let best = self.honest().max_by_key(|node| node.next_epoch());
        best.map(|node| node.disk.lock().database.applied.clone()).unwrap_or_default()
    }

    /// A liar says something unasked.
    pub(super) fn inject(&mut self) {
        if self.phase == Phase::Drain && self.rng.gen_bool(0.9) {
            return;
        }
        let Some((liar, ..)) = self.schedule.liars.choose(&mut self.rng) else { return };
        let liar = *liar;
        let to = self.any();
        let node = &self.nodes[liar as usize];
        let (Some(adversary), Some(running)) = (&node.adversary, &node.running) else { return };
        let Some(stream) = running.network.senders.get(&to) else { return };
        for (channel, frame) in adversary.lock().unwrap().inject(node.next_epoch()) {
            let _ = stream.send(channel, frame, MAX_QUEUED);
        }
    }
}

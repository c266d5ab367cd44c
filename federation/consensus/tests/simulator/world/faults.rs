//! What breaks: connections, the network, guardians, their disks.

use federation_consensus::{NodeId, max_faulty};
use rand::Rng;

use super::{Phase, World};
use crate::checks::Fault;
use crate::disk::TxId;
use crate::life::Manner;
use crate::schedule::Schedule;

impl World {
    /// What breaks in this step.
    pub(super) fn weather(&mut self) -> Result<(), Fault> {
        let Schedule { drop, partition, crash, crash_all, .. } = self.schedule;
        if self.rng.gen_bool(drop) {
            let (from, to) = (self.any(), self.any());
            self.cut(from, to);
            self.tally.drops += 1;
        }
        if self.partition_until != 0 && self.step >= self.partition_until {
            self.heal();
        } else if self.partition_until == 0 && self.rng.gen_bool(partition) {
            self.part();
        }
        if self.rng.gen_bool(crash) {
            let id = self.any();
            self.crash(id)?;
        }
        if self.rng.gen_bool(crash_all) {
            self.tally.crashes_of_all += 1;
            for id in 0..self.n {
                self.crash(id)?;
            }
        }
        Ok(())
    }

    pub(super) fn cut(&mut self, from: NodeId, to: NodeId) {
        let running = self.nodes[from as usize].running.as_ref();
        let stream = running.and_then(|running| running.network.senders.get(&to).cloned());
        self.link(from, to).drop_connection(stream.as_ref());
    }

    /// Two sides that don't hear each other, or some links that don't carry.
    pub(super) fn part(&mut self) {
        self.tally.partitions += 1;
        let time = self.rng.gen_range(1..=self.schedule.partition_time);
        self.partition_until = self.step + time;
        let one_way = self.rng.gen_bool(0.3);
        let sides: Vec<bool> = (0..self.n).map(|_| self.rng.r#gen()).collect();
        for from in 0..self.n {
            for to in 0..self.n {
                let apart = sides[from as usize] != sides[to as usize];
                if if one_way { self.rng.gen_bool(0.3) } else { apart } {
                    self.link(from, to).blocked = true;
                    self.cut(from, to);
                }
            }
        }
    }

    pub(super) fn heal(&mut self) {
        self.partition_until = 0;
        self.links.iter_mut().for_each(|link| link.blocked = false);
    }

    /// A guardian dies, now or in the middle of something soon. Liars don't: they have said worse.
    pub(super) fn crash(&mut self, id: NodeId) -> Result<(), Fault> {
        if !self.nodes[id as usize].honest() {
            return Ok(());
        }
        let soon = self.rng.gen_bool(self.schedule.fuse);
        let fuse = self.fuse();
        let Some(running) = &self.nodes[id as usize].running else { return Ok(()) };
        if soon && !running.life.is_lit() {
            running.life.light(fuse.0, fuse.1);
            return Ok(());
        }
        running.life.end();
        self.bury(id)
    }

    pub(super) fn fuse(&mut self) -> (u32, Manner) {
        let manner = match self.rng.gen_range(0..4) {
            0 => Manner::Before,
            1 => Manner::After,
            2 => Manner::Torn(self.rng.gen_range(0..4)),
            _ => Manner::Torn(1),
        };
        (self.rng.gen_range(0..30), manner)
    }

    /// What a death leaves behind. Some of what it had handed to the links may have left, and arrive.
    pub(super) fn bury(&mut self, id: NodeId) -> Result<(), Fault> {
        self.tally.crashes += 1;
        let Some(running) = self.nodes[id as usize].running.take() else { return Ok(()) };
        let down = self.rng.gen_range(1..=self.schedule.downtime);
        self.nodes[id as usize].restart_at = self.step + down;
        for peer in (0..self.n).filter(|peer| *peer != id) {
            let left = if self.rng.gen_bool(0.5) { 0 } else { self.rng.gen_range(0..60) };
            let stream = running.network.senders[&peer].clone();
            let sent = self.link(id, peer).orphan(&stream, left);
            self.note(id, &sent)?;
            // Its last acknowledgements may still be read.
            let receiver = &running.receivers[&peer];
            let limit = running.life.may_acknowledge(peer);
            let heard = self.rng.gen_bool(0.5);
            if let Some(other) = &self.nodes[peer as usize].running {
                let stream = other.network.senders[&id].clone();
                let link = self.link(peer, id);
                if heard {
                    link.acknowledge(receiver, limit);
                    link.read_acks(&stream, usize::MAX);
                }
                link.drop_connection(Some(&stream));
            } else {
                self.link(peer, id).drop_connection(None);
            }
        }
        Ok(())
    }

    pub(super) fn restart_the_dead(&mut self) -> Result<(), Fault> {
        for id in 0..self.n {
            let node = &self.nodes[id as usize];
            if node.running.is_some() || (self.phase == Phase::Storm && node.restart_at > self.step) {
                continue;
            }
            let first = self.sessions < u64::from(self.n);
            if self.phase == Phase::Storm && !first {
                self.maybe_lose_disk(id);
            }
            self.sessions += 1;
            let mut session = [0; 16];
            session[..8].copy_from_slice(&self.sessions.to_be_bytes());
            let fuse = self.fuse();
            let at_once = self.phase == Phase::Storm && !first && self.rng.gen_bool(0.1);
            let honest = self.nodes[id as usize].honest();
            let fuse = Some(fuse).filter(|_| at_once && honest);
            self.nodes[id as usize].start(session, fuse)?;
            if self.nodes[id as usize].running.is_none() {
                self.tally.crashes += 1;
                self.nodes[id as usize].restart_at = self.step + 1;
            }
        }
        Ok(())
    }

    /// Wipes a guardian or puts it back to an earlier copy, as long as not more than f are faulty or forgetful.
    pub(super) fn maybe_lose_disk(&mut self, id: NodeId) {
        let forgetful = self.nodes.iter().filter(|node| node.amnesiac_until.is_some()).count();
        if !self.nodes[id as usize].honest()
            || self.schedule.liars.len() + forgetful >= max_faulty(self.n) as usize
        {
            return;
        }
        let node = &mut self.nodes[id as usize];
        let before = node.disk.lock().clone();
        if self.rng.gen_bool(self.schedule.wipe) {
            let mut contents = node.disk.lock();
            contents.journal = Default::default();
            if self.rng.gen_bool(0.7) {
                contents.database = Default::default();
            }
            self.tally.wipes += 1;
        } else if self.rng.gen_bool(self.schedule.rollback)
            && let Some(copy) = node.copy.take()
        {
            *node.disk.lock() = copy;
            self.tally.rollbacks += 1;
        } else {
            return;
        }
        // It may have spoken up to the end of the window of what it had output, a little more than it had committed.
        let spoken = before.journal.records.iter().map(|record| record.epoch() + 1).max().unwrap_or(0);
        node.amnesiac_until = Some(spoken.max(before.database.next_epoch() + node.config.window));
        node.copy = None;
        let contents = node.disk.lock();
        let kept =
            |id: &TxId| contents.database.pool.contains_key(id) || contents.database.applied.contains(id);
        self.excused.extend(before.database.pool.keys().filter(|id| !kept(id)));
        self.checks.disk_lost(id);
    }
}

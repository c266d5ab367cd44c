//! The network: one ordered stream for each pair of guardians, over connections that come and go.
//!
//! What is under way when a connection goes is lost; the real state machines of [`links::testing`] bring it back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use federation_consensus::links::testing::{Connection, Packet, Receiver, Sender};
use federation_consensus::links::{CHANNEL_CONSENSUS, LinkEvent};
use federation_consensus::runner::Network;
use federation_consensus::{Bytes, NodeId};

use crate::adversary::Adversary;
use crate::life::Life;

/// Bytes that wait for one peer before a frame is refused: so few that it happens.
pub const MAX_QUEUED: usize = 64 << 10;
/// Packets on one connection at a time.
const ON_THE_WIRE: usize = 48;
/// The links' limit for a frame, far above any honest one.
pub const MAX_FRAME: usize = 256 << 10;
/// Frames that wait for one consumer, as in the links.
pub const INBOX: usize = 256;
pub const CHANNELS: usize = 8;

/// The links as one life of a guardian's core sees them.
#[derive(Clone)]
pub struct SimNetwork {
    pub senders: BTreeMap<NodeId, Sender>,
    pub life: Life,
    /// A liar's links say something else than its core.
    pub adversary: Option<Arc<Mutex<Adversary>>>,
}

impl Network for SimNetwork {
    fn send(&self, to: NodeId, channel: u8, frame: Bytes) -> bool {
        if self.life.operation().is_some() {
            return true; // Nobody is there any more to see it.
        }
        let Some(sender) = self.senders.get(&to) else { return true };
        match &self.adversary {
            None => sender.send(channel, frame, MAX_QUEUED),
            Some(adversary) => {
                let frames = adversary.lock().unwrap().twist(to, channel, frame);
                // A liar has to keep to the links' bounds, too, or it is cut off.
                frames.into_iter().filter(|frame| frame.len() <= MAX_FRAME).for_each(|frame| {
                    let _ = sender.send(channel, frame, 4 * MAX_QUEUED);
                });
                true
            }
        }
    }

    fn connections(&self) -> BTreeMap<NodeId, u64> {
        self.senders.iter().filter_map(|(peer, sender)| Some((*peer, sender.connected()?))).collect()
    }
}

/// A link from one guardian to another.
#[derive(Default)]
pub struct Link {
    connection: Option<Connection>,
    wire: VecDeque<Packet>,
    acks: VecDeque<u64>,
    /// The sender has died; what it had sent may still arrive.
    orphan: bool,
    /// No connection can be made.
    pub blocked: bool,
    /// Seldom served.
    pub slow: bool,
}

impl Link {
    pub const fn is_up(&self) -> bool {
        self.connection.is_some() && !self.orphan
    }

    /// Makes a connection. `heard`: whether the dialer hears the answer.
    pub fn open(&mut self, from: &Sender, to: &Receiver, heard: bool) {
        self.forget();
        if heard {
            self.connection = Connection::open(from, to).ok();
        } else {
            Connection::open_in_vain(from, to);
        }
    }

    fn forget(&mut self) {
        self.connection = None;
        self.wire.clear();
        self.acks.clear();
        self.orphan = false;
    }

    /// The connection breaks; the sender, if it lives, notices.
    pub fn drop_connection(&mut self, from: Option<&Sender>) {
        if let (Some(from), true) = (from, self.is_up()) {
            Connection::down(from);
        }
        self.forget();
    }

    /// The sender has died; so many of its last frames had left before.
    pub fn orphan(&mut self, from: &Sender, frames: usize) -> Vec<Bytes> {
        let sent = self.transmit(from, frames);
        self.orphan = self.connection.is_some();
        self.acks.clear();
        sent
    }

    /// Puts up to `frames` frames on the wire and returns them.
    pub fn transmit(&mut self, from: &Sender, frames: usize) -> Vec<Bytes> {
        let mut sent = Vec::new();
        let Some(connection) = self.connection.as_mut().filter(|_| !self.orphan) else { return sent };
        while sent.len() < frames && self.wire.len() < ON_THE_WIRE {
            let Some(packet) = connection.transmit(from) else { break };
            if packet.channel() == CHANNEL_CONSENSUS {
                sent.push(packet.frame().clone());
            }
            self.wire.push_back(packet);
        }
        sent
    }

    /// Takes up to `frames` packets off the wire. Returns what there is for the receiver's consumers.
    pub fn deliver(
        &mut self,
        from: Option<&Sender>,
        to: &Receiver,
        frames: usize,
        inboxes: &mut [VecDeque<LinkEvent>; CHANNELS],
    ) {
        for _ in 0..frames {
            let Some(connection) = &self.connection else { return };
            let Some(packet) = self.wire.front() else { break };
            let inbox = &mut inboxes[packet.channel() as usize];
            if inbox.len() >= INBOX {
                return;
            }
            let Some(packet) = self.wire.pop_front() else { return };
            match connection.arrive(to, packet) {
                Ok(event) => inbox.extend(event),
                Err(_) => return self.drop_connection(from),
            }
        }
        if self.orphan && self.wire.is_empty() {
            self.forget();
        }
    }

    /// The receiver acknowledges up to `limit`.
    pub fn acknowledge(&mut self, to: &Receiver, limit: u64) {
        if let (Some(connection), false) = (&mut self.connection, self.orphan) {
            self.acks.extend(connection.acknowledge(to, limit));
        }
    }

    /// The sender reads up to `count` acknowledgements.
    pub fn read_acks(&mut self, from: &Sender, count: usize) {
        for _ in 0..count {
            let Some(number) = self.acks.pop_front() else { return };
            if Connection::acknowledged(from, number).is_err() {
                return self.drop_connection(Some(from));
            }
        }
    }
}

//! The links' state machines without sockets and clocks, for simulators: the numbering, acknowledging, resending and
//! handing over once of real links, over connections that are the simulator's own.
//!
//! What [`dialer`](super::dialer) and [`acceptor`](super::acceptor) do with packets on a socket, a simulator does with
//! [`Connection`]'s methods, one by one and in whatever order it likes.

use std::sync::Arc;

use bytes::Bytes;

use super::peer::{Arrival, Incoming, Outgoing, Receipt};
use super::{CHANNELS, LinkEvent};
use crate::NodeId;

/// One life of a guardian's stream to one peer.
#[derive(Debug, Clone)]
pub struct Sender {
    session: [u8; 16],
    outgoing: Arc<Outgoing>,
}

impl Sender {
    /// A new stream in the guardian's life `session`.
    #[must_use]
    pub fn new(session: [u8; 16]) -> Self {
        Self { session, outgoing: Arc::default() }
    }

    /// Queues a frame, if not more than `limit` bytes wait already.
    #[must_use]
    pub fn send(&self, channel: u8, frame: Bytes, limit: usize) -> bool {
        self.outgoing.push(channel, frame, limit)
    }

    /// How often the connection has come up, if it is up.
    #[must_use]
    pub fn connected(&self) -> Option<u64> {
        let status = self.outgoing.status();
        status.connected.then_some(status.connects)
    }

    /// Bytes that wait or aren't acknowledged.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.outgoing.status().queued_bytes
    }
}

/// One life of a guardian's side of a peer's stream.
#[derive(Debug, Clone)]
pub struct Receiver {
    from: NodeId,
    incoming: Arc<Incoming>,
}

impl Receiver {
    /// The stream from `from`, of which nothing has come.
    #[must_use]
    pub fn new(from: NodeId) -> Self {
        Self { from, incoming: Arc::default() }
    }

    /// Accepted by its consumers without a gap up to here.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.incoming.acked()
    }
}

/// A numbered frame under way.
#[derive(Debug)]
pub struct Packet {
    number: u64,
    channel: u8,
    frame: Bytes,
}

impl Packet {
    /// The channel.
    #[must_use]
    pub const fn channel(&self) -> u8 {
        self.channel
    }

    /// The frame.
    #[must_use]
    pub const fn frame(&self) -> &Bytes {
        &self.frame
    }
}

/// The connection has to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

/// A connection of a sender to a receiver.
#[derive(Debug)]
pub struct Connection {
    session: [u8; 16],
    number: u64,
    next: u64,
    told: u64,
}

impl Connection {
    /// A handshake: `Hello` and `Welcome`.
    ///
    /// # Errors
    /// [`Closed`] if the dialer refuses what the acceptor says.
    pub fn open(from: &Sender, to: &Receiver) -> Result<Self, Closed> {
        let first = from.outgoing.first();
        let (number, got) = to.incoming.connect(from.session, first);
        if !from.outgoing.plausible(got) || got + 1 < first {
            return Err(Closed);
        }
        from.outgoing.up();
        Ok(Self { session: from.session, number, next: got + 1, told: 0 })
    }

    /// A handshake whose `Welcome` is lost.
    pub fn open_in_vain(from: &Sender, to: &Receiver) {
        to.incoming.connect(from.session, from.outgoing.first());
    }

    /// The dialer puts its next frame on the wire.
    pub fn transmit(&mut self, from: &Sender) -> Option<Packet> {
        let (number, channel, frame) = from.outgoing.get(self.next)?;
        self.next += 1;
        Some(Packet { number, channel, frame })
    }

    /// The acceptor takes a packet off the wire and hands it to its channel's consumer, once.
    ///
    /// # Errors
    /// [`Closed`] for a gap, an unknown channel, or after a newer connection.
    pub fn arrive(&self, to: &Receiver, packet: Packet) -> Result<Option<LinkEvent>, Closed> {
        if packet.channel as usize >= CHANNELS {
            return Err(Closed);
        }
        match to.incoming.arrive(self.number, packet.number) {
            Arrival::New => {
                let incoming = Arc::clone(&to.incoming);
                let receipt = Receipt { incoming, session: self.session, number: packet.number };
                Ok(Some(LinkEvent { from: to.from, frame: packet.frame, receipt }))
            }
            Arrival::Repeated => Ok(None),
            Arrival::Wrong => Err(Closed),
        }
    }

    /// The acceptor acknowledges, if there is anything new, but not more than `limit`.
    pub fn acknowledge(&mut self, to: &Receiver, limit: u64) -> Option<u64> {
        let number = to.incoming.acked().min(limit);
        (number > self.told).then(|| {
            self.told = number;
            number
        })
    }

    /// The dialer reads an acknowledgement.
    ///
    /// # Errors
    /// [`Closed`] if it is of what was never sent.
    pub fn acknowledged(from: &Sender, number: u64) -> Result<(), Closed> {
        if from.outgoing.ack(number) { Ok(()) } else { Err(Closed) }
    }

    /// The dialer notices that the connection is gone.
    pub fn down(from: &Sender) {
        from.outgoing.down(&std::io::ErrorKind::ConnectionReset.into());
    }
}

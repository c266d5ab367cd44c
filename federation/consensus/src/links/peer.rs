//! What outlives a connection: the frames that a peer hasn't acknowledged, and what it has sent.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{LinkStatus, lock};

/// Small frames cost more than their bytes.
const FRAME_COST: usize = 128;

/// A frame with its number and channel.
pub(super) type Numbered = (u64, u8, Bytes);

/// The stream to a peer.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    state: Mutex<OutgoingState>,
    /// Something was queued.
    pub(super) queued: Notify,
    emptied: Notify,
    /// The peer has shown that it can be reached.
    pub(super) reachable: Notify,
}

#[derive(Debug, Default)]
struct OutgoingState {
    /// Acknowledged up to here; the queue begins with the next number.
    acked: u64,
    queue: VecDeque<(u8, Bytes)>,
    bytes: usize,
    connected: bool,
    connects: u64,
    violations: u64,
    last_seen: Option<Instant>,
    rtt: Option<Duration>,
    last_error: Option<String>,
}

impl Outgoing {
    pub(super) fn push(&self, channel: u8, frame: Bytes, limit: usize) -> bool {
        let mut state = lock(&self.state);
        let bytes = state.bytes + frame.len() + FRAME_COST;
        if bytes > limit && !state.queue.is_empty() {
            return false;
        }
        state.bytes = bytes;
        state.queue.push_back((channel, frame));
        drop(state);
        self.queued.notify_one();
        true
    }

    /// The lowest number that is still here.
    pub(super) fn first(&self) -> u64 {
        lock(&self.state).acked + 1
    }

    /// The frame with this number, if it was queued and not acknowledged.
    pub(super) fn get(&self, number: u64) -> Option<Numbered> {
        let state = lock(&self.state);
        let at = usize::try_from(number.checked_sub(state.acked + 1)?).ok()?;
        state.queue.get(at).map(|(channel, frame)| (number, *channel, frame.clone()))
    }

    /// Whether the peer may say that it has got everything up to `number`.
    pub(super) fn plausible(&self, number: u64) -> bool {
        let state = lock(&self.state);
        number <= state.acked + state.queue.len() as u64
    }

    pub(super) fn ack(&self, number: u64) -> bool {
        let mut state = lock(&self.state);
        if number > state.acked + state.queue.len() as u64 {
            return false;
        }
        while state.acked < number {
            if let Some((_, frame)) = state.queue.pop_front() {
                state.bytes -= frame.len() + FRAME_COST;
            }
            state.acked += 1;
        }
        state.last_seen = Some(Instant::now());
        if state.queue.is_empty() {
            self.emptied.notify_waiters();
        }
        true
    }

    pub(super) async fn drained(&self) {
        loop {
            let emptied = self.emptied.notified();
            if lock(&self.state).queue.is_empty() {
                return;
            }
            // The notification can be missed between the two lines above; looking again is cheap.
            let _ = tokio::time::timeout(Duration::from_millis(50), emptied).await;
        }
    }

    pub(super) fn up(&self) {
        let mut state = lock(&self.state);
        state.connected = true;
        state.connects += 1;
        state.last_error = None;
        state.last_seen = Some(Instant::now());
    }

    pub(super) fn down(&self, error: &std::io::Error) {
        let mut state = lock(&self.state);
        state.connected = false;
        if error.kind() == std::io::ErrorKind::InvalidData {
            state.violations += 1;
        }
        state.last_error = Some(error.to_string());
    }

    pub(super) fn alive(&self) {
        lock(&self.state).last_seen = Some(Instant::now());
    }

    pub(super) fn round_trip(&self, rtt: Duration) {
        let mut state = lock(&self.state);
        state.rtt = Some(rtt);
        state.last_seen = Some(Instant::now());
    }

    /// The peer has dialled us, so it is worth dialling it now if we are waiting to.
    pub(super) fn dialled(&self) {
        if !lock(&self.state).connected {
            self.reachable.notify_one();
        }
    }

    /// How often the connection has come up, while it is.
    pub(super) fn connection(&self) -> Option<u64> {
        let state = lock(&self.state);
        state.connected.then_some(state.connects)
    }

    pub(super) fn status(&self) -> LinkStatus {
        let state = lock(&self.state);
        LinkStatus {
            connected: state.connected,
            last_seen: state.last_seen.map(|at| at.elapsed()),
            rtt: state.rtt,
            queued_frames: state.queue.len(),
            queued_bytes: state.bytes,
            connects: state.connects,
            violations: state.violations,
            last_error: state.last_error.clone(),
        }
    }
}

/// The stream from a peer.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    state: Mutex<IncomingState>,
    /// Something is to be acknowledged.
    pub(super) accepted: Notify,
}

#[derive(Debug, Default)]
struct IncomingState {
    /// The peer's life that the numbers belong to.
    session: [u8; 16],
    /// Handed over up to here.
    got: u64,
    /// Accepted without a gap up to here.
    acked: u64,
    /// Accepted beyond.
    early: BTreeSet<u64>,
    /// The newest connection; older ones are dead, whatever they still bring.
    connection: u64,
    violations: u64,
    last_seen: Option<Instant>,
}

/// What became of a numbered frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// To be handed over.
    New,
    /// It was handed over before.
    Repeated,
    /// A number is missing before it, or the connection is an old one.
    Wrong,
}

impl Incoming {
    /// A connection of the peer's `session` whose next number is at least `first`. Returns this connection's number
    /// and the highest frame number that was handed over.
    pub(super) fn connect(&self, session: [u8; 16], first: u64) -> (u64, u64) {
        let mut state = lock(&self.state);
        if state.session != session {
            state.session = session;
            // Of what it has sent to an earlier life of ours, the peer knows that it is durable.
            state.got = first.saturating_sub(1);
            state.acked = state.got;
            state.early.clear();
        }
        state.connection += 1;
        state.last_seen = Some(Instant::now());
        (state.connection, state.got)
    }

    pub(super) fn arrive(&self, connection: u64, number: u64) -> Arrival {
        let mut state = lock(&self.state);
        state.last_seen = Some(Instant::now());
        if connection != state.connection || number > state.got + 1 {
            return Arrival::Wrong;
        }
        if number <= state.got {
            return Arrival::Repeated;
        }
        state.got = number;
        Arrival::New
    }

    pub(super) fn seen(&self, connection: u64) -> bool {
        let mut state = lock(&self.state);
        state.last_seen = Some(Instant::now());
        state.connection == connection
    }

    pub(super) fn violated(&self) {
        lock(&self.state).violations += 1;
    }

    pub(super) fn acked(&self) -> u64 {
        lock(&self.state).acked
    }

    fn accept(&self, session: [u8; 16], number: u64) {
        let mut state = lock(&self.state);
        if state.session != session || number <= state.acked {
            return;
        }
        state.early.insert(number);
        let mut moved = false;
        while state.early.first() == Some(&(state.acked + 1)) {
            state.early.pop_first();
            state.acked += 1;
            moved = true;
        }
        drop(state);
        if moved {
            self.accepted.notify_one();
        }
    }

    pub(super) fn add_to(&self, status: &mut LinkStatus) {
        let state = lock(&self.state);
        let seen = state.last_seen.map(|at| at.elapsed());
        status.last_seen = match (status.last_seen, seen) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        status.violations += state.violations;
    }
}

/// The right to acknowledge one frame.
#[derive(Debug)]
pub(super) struct Receipt {
    pub(super) incoming: Arc<Incoming>,
    pub(super) session: [u8; 16],
    pub(super) number: u64,
}

impl Receipt {
    pub(super) fn accept(&self) {
        self.incoming.accept(self.session, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledges_without_gaps_and_hands_over_once() {
        let incoming = Arc::new(Incoming::default());
        let (connection, got) = incoming.connect([1; 16], 1);
        assert_eq!(got, 0);
        for number in 1..=3 {
            assert_eq!(incoming.arrive(connection, number), Arrival::New);
        }
        assert_eq!(incoming.arrive(connection, 2), Arrival::Repeated);
        assert_eq!(incoming.arrive(connection, 5), Arrival::Wrong);
        incoming.accept([1; 16], 3);
        assert_eq!(incoming.acked(), 0);
        incoming.accept([1; 16], 1);
        assert_eq!(incoming.acked(), 1);
        incoming.accept([2; 16], 2);
        assert_eq!(incoming.acked(), 1);
        incoming.accept([1; 16], 2);
        assert_eq!(incoming.acked(), 3);
        let (newer, got) = incoming.connect([1; 16], 1);
        assert_eq!(got, 3);
        assert_eq!(incoming.arrive(connection, 4), Arrival::Wrong);
        assert_eq!(incoming.arrive(newer, 4), Arrival::New);
        assert_eq!(incoming.connect([9; 16], 8).1, 7);
    }

    #[test]
    fn the_queue_is_bounded_and_forgets_what_is_acknowledged() {
        let outgoing = Outgoing::default();
        for _ in 0..4 {
            assert!(outgoing.push(1, Bytes::from(vec![0; 1000]), 4 * (1000 + FRAME_COST)));
        }
        assert!(!outgoing.push(1, Bytes::from_static(b"x"), 4 * (1000 + FRAME_COST)));
        assert!(!outgoing.ack(5));
        assert!(outgoing.ack(3));
        assert_eq!(outgoing.first(), 4);
        assert!(outgoing.get(3).is_none() && outgoing.get(4).is_some() && outgoing.get(5).is_none());
        assert_eq!(outgoing.status().queued_frames, 1);
    }
}

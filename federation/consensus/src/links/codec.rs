//! The bytes on a connection: `length u32 · kind u8 · body`.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::wire::{Malformed, Reader};

/// Bytes that a [`Packet::Data`] adds to its frame.
const OVERHEAD: usize = 1 + 8 + 1;

/// What goes over a connection. The dialer says `Hello`, `Data` and `Ping`, the acceptor the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet {
    /// The dialer's session, and the lowest number that it can still send.
    Hello { session: [u8; 16], first: u64 },
    /// The acceptor's session, and the highest number that it has got in the dialer's.
    Welcome { session: [u8; 16], got: u64 },
    /// A numbered frame.
    Data { number: u64, channel: u8, frame: Bytes },
    /// Everything up to this number is durable.
    Ack { number: u64 },
    /// Are you there?
    Ping { nonce: u64 },
    /// Yes.
    Pong { nonce: u64 },
    /// I am here, unasked.
    Alive,
}

pub(super) async fn write<W: AsyncWrite + Unpin>(to: &mut W, packet: &Packet) -> io::Result<()> {
    let mut head = Vec::with_capacity(32);
    head.extend_from_slice(&[0; 4]);
    let mut tail: &[u8] = &[];
    match packet {
        Packet::Hello { session, first } => put(&mut head, 1, session, *first),
        Packet::Welcome { session, got } => put(&mut head, 2, session, *got),
        Packet::Data { number, channel, frame } => {
            put(&mut head, 3, &[], *number);
            head.push(*channel);
            tail = frame;
        }
        Packet::Ack { number } => put(&mut head, 4, &[], *number),
        Packet::Ping { nonce } => put(&mut head, 5, &[], *nonce),
        Packet::Pong { nonce } => put(&mut head, 6, &[], *nonce),
        Packet::Alive => head.push(7),
    }
    let len = u32::try_from(head.len() - 4 + tail.len()).map_err(io::Error::other)?;
    if let Some(prefix) = head.first_chunk_mut::<4>() {
        *prefix = len.to_be_bytes();
    }
    to.write_all(&head).await?;
    to.write_all(tail).await
}

fn put(head: &mut Vec<u8>, kind: u8, session: &[u8], number: u64) {
    head.push(kind);
    head.extend_from_slice(session);
    head.extend_from_slice(&number.to_be_bytes());
}

/// Reads one packet whose frame has at most `max_frame` bytes; more, or nonsense, is `InvalidData`. Nothing
/// arriving at all for `idle` is `TimedOut`, so that a large frame on a slow line gets its time.
pub(super) async fn read<R: AsyncRead + Unpin>(
    from: &mut R,
    max_frame: usize,
    idle: Duration,
) -> io::Result<Packet> {
    let len = timeout(idle, from.read_u32()).await?? as usize;
    if len > max_frame.saturating_add(OVERHEAD) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame over the size limit"));
    }
    // Memory grows with what really arrives, not with what a length announces.
    let mut body = Vec::with_capacity(len.min(64 * 1024));
    let mut from = from.take(len as u64);
    while body.len() < len {
        if timeout(idle, from.read_buf(&mut body)).await?? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    parse(body.into()).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

fn parse(body: Bytes) -> Result<Packet, Malformed> {
    let mut reader = Reader::new(body);
    let packet = match reader.u8()? {
        1 => Packet::Hello { session: reader.array()?, first: reader.u64()? },
        2 => Packet::Welcome { session: reader.array()?, got: reader.u64()? },
        3 => return Ok(Packet::Data { number: reader.u64()?, channel: reader.u8()?, frame: reader.rest() }),
        4 => Packet::Ack { number: reader.u64()? },
        5 => Packet::Ping { nonce: reader.u64()? },
        6 => Packet::Pong { nonce: reader.u64()? },
        7 => Packet::Alive,
        _ => return Err(Malformed),
    };
    reader.end()?;
    Ok(packet)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDLE: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn packets_come_back_and_large_ones_do_not() {
        let packets = [
            Packet::Hello { session: [1; 16], first: 2 },
            Packet::Welcome { session: [3; 16], got: 4 },
            Packet::Data { number: 5, channel: 6, frame: Bytes::from_static(b"frame") },
            Packet::Ack { number: 7 },
            Packet::Ping { nonce: 8 },
            Packet::Pong { nonce: 9 },
            Packet::Alive,
        ];
        let mut bytes = Vec::new();
        for packet in &packets {
            write(&mut bytes, packet).await.unwrap();
        }
        let mut from = &bytes[..];
        for packet in packets {
            assert_eq!(read(&mut from, 100, IDLE).await.unwrap(), packet);
        }
        let mut bytes = Vec::new();
        write(&mut bytes, &Packet::Data { number: 1, channel: 0, frame: Bytes::from(vec![0; 101]) })
            .await
            .unwrap();
        assert_eq!(read(&mut &bytes[..], 100, IDLE).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(bytes.into());
        }
    }
}

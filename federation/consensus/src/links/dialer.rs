//! The sending side: dials a peer, again and again, and sends what it hasn't acknowledged.

use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rand::Rng;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Shared;
use super::codec::{self, Packet};
use super::peer::Outgoing;
use crate::NodeId;

/// An acceptor says short things only.
const ANSWER: usize = 64;
const CONNECT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Keeps a connection to `peer` until the links stop.
pub(super) async fn run(
    shared: Weak<Shared>,
    mut stop: watch::Receiver<bool>,
    peer: NodeId,
    tls: Arc<ClientConfig>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        let Some((outgoing, attempt)) = attempt(&shared, peer, &tls) else { return };
        let error = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            error = attempt => error,
        };
        tracing::debug!(peer, %error, "link closed");
        outgoing.down(&error);
        // A connection that lasted was a good one; only failures in a row are waited out longer.
        pause = if started.elapsed() > Duration::from_secs(30) { FIRST_PAUSE } else { pause };
        let jitter = rand::thread_rng().gen_range(0.5..1.5);
        let waited = async {
            if tokio::time::timeout(pause.mul_f64(jitter), outgoing.reachable.notified()).await.is_ok() {
                // Not at once all the same: a peer that dials and hangs up again and again would set the pace.
                tokio::time::sleep(FIRST_PAUSE).await;
            }
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = waited => pause = (pause * 2).min(LONGEST_PAUSE),
        }
        if Arc::strong_count(&outgoing) == 1 {
            return;
        }
    }
}

/// One connection from dialling to its end; `None` when the links are gone.
fn attempt(
    shared: &Weak<Shared>,
    peer: NodeId,
    tls: &Arc<ClientConfig>,
) -> Option<(Arc<Outgoing>, impl Future<Output = io::Error> + use<>)> {
    let shared = shared.upgrade()?;
    let outgoing = Arc::clone(shared.outgoing.get(&peer)?);
    let address = shared.config.peers.get(&peer)?.address.clone();
    let (session, heartbeat) = (shared.session, shared.config.heartbeat);
    let (tls, queue) = (Arc::clone(tls), Arc::clone(&outgoing));
    let connection = async move {
        let connect = async {
            let tcp = TcpStream::connect(&address).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from("guardian").map_err(io::Error::other)?;
            TlsConnector::from(tls).connect(name, tcp).await
        };
        match timeout(CONNECT, connect).await {
            Err(_) => io::ErrorKind::TimedOut.into(),
            Ok(Err(error)) => error,
            Ok(Ok(stream)) => {
                let (reader, writer) = tokio::io::split(stream);
                talk(BufReader::new(reader), BufWriter::new(writer), &queue, session, heartbeat)
                    .await
                    .err()
                    .unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
        }
    };
    Some((outgoing, connection))
}

async fn talk<R, W>(
    mut reader: R,
    mut writer: W,
    outgoing: &Outgoing,
    session: [u8; 16],
    heartbeat: Duration,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let first = outgoing.first();
    codec::write(&mut writer, &Packet::Hello { session, first }).await?;
    writer.flush().await?;
    let welcome = codec::read(&mut reader, ANSWER, CONNECT).await?;
    let Packet::Welcome { got, .. } = welcome else { return Err(broken("no welcome")) };
    if !outgoing.plausible(got) || got + 1 < first {
        return Err(broken("a frame number that was never sent"));
    }
    outgoing.up();
    // Both loops borrow only their own half, so that neither is cancelled in the middle of a packet
    // unless the connection ends.
    let epoch = Instant::now();
    tokio::select! {
        result = listen(&mut reader, outgoing, heartbeat, epoch) => result,
        result = send(&mut writer, outgoing, got + 1, heartbeat, epoch) => result,
    }
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

async fn listen<R: AsyncRead + Unpin>(
    reader: &mut R,
    outgoing: &Outgoing,
    heartbeat: Duration,
    epoch: Instant,
) -> io::Result<()> {
    loop {
        match codec::read(reader, ANSWER, heartbeat * 3).await? {
            Packet::Alive => outgoing.alive(),
            Packet::Ack { number } => {
                if !outgoing.ack(number) {
                    return Err(broken("an acknowledgement of what was never sent"));
                }
            }
            // The nonce is the time of the probe, so nothing has to be remembered.
            Packet::Pong { nonce } => {
                outgoing.round_trip(epoch.elapsed().saturating_sub(Duration::from_micros(nonce)));
            }
            _ => return Err(broken("a packet that only a dialer sends")),
        }
    }
}

async fn send<W: AsyncWrite + Unpin>(
    writer: &mut W,
    outgoing: &Outgoing,
    mut next: u64,
    heartbeat: Duration,
    epoch: Instant,
) -> io::Result<()> {
    let mut probe = tokio::time::interval(heartbeat);
    loop {
        while let Some((number, channel, frame)) = outgoing.get(next) {
            codec::write(writer, &Packet::Data { number, channel, frame }).await?;
            next += 1;
        }
        writer.flush().await?;
        tokio::select! {
            () = outgoing.queued.notified() => {}
            _ = probe.tick() => {
                let nonce = u64::try_from(epoch.elapsed().as_micros()).unwrap_or(0);
                codec::write(writer, &Packet::Ping { nonce }).await?;
            }
        }
    }
}

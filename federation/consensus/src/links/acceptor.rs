//! The receiving side: accepts peers' connections, hands their frames over, acknowledges them.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rand::Rng;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::codec::{self, Packet};
use super::identity::Fingerprint;
use super::peer::{Arrival, Incoming, Receipt};
use super::{CHANNELS, LinkEvent, Shared};
use crate::NodeId;

const HANDSHAKE: Duration = Duration::from_secs(10);
/// Frame numbers begin at 1; with this much room above nothing overflows.
const HIGHEST: u64 = u64::MAX / 2;
/// Room for a greeting.
const HELLO: usize = 64;
/// Connections of strangers at a time.
const STRANGERS: usize = 256;

/// Accepts connections until the links stop.
pub(super) async fn run(
    shared: Weak<Shared>,
    mut stop: watch::Receiver<bool>,
    listener: TcpListener,
    tls: Arc<ServerConfig>,
) {
    let mut strangers = Strangers::default();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: it passes, and spinning would not help it.
                tracing::warn!(%error, "can't accept a guardian's connection");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let known = Arc::new(AtomicBool::new(false));
        let introduced = Arc::clone(&known);
        let (shared, tls, mut stop) = (shared.clone(), TlsAcceptor::from(Arc::clone(&tls)), stop.clone());
        let task = tokio::spawn(async move {
            let serve = async {
                let handshake = timeout(HANDSHAKE, greet(&shared, tls, stream)).await;
                introduced.store(true, Ordering::Relaxed);
                if let Ok(Ok(Some((peer, talk)))) = handshake {
                    let error = talk.await;
                    tracing::debug!(peer, %error, "peer's link closed");
                }
            };
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                () = serve => {}
            }
        });
        strangers.add(known, task.abort_handle());
    }
}

/// Connections that haven't shown a pinned certificate yet. Anyone can open those, so there is room for some only, and
/// a new one takes the place of any: neither who holds connections open nor who opens many keeps a guardian out for long.
#[derive(Default)]
struct Strangers(Vec<(Arc<AtomicBool>, AbortHandle)>);

impl Strangers {
    fn add(&mut self, known: Arc<AtomicBool>, task: AbortHandle) {
        self.0.retain(|(known, task)| !known.load(Ordering::Relaxed) && !task.is_finished());
        if self.0.len() >= STRANGERS {
            let (known, any) = self.0.swap_remove(rand::thread_rng().gen_range(0..self.0.len()));
            if !known.load(Ordering::Relaxed) {
                any.abort();
            }
        }
        self.0.push((known, task));
    }
}

/// Does the TLS handshake and finds out which peer it is.
async fn greet(
    shared: &Weak<Shared>,
    tls: TlsAcceptor,
    stream: TcpStream,
) -> io::Result<Option<(NodeId, impl Future<Output = io::Error> + use<>)>> {
    stream.set_nodelay(true)?;
    let stream = tls.accept(stream).await?;
    let Some(shared) = shared.upgrade() else { return Ok(None) };
    let Some(fingerprint) =
        stream.get_ref().1.peer_certificates().and_then(|c| c.first()).map(|c| Fingerprint::of(c))
    else {
        return Ok(None);
    };
    let found = shared.config.peers.iter().find(|(_, peer)| peer.fingerprint == fingerprint);
    let Some((peer, incoming)) =
        found.and_then(|(peer, _)| Some((*peer, Arc::clone(shared.incoming.get(peer)?))))
    else {
        return Ok(None);
    };
    if let Some(outgoing) = shared.outgoing.get(&peer) {
        outgoing.dialled();
    }
    let context = Connection {
        peer,
        incoming,
        own_session: shared.session,
        inboxes: (0..CHANNELS).filter_map(|channel| shared.inbox(u8::try_from(channel).ok()?)).collect(),
        max_frame: shared.config.max_frame,
        heartbeat: shared.config.heartbeat,
    };
    let (reader, writer) = tokio::io::split(stream);
    let talk = async move {
        let result = talk(&context, BufReader::new(reader), BufWriter::new(writer)).await;
        let error = result.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
        if error.kind() == io::ErrorKind::InvalidData {
            context.incoming.violated();
        }
        error
    };
    Ok(Some((peer, talk)))
}

struct Connection {
    peer: NodeId,
    incoming: Arc<Incoming>,
    own_session: [u8; 16],
    inboxes: Vec<mpsc::Sender<LinkEvent>>,
    max_frame: usize,
    heartbeat: Duration,
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

async fn talk<R, W>(context: &Connection, mut reader: R, mut writer: W) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let hello = codec::read(&mut reader, HELLO, HANDSHAKE).await?;
    let Packet::Hello { session, first } = hello else { return Err(broken("no hello")) };
    if first > HIGHEST {
        return Err(broken("a frame number that nobody reaches"));
    }
    let (connection, got) = context.incoming.connect(session, first);
    codec::write(&mut writer, &Packet::Welcome { session: context.own_session, got }).await?;
    writer.flush().await?;
    let (pongs, pings) = mpsc::channel(4);
    tokio::select! {
        result = receive(context, &mut reader, session, connection, pongs) => result,
        result = answer(context, &mut writer, pings) => result,
    }
}

async fn receive<R: AsyncRead + Unpin>(
    context: &Connection,
    reader: &mut R,
    session: [u8; 16],
    connection: u64,
    pongs: mpsc::Sender<u64>,
) -> io::Result<()> {
    loop {
        match codec::read(reader, context.max_frame, context.heartbeat * 3).await? {
            Packet::Data { number, channel, frame } => {
                let inbox =
                    context.inboxes.get(channel as usize).ok_or_else(|| broken("an unknown channel"))?;
                // Room first, number second: a connection that ends in between loses nothing. Without a
                // consumer any more, as when setup is over, the frame has reached its end.
                let room = inbox.reserve().await.ok();
                match context.incoming.arrive(connection, number) {
                    Arrival::New => {
                        let incoming = Arc::clone(&context.incoming);
                        let receipt = Receipt { incoming, session, number };
                        match room {
                            Some(room) => room.send(LinkEvent { from: context.peer, frame, receipt }),
                            None => receipt.accept(),
                        }
                    }
                    Arrival::Repeated => {}
                    Arrival::Wrong => {
                        return Err(io::Error::other("out of order, or a newer connection took over"));
                    }
                }
            }
            Packet::Ping { nonce } => {
                if !context.incoming.seen(connection) {
                    return Err(io::Error::other("a newer connection took over"));
                }
                // Whoever probes faster than it reads the answers gets fewer of them.
                let _ = pongs.try_send(nonce);
            }
            _ => return Err(broken("a packet that only an acceptor sends")),
        }
    }
}

async fn answer<W: AsyncWrite + Unpin>(
    context: &Connection,
    writer: &mut W,
    mut pings: mpsc::Receiver<u64>,
) -> io::Result<()> {
    let mut told = 0;
    let mut alive = tokio::time::interval(context.heartbeat);
    loop {
        let number = context.incoming.acked();
        if number > told {
            codec::write(writer, &Packet::Ack { number }).await?;
            told = number;
        }
        writer.flush().await?;
        tokio::select! {
            () = context.incoming.accepted.notified() => {}
            // A probe may be stuck behind a large frame; the dialer is told all the same that we live.
            _ = alive.tick() => codec::write(writer, &Packet::Alive).await?,
            Some(nonce) = pings.recv() => codec::write(writer, &Packet::Pong { nonce }).await?,
        }
    }
}

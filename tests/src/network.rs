//! The links between guardians, through proxies of ours: cut, slowed down, silent, each direction by itself.
//!
//! A guardian announces one address to all others, so each guardian has one proxy. Who dials it shows by the kernel's own
//! list of connections: needs no privilege and no help of the guardian's.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::ports::free_port;

/// Pieces that are on their way in one direction of a connection.
const ON_THE_WAY: usize = 256;

/// What becomes of what one guardian sends to another over the connection that it has dialled, and of the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Goes through.
    Open,
    /// Connections are dropped and refused.
    Cut,
    /// Connections stay, and nothing comes through until this changes.
    Silent,
    /// Each piece arrives this much later.
    Slow(Duration),
}

#[derive(Clone, Default)]
struct Ways {
    /// By who dials and who is dialled; those that are not here are open.
    ways: BTreeMap<(usize, usize), Way>,
    /// All connections of an earlier generation end.
    generation: u64,
}

impl Ways {
    fn get(&self, link: (usize, usize)) -> Way {
        self.ways.get(&link).copied().unwrap_or(Way::Open)
    }
}

/// The proxies. They end with this value.
pub struct Network {
    ways: watch::Sender<Ways>,
    /// Where each guardian listens, and its proxy's address, which the others are told.
    addresses: Vec<(SocketAddr, SocketAddr)>,
    _tasks: JoinSet<()>,
}

impl Network {
    /// Proxies for `n` guardians, all open.
    pub async fn start(n: usize) -> Result<Self> {
        let ways = watch::Sender::new(Ways::default());
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for _ in 0..n {
            let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let listener = TcpListener::bind(local(free_port()?)).await?;
            addresses.push((local(free_port()?), listener.local_addr()?));
            listeners.push(listener);
        }
        let real: Arc<[SocketAddr]> = addresses.iter().map(|(real, _)| *real).collect();
        let mut tasks = JoinSet::new();
        for (to, listener) in listeners.into_iter().enumerate() {
            tasks.spawn(serve(to, listener, Arc::clone(&real), ways.clone()));
        }
        Ok(Self { ways, addresses, _tasks: tasks })
    }

    /// Where a guardian is to listen, and what it is to announce.
    pub fn addresses(&self, guardian: usize) -> Option<(SocketAddr, SocketAddr)> {
        self.addresses.get(guardian).copied()
    }

    /// Sets what one guardian sends to another.
    pub fn set(&self, from: usize, to: usize, way: Way) {
        self.ways.send_modify(|ways| {
            ways.ways.insert((from, to), way);
        });
    }

    /// Sets both directions between each of `some` and each of the others.
    pub fn set_around(&self, some: &[usize], way: Way) {
        for inside in some {
            for outside in (0..self.addresses.len()).filter(|other| !some.contains(other)) {
                self.set(*inside, outside, way);
                self.set(outside, *inside, way);
            }
        }
    }

    /// Sets all links alike.
    pub fn set_all(&self, way: Way) {
        let all: Vec<usize> = (0..self.addresses.len()).collect();
        self.ways.send_modify(|ways| {
            let links = all.iter().flat_map(|from| all.iter().map(|to| (*from, *to)));
            ways.ways = links.map(|link| (link, way)).collect();
        });
    }

    /// Drops all connections; new ones go through.
    pub fn drop_all(&self) {
        self.ways.send_modify(|ways| ways.generation = ways.generation.wrapping_add(1));
    }
}

async fn serve(to: usize, listener: TcpListener, real: Arc<[SocketAddr]>, ways: watch::Sender<Ways>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let (real, ways) = (Arc::clone(&real), ways.subscribe());
        connections.spawn(async move {
            let (Ok(dialer), Ok(proxy)) = (stream.peer_addr(), stream.local_addr()) else { return };
            let found = tokio::task::spawn_blocking({
                let real = Arc::clone(&real);
                move || who(dialer, proxy, &real)
            });
            // Nobody's: who dialled has been killed in this moment.
            let (Ok(Some(from)), Some(address)) = (found.await, real.get(to)) else { return };
            carry((from, to), stream, *address, ways).await;
        });
    }
}

/// One connection, until either side ends it or its link is cut.
async fn carry(link: (usize, usize), dialer: TcpStream, to: SocketAddr, mut ways: watch::Receiver<Ways>) {
    let generation = ways.borrow().generation;
    let own = ways.clone();
    let cut = ways.wait_for(|ways| ways.get(link) == Way::Cut || ways.generation != generation);
    let connection = async {
        let Ok(acceptor) = TcpStream::connect(to).await else { return };
        let _ = (dialer.set_nodelay(true), acceptor.set_nodelay(true));
        let (dialer_reads, dialer_writes) = dialer.into_split();
        let (acceptor_reads, acceptor_writes) = acceptor.into_split();
        tokio::select! {
            () = pump(dialer_reads, acceptor_writes, link, own.clone()) => {}
            () = pump(acceptor_reads, dialer_writes, link, own.clone()) => {}
        }
    };
    tokio::select! {
        _ = cut => {}
        () = connection => {}
    }
}

async fn pump(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    link: (usize, usize),
    mut ways: watch::Receiver<Ways>,
) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let now = ways.clone();
    let read = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length) = reader.read(&mut buffer).await {
            let Some(piece) = buffer.get(..length).filter(|piece| !piece.is_empty()) else { break };
            let way = now.borrow().get(link);
            let late = if let Way::Slow(late) = way { late } else { Duration::ZERO };
            if sender.send((Instant::now() + late, piece.to_vec())).await.is_err() {
                break;
            }
        }
    };
    let write = async {
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            if ways.wait_for(|ways| ways.get(link) != Way::Silent).await.is_err() {
                break;
            }
            if writer.write_all(&piece).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}

/// Which guardian has dialled: the process at the connection's other end has `--link-bind=` its address.
fn who(dialer: SocketAddr, proxy: SocketAddr, real: &[SocketAddr]) -> Option<usize> {
    let end = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let (dialer, proxy) = (end(dialer), end(proxy));
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let inode = table.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let found = fields.nth(1)? == dialer && fields.next()? == proxy;
        found.then(|| fields.nth(6)).flatten()
    })?;
    let socket = format!("socket:[{inode}]");
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes.map(|process| process.path()).find_map(|process| {
        let guardian = guardian(&process, real)?;
        let files = std::fs::read_dir(process.join("fd")).ok()?.flatten();
        let mut files = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        files.any(|file| file.as_os_str() == socket.as_str()).then_some(guardian)
    })
}

fn guardian(process: &Path, real: &[SocketAddr]) -> Option<usize> {
    let command = std::fs::read(process.join("cmdline")).ok()?;
    let bind = command.split(|byte| *byte == 0).find_map(|arg| arg.strip_prefix(b"--link-bind="))?;
    real.iter().position(|address| address.to_string().as_bytes() == bind)
}

//! Past epochs for peers that have fallen behind: what they ask, and what they are answered.
//!
//! A request is answered epoch by epoch with header, signatures and, if asked for, batch. It goes through the
//! links like all else, so a peer that asks for much waits for itself.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::header::{Header, HeaderKeys, Signatures, put_signatures, take_signatures};
use crate::links::{CHANNEL_HISTORY_ANSWER, LinkEvent, Links};
use crate::wire::{Malformed, Reader};
use crate::{MAX_NODES, NodeId};

/// The most epochs in one request.
pub(super) const MAX_COUNT: u8 = 16;
/// Bytes waiting for a peer beyond which it isn't given more history.
const MAX_QUEUED: usize = 16 << 20;
/// How long to wait when all who ask have so much waiting.
const BLOCKED: Duration = Duration::from_millis(50);
/// What an answer has around a batch.
pub(super) const ANSWER_OVERHEAD: usize = 1 + Header::SIZE + 2 + MAX_NODES as usize * (2 + 64) + 1;

/// What this guardian has committed.
#[async_trait]
pub trait History: Send + Sync + 'static {
    /// The next epoch to be committed: all before it are durable.
    ///
    /// # Errors
    /// The store's.
    async fn next_epoch(&self) -> io::Result<u64>;

    /// The header of a committed epoch and the signatures that are known of it; `None` if it isn't committed,
    /// or not kept any more.
    ///
    /// # Errors
    /// The store's.
    async fn header(&self, epoch: u64) -> io::Result<Option<(Header, Signatures)>>;

    /// The batch of a committed epoch, as [`Batch::encode`](crate::Batch::encode) gave it; `None` if it isn't committed, or not kept any
    /// more.
    ///
    /// # Errors
    /// The store's.
    async fn batch(&self, epoch: u64) -> io::Result<Option<Bytes>>;

    /// The oldest epoch whose batch is kept.
    ///
    /// # Errors
    /// The store's.
    async fn first_epoch(&self) -> io::Result<u64>;

    /// The epoch since which this guardian's state is known to differ from the others': it signs nothing then.
    ///
    /// # Errors
    /// The store's.
    async fn diverged(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }
}

/// The end of the history: where consensus goes on.
#[derive(Debug, Clone, Default)]
pub struct Tail {
    /// The next epoch to be committed.
    pub next_epoch: u64,
    /// The last headers, oldest first, with the signatures known of them.
    pub headers: Vec<(Header, Signatures)>,
    /// See [`History::diverged`].
    pub diverged: Option<u64>,
}

impl Tail {
    /// Reads the end of a history.
    ///
    /// # Errors
    /// The store's.
    pub async fn read(history: &dyn History) -> io::Result<Self> {
        /// Epochs before may lack signatures for ever.
        const KEPT: u64 = 64;
        let next_epoch = history.next_epoch().await?;
        let mut headers = Vec::new();
        for epoch in next_epoch.saturating_sub(KEPT)..next_epoch {
            headers.extend(history.header(epoch).await?);
        }
        Ok(Self { next_epoch, headers, diverged: history.diverged().await? })
    }
}

/// Asks for epochs `first`, `first + 1`, …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub first: u64,
    pub count: u8,
    pub batches: bool,
}

impl Request {
    pub fn encode(self) -> Bytes {
        let mut out = self.first.to_be_bytes().to_vec();
        out.extend_from_slice(&[self.count, u8::from(self.batches)]);
        out.into()
    }

    fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let request = Self { first: reader.u64()?, count: reader.u8()?, batches: reader.u8()? != 0 };
        reader.end()?;
        Ok(request)
    }
}

/// One part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Epoch {
        header: Header,
        signatures: Signatures,
        /// Encoded.
        batch: Option<Bytes>,
    },
    /// Nothing before this epoch is kept.
    BeginsAt(u64),
}

impl Answer {
    fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(512);
        match self {
            Self::Epoch { header, signatures, batch } => {
                out.push(1);
                header.put(&mut out);
                put_signatures(&mut out, signatures);
                // An encoded batch is never empty.
                out.extend_from_slice(batch.as_deref().unwrap_or_default());
            }
            Self::BeginsAt(epoch) => {
                out.push(2);
                out.extend_from_slice(&epoch.to_be_bytes());
            }
        }
        out.into()
    }

    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            1 => {
                let header = Header::take(&mut reader)?;
                let signatures = take_signatures(&mut reader)?;
                let batch = reader.rest();
                Ok(Self::Epoch { header, signatures, batch: (!batch.is_empty()).then_some(batch) })
            }
            2 => {
                let epoch = reader.u64()?;
                reader.end()?;
                Ok(Self::BeginsAt(epoch))
            }
            _ => Err(Malformed),
        }
    }
}

/// The encoded answers to an encoded request. `sign`: this guardian adds its own signature where none is stored yet.
///
/// # Errors
/// The store's.
pub async fn answers(
    request: Bytes,
    history: &dyn History,
    me: NodeId,
    keys: &dyn HeaderKeys,
    sign: bool,
) -> io::Result<Vec<Bytes>> {
    let Ok(mut request) = Request::decode(request) else { return Ok(Vec::new()) };
    let mut answers = Vec::new();
    while let Some(answer) = request.next(history, me, keys, sign).await? {
        answers.push(answer);
    }
    Ok(answers)
}

impl Request {
    /// The answer about the first of its epochs, which is then done; `None` at the end.
    async fn next(
        &mut self,
        history: &dyn History,
        me: NodeId,
        keys: &dyn HeaderKeys,
        sign: bool,
    ) -> io::Result<Option<Bytes>> {
        let Some(left) = self.count.min(MAX_COUNT).checked_sub(1) else { return Ok(None) };
        let epoch = self.first;
        let batch = if self.batches { history.batch(epoch).await? } else { None };
        let header = history.header(epoch).await?;
        if let Some((header, mut signatures)) = header.filter(|_| batch.is_some() || !self.batches) {
            (self.first, self.count) = (epoch.saturating_add(1), left);
            if sign && !signatures.contains_key(&me) {
                signatures.insert(me, keys.sign(&header.hash()));
            }
            return Ok(Some(Answer::Epoch { header, signatures, batch }.encode()));
        }
        self.count = 0;
        let first = history.first_epoch().await?;
        Ok((first > epoch).then(|| Answer::BeginsAt(first).encode()))
    }
}

/// Answers requests, one epoch of each peer's last request in turn: whoever asks for much, or doesn't take the answers,
/// waits for itself.
pub(super) async fn serve(
    mut requests: mpsc::Receiver<LinkEvent>,
    links: Links,
    history: Arc<dyn History>,
    keys: Arc<dyn HeaderKeys>,
    may_sign: impl Fn() -> bool,
) {
    let mut open: BTreeMap<NodeId, Request> = BTreeMap::new();
    let mut last = 0;
    let mut blocked = 0;
    loop {
        let event = if open.is_empty() { requests.recv().await } else { requests.try_recv().ok() };
        if let Some(event) = event {
            event.accept();
            if let Ok(request) = Request::decode(event.frame.clone()) {
                open.insert(event.from, request);
            }
            continue;
        }
        let turn = open.range(last + 1..).next().or_else(|| open.iter().next()).map(|(peer, _)| *peer);
        let Some(request) = turn.and_then(|peer| open.get_mut(&peer)) else {
            // No more requests will come.
            return;
        };
        last = turn.unwrap_or_default();
        let queued = links.status().get(&last).map_or(0, |link| link.queued_bytes);
        if queued > MAX_QUEUED {
            blocked += 1;
            if blocked >= open.len() {
                blocked = 0;
                tokio::time::sleep(BLOCKED).await;
            }
            continue;
        }
        blocked = 0;
        let answer = request.next(&*history, links.me(), &*keys, may_sign()).await;
        let answer = answer.unwrap_or_else(|error| {
            tracing::warn!(%error, peer = last, "a peer can't be given past epochs");
            None
        });
        let sent = answer.is_some_and(|answer| links.send(last, CHANNEL_HISTORY_ANSWER, answer).is_ok());
        if !sent {
            open.remove(&last);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_come_back() {
        let header = Header { epoch: 7, previous: [1; 32], items: [2; 32], state: [3; 32] };
        let signatures = Signatures::from([(0, [4; 64]), (3, [5; 64])]);
        for answer in [
            Answer::Epoch { header, signatures, batch: Some(Bytes::from_static(b"batch")) },
            Answer::Epoch { header, signatures: Signatures::new(), batch: None },
            Answer::BeginsAt(9),
        ] {
            assert_eq!(Answer::decode(answer.encode()), Ok(answer));
        }
        let request = Request { first: 1, count: 2, batches: true };
        assert_eq!(Request::decode(request.encode()), Ok(request));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Answer::decode(bytes.clone().into());
            let _ = Request::decode(bytes.into());
        }
    }
}

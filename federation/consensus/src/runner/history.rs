//! Past epochs for peers that have fallen behind: what they ask, and what they are answered.
//!
//! A request is answered epoch by epoch with header, signatures and, if asked for, batch. It goes through the
//! links like all else, so a peer that asks for much waits for itself.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::header::{Header, HeaderKeys, Signatures, put_signatures, take_signatures};
use crate::links::{CHANNEL_HISTORY_ANSWER, LinkEvent, Links};
use crate::wire::{Malformed, Reader};
use crate::{MAX_NODES, NodeId};

/// The most epochs in one request.
pub(super) const MAX_COUNT: u8 = 16;
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
    let Ok(request) = Request::decode(request) else { return Ok(Vec::new()) };
    let end = request.first.saturating_add(u64::from(request.count.min(MAX_COUNT)));
    let mut answers = Vec::new();
    for epoch in request.first..end {
        let batch = if request.batches { history.batch(epoch).await? } else { None };
        let header = history.header(epoch).await?;
        match header {
            Some((header, mut signatures)) if batch.is_some() || !request.batches => {
                if sign && !signatures.contains_key(&me) {
                    signatures.insert(me, keys.sign(&header.hash()));
                }
                answers.push(Answer::Epoch { header, signatures, batch }.encode());
            }
            _ => {
                let first = history.first_epoch().await?;
                if first > epoch {
                    answers.push(Answer::BeginsAt(first).encode());
                }
                break;
            }
        }
    }
    Ok(answers)
}

/// Answers requests, one after another.
pub(super) async fn serve(
    mut requests: mpsc::Receiver<LinkEvent>,
    links: Links,
    history: Arc<dyn History>,
    keys: Arc<dyn HeaderKeys>,
    may_sign: impl Fn() -> bool,
) {
    while let Some(event) = requests.recv().await {
        event.accept();
        let me = links.me();
        match answers(event.frame.clone(), &*history, me, &*keys, may_sign()).await {
            // What doesn't fit is asked for again.
            Ok(answers) => {
                let _ = answers
                    .into_iter()
                    .try_for_each(|answer| links.send(event.from, CHANNEL_HISTORY_ANSWER, answer));
            }
            Err(error) => tracing::warn!(%error, peer = event.from, "a peer can't be given past epochs"),
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

//! Past epochs, handed to guardians that fell behind.
//!
//! Request: `first u64 · count u8 · with bodies u8`. Answer, one an epoch: `epoch u64 · SHA-256 · body or nothing`. One
//! peer is asked for the bytes and the others for their hashes, so that being sure costs little.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::Batch;
use crate::links::{CHANNEL_HISTORY_ANSWER, LinkEvent, Links};
use crate::wire::{Malformed, Reader};

/// The most epochs in one request.
pub(super) const MAX_COUNT: u8 = 16;
/// What an answer has around a batch.
pub(super) const ANSWER_OVERHEAD: usize = 8 + 32;

/// The batches that this guardian has committed, as [`Batch::encode`] gave them.
#[async_trait]
pub trait History: Send + Sync + 'static {
    /// The encoded batch of `epoch`; `None` if it isn't committed yet, or not kept any more.
    async fn batch(&self, epoch: u64) -> Option<Bytes>;

    /// The next epoch to be committed.
    async fn next_epoch(&self) -> u64;
}

/// Asks for epochs `first`, `first + 1`, …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub first: u64,
    pub count: u8,
    pub bodies: bool,
}

impl Request {
    pub fn encode(self) -> Bytes {
        let mut out = self.first.to_be_bytes().to_vec();
        out.extend_from_slice(&[self.count, u8::from(self.bodies)]);
        out.into()
    }

    fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let request = Self { first: reader.u64()?, count: reader.u8()?, bodies: reader.u8()? != 0 };
        reader.end()?;
        Ok(request)
    }
}

/// One epoch of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub epoch: u64,
    pub hash: [u8; 32],
    pub body: Option<Bytes>,
}

impl Answer {
    fn encode(&self) -> Bytes {
        let body = self.body.as_deref().unwrap_or_default();
        let mut out = Vec::with_capacity(ANSWER_OVERHEAD + body.len());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.hash);
        out.extend_from_slice(body);
        out.into()
    }

    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let (epoch, hash) = (reader.u64()?, reader.array()?);
        let body = reader.rest();
        // An encoded batch is never empty.
        Ok(Self { epoch, hash, body: (!body.is_empty()).then_some(body) })
    }
}

/// Answers requests, one after another: a peer that asks for much waits for itself.
pub(super) async fn serve(mut requests: mpsc::Receiver<LinkEvent>, links: Links, history: Arc<dyn History>) {
    while let Some(event) = requests.recv().await {
        event.accept();
        let Ok(request) = Request::decode(event.frame.clone()) else { continue };
        let end = request.first.saturating_add(u64::from(request.count.min(MAX_COUNT)));
        for epoch in request.first..end {
            let Some(body) = history.batch(epoch).await else { break };
            let answer = Answer { epoch, hash: Batch::hash(&body), body: request.bodies.then_some(body) };
            // What doesn't fit is asked for again.
            if links.send(event.from, CHANNEL_HISTORY_ANSWER, answer.encode()).is_err() {
                break;
            }
        }
    }
}

//! What guardians say to each other about snapshots: requests on one channel of the links, answers on another.

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use federation_consensus::NodeId;
use federation_consensus::header::{Signature, Signatures};
use federation_consensus::links::{LinkEvent, Links};
use federation_core::encoding::{decode, encode};
use tokio::sync::mpsc;

use super::manifest::{CHUNK, MAX_MANIFEST, Manifest};
use super::store::Snapshots;

/// Requests for snapshots and their chunks.
pub const CHANNEL_REQUEST: u8 = 5;
/// Answers to them.
pub const CHANNEL_ANSWER: u8 = 6;
/// What an answer has around a manifest or a chunk: signatures, mostly.
const OVERHEAD: usize = 4096;
/// The largest answer.
pub const MAX_ANSWER: usize = OVERHEAD + if MAX_MANIFEST > CHUNK { MAX_MANIFEST } else { CHUNK };
/// Bytes waiting for a peer before it has to wait for its next chunk.
const QUEUED: usize = 4 << 20;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Request {
    /// "Which is your best snapshot?"
    Best,
    /// "Give me this chunk."
    Chunk {
        /// The snapshot's epoch.
        epoch: u64,
        /// From 0.
        index: u32,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Answer {
    /// "I have none that enough guardians have signed."
    None,
    /// "This one."
    Best {
        /// The encoded manifest.
        manifest: Vec<u8>,
        /// Who has signed its header.
        signatures: Vec<(NodeId, Signature)>,
    },
    /// A chunk.
    Chunk {
        /// The snapshot's epoch.
        epoch: u64,
        /// From 0.
        index: u32,
        /// The bytes; none if the snapshot is gone.
        bytes: Vec<u8>,
    },
}

impl Request {
    /// The frame.
    pub fn frame(&self) -> Bytes {
        encode(self).into()
    }
}

impl Answer {
    /// The frame.
    pub fn frame(&self) -> Bytes {
        encode(self).into()
    }

    /// Reads a frame; `None` if it is none.
    pub fn read(frame: &[u8]) -> Option<Self> {
        decode(frame, MAX_ANSWER).ok()
    }

    /// A manifest that is offered.
    pub fn offer(&self) -> Option<(Manifest, Signatures)> {
        match self {
            Self::Best { manifest, signatures } => {
                Some((Manifest::from_bytes(manifest).ok()?, signatures.iter().copied().collect()))
            }
            _ => None,
        }
    }
}

/// Answers requests, one after another: a peer that does not take its answers gets no more of them.
pub async fn serve(links: Links, mut requests: mpsc::Receiver<LinkEvent>, snapshots: Arc<Snapshots>) {
    while let Some(event) = requests.recv().await {
        event.accept();
        let Ok(request) = decode::<Request>(&event.frame, OVERHEAD) else { continue };
        if links.status().get(&event.from).is_none_or(|link| link.queued_bytes > QUEUED) {
            continue;
        }
        let answer = match request {
            Request::Best => match snapshots.best().await {
                Some(offer) => Answer::Best {
                    manifest: offer.manifest.to_bytes(),
                    signatures: offer.signatures.into_iter().collect(),
                },
                None => Answer::None,
            },
            Request::Chunk { epoch, index } => {
                let bytes = snapshots.chunk(epoch, index).await.unwrap_or_default();
                Answer::Chunk { epoch, index, bytes }
            }
        };
        if let Err(error) = links.send(event.from, CHANNEL_ANSWER, answer.frame()) {
            tracing::debug!("guardian {} asks for a snapshot, but: {error}", event.from);
        }
    }
}

/// Takes what comes on a channel and drops it: answers that came too late must not hold up what is behind them.
pub async fn drain(mut frames: mpsc::Receiver<LinkEvent>) {
    while let Some(event) = frames.recv().await {
        event.accept();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_largest_answers_can_be_read() {
        let signatures = vec![(0, [1; 64]); 20];
        for answer in [
            Answer::None,
            Answer::Best { manifest: vec![1; MAX_MANIFEST], signatures },
            Answer::Chunk { epoch: 7, index: 1, bytes: vec![1; CHUNK] },
        ] {
            assert_eq!(Answer::read(&answer.frame()), Some(answer));
        }
        assert_eq!(
            Answer::read(&Answer::Chunk { epoch: 7, index: 1, bytes: vec![1; CHUNK + OVERHEAD] }.frame()),
            None
        );
    }

    proptest! {
        #[test]
        fn rubbish_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(answer) = Answer::read(&bytes) {
                let _ = answer.offer();
            }
        }
    }
}

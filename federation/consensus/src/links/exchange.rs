//! Rounds in which every guardian tells every other one something: the shape of all of setup.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{CHANNEL_SETUP, LinkError, LinkEvent, Links};
use crate::NodeId;

/// Rounds of a setup are few; a peer that numbers higher is making them up.
const MAX_ROUND: u32 = 64;

/// Why a round didn't end.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Someone else already runs an exchange over these links.
    #[error("another setup is running over these links")]
    Busy,
    /// Guardians that said nothing in time.
    #[error("no answer from guardians {0:?} in round {1}; are they running, and can they be reached?")]
    Missing(Vec<NodeId>, u32),
    /// The links refused the own message.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Rounds over the setup channel. Later rounds' messages of faster peers are kept.
#[derive(Debug)]
pub struct Exchange {
    links: Links,
    frames: mpsc::Receiver<LinkEvent>,
    received: BTreeMap<(u32, NodeId), Bytes>,
}

impl Exchange {
    /// Takes the setup channel of `links`.
    ///
    /// # Errors
    /// [`ExchangeError::Busy`].
    pub fn new(links: Links) -> Result<Self, ExchangeError> {
        let frames = links.subscribe(CHANNEL_SETUP).ok_or(ExchangeError::Busy)?;
        Ok(Self { links, frames, received: BTreeMap::new() })
    }

    /// Sends `payload` to all and waits for everyone's of the same round; the own is in the result. A peer's first message of a round counts.
    ///
    /// # Errors
    /// [`ExchangeError::Missing`] names the guardians that said nothing within `limit`.
    pub async fn exchange(
        &mut self,
        round: u32,
        payload: Bytes,
        limit: Duration,
    ) -> Result<BTreeMap<NodeId, Bytes>, ExchangeError> {
        let peers: Vec<NodeId> = self.links.peers().collect();
        let mut frame = round.to_be_bytes().to_vec();
        frame.extend_from_slice(&payload);
        let frame = Bytes::from(frame);
        for peer in &peers {
            self.links.send(*peer, CHANNEL_SETUP, frame.clone())?;
        }
        let deadline = Instant::now() + limit;
        loop {
            let missing: Vec<NodeId> =
                peers.iter().filter(|peer| !self.received.contains_key(&(round, **peer))).copied().collect();
            if missing.is_empty() {
                break;
            }
            let Ok(Some(event)) = tokio::time::timeout_at(deadline, self.frames.recv()).await else {
                return Err(ExchangeError::Missing(missing, round));
            };
            event.accept();
            let mut bytes = event.frame.clone();
            if bytes.len() >= 4 {
                let rest = bytes.split_off(4);
                let number = bytes.as_ref().try_into().map_or(u32::MAX, u32::from_be_bytes);
                if number < MAX_ROUND {
                    self.received.entry((number, event.from)).or_insert(rest);
                }
            }
        }
        let mut all: BTreeMap<NodeId, Bytes> =
            peers.iter().filter_map(|peer| Some((*peer, self.received.remove(&(round, *peer))?))).collect();
        all.insert(self.links.me(), payload);
        Ok(all)
    }
}

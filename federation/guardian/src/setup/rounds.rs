//! Rounds in which every guardian sends one message to every other one.
//!
//! A guardian can be one round ahead of another, so messages of later rounds are kept, one a
//! guardian and round. Two different messages for the same round end the setup: either the sender
//! lies, or it has started anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use federation_core::encoding::{decode, encode};

use crate::error::GuardianError;

/// The round in which a guardian says why it has given up, so that the others do not wait for it.
const ABORT: u8 = u8::MAX;

/// The largest message of a round.
pub const MAX_MESSAGE: usize = 1 << 20;

/// A message of a round, as it goes over a link.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RoundMessage {
    /// Hash of all setup codes: only guardians with the same codes understand each other.
    pub session: [u8; 32],
    /// The round.
    pub round: u8,
    /// Its content.
    pub body: Vec<u8>,
}

/// What failed, if it was not a guardian.
pub const LINKS: &str = "the links to the other guardians";

/// What the rounds need of the links.
#[async_trait::async_trait]
pub trait Exchange: Send {
    /// Queues bytes for a guardian.
    async fn send(&mut self, to: u16, bytes: Bytes);
    /// The next bytes from a guardian; `None` when the links have ended.
    async fn receive(&mut self) -> Option<(u16, Bytes)>;
}

/// What the operator sees of the rounds under way.
pub type Progress = Arc<Mutex<Option<String>>>;

/// Runs rounds over links.
pub struct Rounds<E> {
    links: E,
    me: u16,
    names: Vec<String>,
    session: [u8; 32],
    early: BTreeMap<(u8, u16), Vec<u8>>,
    progress: Progress,
}

impl<E: Exchange> Rounds<E> {
    /// For `names.len()` guardians, of which this one has number `me`.
    pub fn new(links: E, me: u16, names: Vec<String>, session: [u8; 32], progress: Progress) -> Self {
        Self { links, me, names, session, early: BTreeMap::new(), progress }
    }

    /// Gives the links back.
    pub fn into_links(self) -> E {
        self.links
    }

    /// The name of a guardian, for messages.
    pub fn name(&self, guardian: u16) -> String {
        self.names.get(usize::from(guardian)).cloned().unwrap_or_else(|| format!("number {guardian}"))
    }

    /// Sends one message to each of the others and waits for one from each. The own one is among the
    /// results.
    pub async fn exchange(
        &mut self,
        round: u8,
        message: impl Fn(u16) -> Vec<u8>,
    ) -> Result<BTreeMap<u16, Vec<u8>>, GuardianError> {
        let n = u16::try_from(self.names.len()).unwrap_or(u16::MAX);
        let mut received = BTreeMap::from([(self.me, message(self.me))]);
        for to in (0..n).filter(|to| *to != self.me) {
            let frame = RoundMessage { session: self.session, round, body: message(to) };
            self.links.send(to, encode(&frame).into()).await;
        }
        loop {
            for from in 0..n {
                if let Some(body) = self.early.get(&(round, from)) {
                    received.insert(from, body.clone());
                }
            }
            let missing: Vec<_> = (0..n).filter(|from| !received.contains_key(from)).collect();
            self.report(round, &missing);
            if missing.is_empty() {
                return Ok(received);
            }
            let closed = || GuardianError::io(LINKS)(std::io::Error::other("they were closed"));
            let (from, bytes) = self.links.receive().await.ok_or_else(closed)?;
            self.take(from, &bytes)?;
        }
    }

    /// Tells the others why this guardian has given up.
    pub async fn abort(&mut self, reason: &GuardianError) {
        let n = u16::try_from(self.names.len()).unwrap_or(u16::MAX);
        for to in (0..n).filter(|to| *to != self.me) {
            let frame =
                RoundMessage { session: self.session, round: ABORT, body: reason.to_string().into_bytes() };
            self.links.send(to, encode(&frame).into()).await;
        }
    }

    fn take(&mut self, from: u16, bytes: &[u8]) -> Result<(), GuardianError> {
        let fault =
            |what: &str| GuardianError::KeyGeneration(format!("guardian '{}' {what}", self.name(from)));
        let frame: RoundMessage = decode(bytes, MAX_MESSAGE)
            .map_err(|_| fault("sent a message that cannot be read: is it of the same version?"))?;
        if frame.session != self.session {
            return Err(fault("has other setup codes: compare the fingerprints"));
        }
        if frame.round == ABORT {
            let reason: String =
                String::from_utf8_lossy(&frame.body).chars().filter(|c| !c.is_control()).take(300).collect();
            return Err(fault(&format!("has given up: {reason}")));
        }
        match self.early.get(&(frame.round, from)) {
            Some(known) if *known == frame.body => Ok(()),
            Some(_) => Err(fault("has started anew, or says different things to different guardians")),
            None => {
                self.early.insert((frame.round, from), frame.body);
                Ok(())
            }
        }
    }

    fn report(&self, round: u8, missing: &[u16]) {
        let names: Vec<_> = missing.iter().map(|guardian| self.name(*guardian)).collect();
        let text = if names.is_empty() {
            format!("round {round} is complete")
        } else {
            format!("round {round}: waiting for {}", names.join(", "))
        };
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }
}

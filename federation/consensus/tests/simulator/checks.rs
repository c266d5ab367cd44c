//! What must never happen, looked for at every step.

use std::collections::BTreeMap;
use std::fmt;

use federation_consensus::engine::{Body, Message, epoch_of};
use federation_consensus::journal::Record;
use federation_consensus::{Bytes, Header, NodeId, max_faulty};
use hbbft::binary_agreement::{MessageContent, SbvMessage};
use sha2::{Digest, Sha256};

use crate::disk::TxId;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Two honest guardians have different batches, or headers, of an epoch.
    Fork { epoch: u64, node: NodeId },
    /// An honest guardian has said two things where it may say one.
    Contradiction { node: NodeId, slot: Slot },
    /// An honest guardian is blamed by another.
    Blamed { node: NodeId, by: NodeId, kind: String },
    /// A batch out of order, or again.
    OutOfOrder { node: NodeId, epoch: u64, expected: u64 },
    /// Signatures that don't hold, or are too few.
    FalseSignatures { node: NodeId, epoch: u64 },
    /// A header that was said to be proven is not what the epoch leads to.
    FalseProof { node: NodeId, epoch: u64 },
    /// An honest guardian believes that its state differs.
    Diverged { node: NodeId, epoch: u64 },
    /// A transaction was accepted and is nowhere.
    Lost { id: TxId },
    /// A transaction was applied twice.
    Twice { id: TxId, node: NodeId },
    /// Something has grown beyond its bound.
    Unbounded { node: NodeId, what: String },
    /// Consensus stopped without a crash.
    Stopped { node: NodeId, why: String },
    /// All is well again, and still nothing goes on.
    Stuck { why: String },
    /// Some code panicked.
    Panicked { why: String },
}

impl Fault {
    /// In one line.
    pub fn short(&self) -> String {
        self.to_string().lines().next().unwrap_or_default().to_owned()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Stuck { why } => write!(f, "stuck\n   {why}"),
            other => write!(f, "{other:?}"),
        }
    }
}

/// A statement that may be made once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    pub epoch: u64,
    pub proposer: NodeId,
    pub kind: Kind,
    /// Of the agreement; 0 elsewhere.
    pub round: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Value,
    Echo,
    Ready,
    Aux,
    Conf,
    Coin,
    Term,
    /// The signature of the epoch's header.
    Signed,
}

type Digest32 = [u8; 32];

/// The slot and the value of a frame; `None` where anything may be said.
pub fn statement(frame: &Bytes, n: u16) -> Option<(Slot, Digest32)> {
    // Beside the engine's frames: `epoch · 0xffff · kind · header's hash · signature`.
    if frame.get(8..11) == Some(&[0xff, 0xff, 2]) {
        let slot = Slot { epoch: epoch_of(frame)?, proposer: 0, kind: Kind::Signed, round: 0 };
        return Some((slot, frame.get(11..43)?.try_into().ok()?));
    }
    let message = Message::decode(frame.clone(), n).ok()?;
    let hash = |bytes: &[u8]| -> Digest32 { Sha256::digest(bytes).into() };
    let flag = |value: bool| [u8::from(value); 32];
    let (kind, round, value) = match message.body {
        Body::Value(shard) => (Kind::Value, 0, shard.root),
        Body::Echo(shard) => (Kind::Echo, 0, shard.root),
        Body::Ready(root) => (Kind::Ready, 0, root),
        Body::Agreement(agreement) => match agreement.content {
            MessageContent::SbvBroadcast(SbvMessage::BVal(_)) => return None,
            MessageContent::SbvBroadcast(SbvMessage::Aux(value)) => (Kind::Aux, agreement.epoch, flag(value)),
            MessageContent::Conf(_) => (Kind::Conf, agreement.epoch, hash(frame)),
            MessageContent::Coin(_) => (Kind::Coin, agreement.epoch, hash(frame)),
            MessageContent::Term(value) => (Kind::Term, 0, flag(value)),
        },
    };
    Some((Slot { epoch: message.epoch, proposer: message.proposer, kind, round }, value))
}

/// What has been seen so far.
pub struct Checks {
    n: u16,
    /// By epoch: the batch's hash and the header's.
    history: Vec<(Digest32, Header)>,
    /// What each guardian has said, and in which of its lives on one disk.
    said: Vec<BTreeMap<Slot, (Digest32, u32)>>,
    /// How often its disk was wiped or put back.
    disks: Vec<u32>,
    /// Contradictions of guardians without their memory that nobody who was asked could have known.
    pub tolerated: u64,
}

impl Checks {
    pub fn new(n: u16) -> Self {
        let all = n as usize;
        Self { n, history: Vec::new(), said: vec![BTreeMap::new(); all], disks: vec![0; all], tolerated: 0 }
    }

    /// An honest guardian commits an epoch.
    pub fn committed(&mut self, node: NodeId, batch: Digest32, header: &Header) -> Result<(), Fault> {
        let epoch = header.epoch;
        match self.history.get(epoch as usize) {
            Some(known) if *known == (batch, *header) => Ok(()),
            Some(_) => Err(Fault::Fork { epoch, node }),
            None if epoch == self.history.len() as u64 => {
                self.history.push((batch, *header));
                Ok(())
            }
            None => Err(Fault::OutOfOrder { node, epoch, expected: self.history.len() as u64 }),
        }
    }

    /// Whether a guardian has always known all that it has said.
    pub fn kept_its_disk(&self, node: NodeId) -> bool {
        self.disks[node as usize] == 0
    }

    /// A guardian goes on with less than it had.
    pub fn disk_lost(&mut self, node: NodeId) {
        self.disks[node as usize] += 1;
    }

    /// An honest guardian says something to a peer. `held`: who else's journals, as they are on disk, belong to guardians that know
    /// what they heard.
    ///
    /// One that lost its disk asks n - f guardians, itself included, what it has said. What at most f others know,
    /// it may not hear of; it is one of the f that may be faulty then.
    pub fn said(
        &mut self,
        node: NodeId,
        frame: &Bytes,
        held: impl FnOnce() -> Vec<Vec<Record>>,
    ) -> Result<(), Fault> {
        let Some((slot, value)) = statement(frame, self.n) else { return Ok(()) };
        let disk = self.disks[node as usize];
        let said = &mut self.said[node as usize];
        let Some((before, then)) = said.insert(slot, (value, disk)) else { return Ok(()) };
        if before == value {
            return Ok(());
        }
        if then == disk {
            return Err(Fault::Contradiction { node, slot });
        }
        let knows = |records: &&Vec<Record>| {
            records.iter().any(|record| match record {
                Record::Frame { epoch, from, frame } => {
                    *epoch == slot.epoch && *from == node && statement(frame, self.n) == Some((slot, before))
                }
                Record::Proposal { .. } => false,
            })
        };
        if held().iter().filter(|records| knows(records)).count() > max_faulty(self.n) as usize {
            return Err(Fault::Contradiction { node, slot });
        }
        self.tolerated += 1;
        Ok(())
    }

    /// Nothing below `epoch` is said any more.
    pub fn forget(&mut self, epoch: u64) {
        let first = Slot { epoch, proposer: 0, kind: Kind::Value, round: 0 };
        for said in &mut self.said {
            *said = said.split_off(&first);
        }
    }
}

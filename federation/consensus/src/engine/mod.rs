//! HoneyBadger without I/O: frames and proposals in, a [`Step`] out.
//!
//! An engine that is given the same inputs in the same order sends byte for byte the same messages;
//! there is no clock and no randomness in it. Epochs within a window take messages side by
//! side, so that a peer one step ahead finds its messages handled; they are output strictly in
//! order. An epoch that was output goes on answering until it is [pruned](Engine::prune), since slower
//! peers may need it.

mod agreement;
mod broadcast;
mod coding;
mod context;
mod fault;
mod merkle;
mod message;
mod step;
mod subset;
mod voice;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

pub use self::coding::Coding;
use self::context::Context;
pub use self::fault::FaultKind;
pub use self::merkle::{Hash, MerkleTree};
pub use self::message::{Body, Message, Shard, Target, binds, epoch_of};
pub use self::step::{Outgoing, Step};
use self::subset::Subset;
pub use self::voice::{FrameId, Tag, Voice, frame_id, tag_of};
use crate::keygen::CoinKeys;
use crate::protection::Protection;
use crate::{MAX_NODES, NodeId};

/// What an engine is made from. `max_proposal` and `window` are the same on every guardian.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// This guardian's number.
    pub me: NodeId,
    /// How many guardians there are, 1 to [`MAX_NODES`].
    pub n: u16,
    /// The coin's keys.
    pub keys: CoinKeys,
    /// The largest proposal in bytes.
    pub max_proposal: usize,
    /// How many epochs, from the first that isn't committed, take messages.
    pub window: u64,
    /// Leaves protections out, to see that tests notice.
    #[cfg(feature = "testing")]
    pub without: &'static [Protection],
}

impl EngineConfig {
    /// A configuration with the default limits: 1 MiB a proposal, four epochs at a time.
    #[must_use]
    pub const fn new(me: NodeId, n: u16, keys: CoinKeys) -> Self {
        Self {
            me,
            n,
            keys,
            max_proposal: 1 << 20,
            window: 4,
            #[cfg(feature = "testing")]
            without: &[],
        }
    }

    /// Whether a protection is on: always, outside of tests.
    #[must_use]
    pub fn keeps(&self, protection: Protection) -> bool {
        #[cfg(feature = "testing")]
        let without = self.without;
        #[cfg(not(feature = "testing"))]
        let without: &[Protection] = &[];
        !without.contains(&protection)
    }

    /// The largest frame that an honest peer sends.
    #[must_use]
    pub fn max_frame(&self) -> usize {
        message::max_frame(self.n, Coding::new(self.n).shard_len(self.max_proposal))
    }

    /// The largest encoded [`Batch`](crate::Batch).
    #[must_use]
    pub const fn max_batch(&self) -> usize {
        16 + self.n as usize * (6 + self.max_proposal)
    }
}

/// Why an engine can't be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// A number of guardians, or an own number, outside of what is possible.
    #[error("guardian {me} of {n} is impossible: 1 to {MAX_NODES} guardians, numbered from 0")]
    BadSize {
        /// The own number.
        me: NodeId,
        /// The number of guardians.
        n: u16,
    },
    /// The coin keys are another guardian's or another federation's.
    #[error("the coin keys are not those of this guardian in a federation of this size")]
    WrongKeys,
    /// A proposal over the limit.
    #[error("the proposal has {size} bytes; the limit is {limit}")]
    ProposalTooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
}

/// The protocol's state on one guardian.
#[derive(Debug)]
pub struct Engine {
    context: Arc<Context>,
    max_frame: usize,
    window: u64,
    /// Epochs below are forgotten.
    base: u64,
    /// The next epoch to be output.
    next_output: u64,
    /// The next epoch to be committed by whoever applies the batches.
    next_commit: u64,
    /// Amnesia: nothing is said in epochs up to and including this one.
    silent_through: Option<u64>,
    /// The last epoch that a proposal was asked for.
    asked: Option<u64>,
    /// Epochs that a peer has said it opens, and none of whose proposals may have come yet.
    hinted: BTreeSet<u64>,
    epochs: BTreeMap<u64, Subset>,
}

impl Engine {
    /// An engine whose first epoch is `epoch`.
    ///
    /// # Errors
    /// [`EngineError`] if the configuration contradicts itself.
    pub fn new(config: &EngineConfig, epoch: u64) -> Result<Self, EngineError> {
        let EngineConfig { me, n, .. } = *config;
        if n == 0 || n > MAX_NODES || me >= n {
            return Err(EngineError::BadSize { me, n });
        }
        let network = config.keys.network(me, n).ok_or(EngineError::WrongKeys)?;
        let context = Context {
            me,
            n,
            max_proposal: config.max_proposal,
            coding: Coding::new(n),
            network,
            voice: Voice::of(&config.keys, me),
            one_proposal: config.keeps(Protection::NoSecondProposal),
            re_encode: config.keeps(Protection::ReEncoding),
        };
        Ok(Self {
            context: Arc::new(context),
            max_frame: config.max_frame(),
            window: config.window.max(1),
            base: epoch,
            next_output: epoch,
            next_commit: epoch,
            silent_through: None,
            asked: None,
            hinted: BTreeSet::new(),
            epochs: BTreeMap::new(),
        })
    }

    /// The amnesia rule: says nothing in epochs up to and including `epoch`.
    pub fn stay_silent(&mut self, epoch: u64) {
        self.silent_through = Some(self.silent_through.map_or(epoch, |e| e.max(epoch)));
    }

    /// The next epoch that will be output.
    #[must_use]
    pub const fn next_output(&self) -> u64 {
        self.next_output
    }

    /// The lowest epoch that still answers.
    #[must_use]
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// Whether this guardian has proposed in `epoch`, or may not.
    #[must_use]
    pub fn proposed(&self, epoch: u64) -> bool {
        self.is_silent(epoch)
            || epoch < self.next_output
            || (self.context.one_proposal && self.epochs.get(&epoch).is_some_and(Subset::proposed))
    }

    /// Proposes `value` in `epoch`. A second proposal in an epoch is ignored, and so is one outside of the window.
    ///
    /// # Errors
    /// [`EngineError::ProposalTooLarge`].
    pub fn propose(&mut self, epoch: u64, value: &[u8]) -> Result<Step, EngineError> {
        let limit = self.context.max_proposal;
        if value.len() > limit {
            return Err(EngineError::ProposalTooLarge { size: value.len(), limit });
        }
        let mut step = Step::default();
        if !self.proposed(epoch) && epoch >= self.base && self.in_window(epoch) {
            self.subset(epoch).propose(value, &mut step);
        }
        Ok(self.finish(step))
    }

    /// Whether a proposal was asked for, or made, in `epoch`: somebody has opened it.
    #[must_use]
    pub fn is_open(&self, epoch: u64) -> bool {
        self.asked.is_some_and(|asked| asked >= epoch)
            || self.hinted.contains(&epoch)
            || self.epochs.get(&epoch).is_some_and(Subset::opened)
    }

    /// A peer is about to open `epoch`: its proposal will follow. Nothing is lost by believing it.
    pub fn opens(&mut self, epoch: u64) -> Step {
        if epoch >= self.next_output && self.in_window(epoch) {
            self.hinted.insert(epoch);
        }
        self.finish(Step::default())
    }

    /// Handles a peer's frame.
    pub fn handle(&mut self, from: NodeId, frame: Bytes) -> Step {
        let mut step = Step::default();
        if let Err(fault) = self.try_handle(from, frame, &mut step) {
            step.faults.push((from, fault));
        }
        self.finish(step)
    }

    fn try_handle(&mut self, from: NodeId, frame: Bytes, step: &mut Step) -> Result<(), FaultKind> {
        if from >= self.context.n || from == self.context.me {
            return Err(FaultKind::UnknownNode);
        }
        if frame.len() > self.max_frame {
            return Err(FaultKind::Oversized);
        }
        let epoch = epoch_of(&frame).ok_or(FaultKind::Malformed)?;
        if epoch < self.base {
            return Ok(()); // Late is no fault.
        }
        if !self.in_window(epoch) {
            return Err(FaultKind::EpochTooFar);
        }
        let message = Message::decode(frame, self.context.n).map_err(|_| FaultKind::Malformed)?;
        if message.proposer >= self.context.n {
            return Err(FaultKind::UnknownNode);
        }
        self.subset(epoch).handle(from, message.proposer, message.body, step);
        Ok(())
    }

    /// Takes messages up to the window that begins at `epoch`, as before a replay: inputs of older and of
    /// newer epochs are then handled alike.
    pub fn open_window(&mut self, epoch: u64) {
        self.next_commit = self.next_commit.max(epoch);
    }

    /// Epochs below `epoch` are committed: the window moves, and a waiting epoch may want a proposal.
    pub fn committed(&mut self, epoch: u64) -> Step {
        self.next_commit = self.next_commit.max(epoch);
        self.skip_to(epoch)
    }

    /// Epochs below `epoch` are known from elsewhere and will not be output any more. They go on
    /// answering until they are pruned.
    pub fn skip_to(&mut self, epoch: u64) -> Step {
        self.next_output = self.next_output.max(epoch);
        self.finish(Step::default())
    }

    /// Forgets epochs below `epoch`; nothing that is still to be output.
    pub fn prune(&mut self, epoch: u64) {
        self.base = self.base.max(epoch.min(self.next_output));
        self.epochs = self.epochs.split_off(&self.base);
    }

    /// A frame's fate before it is handled: whether it is late, in the window, or too far ahead is the engine's to say.
    fn in_window(&self, epoch: u64) -> bool {
        epoch < self.next_commit.saturating_add(self.window)
    }

    fn is_silent(&self, epoch: u64) -> bool {
        self.silent_through.is_some_and(|through| epoch <= through)
    }

    fn subset(&mut self, epoch: u64) -> &mut Subset {
        let context = &self.context;
        self.epochs.entry(epoch).or_insert_with(|| Subset::new(Arc::clone(context), epoch))
    }

    fn finish(&mut self, mut step: Step) -> Step {
        while let Some(batch) = self.epochs.get_mut(&self.next_output).and_then(Subset::take_batch) {
            step.batches.push(batch);
            self.next_output += 1;
        }
        if self.silent_through.is_some() {
            let silent = |epoch| self.is_silent(epoch);
            step.messages.retain(|message| !silent(message.epoch));
        }
        let next = self.next_output;
        self.hinted = self.hinted.split_off(&next);
        let opened = self.hinted.contains(&next) || self.epochs.get(&next).is_some_and(Subset::opened);
        if next == self.next_commit && opened && !self.proposed(next) && self.asked != Some(next) {
            self.asked = Some(next);
            step.wants_proposal = Some(next);
        }
        step
    }
}

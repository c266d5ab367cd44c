//! One binary agreement: hbbft's, with a guard in front of it.
//!
//! hbbft 0.1.1 decides rightly, but one faulty guardian and an unlucky schedule can leave it waiting
//! for ever. Each of these was found by reading it, and the guard closes it from outside:
//!
//! 1. *Relay ends too early.* A guardian that has left a round, or decided, no longer repeats a
//!    `BVal` that f + 1 others sent in it, though slower ones may need that repetition to accept an
//!    honest `Aux`. The guard counts `BVal`s of past rounds and repeats them itself.
//! 2. *Deciding by `Term` leaves a round half done.* f + 1 `Term`s make hbbft decide and go silent in
//!    the middle of a round, and f of them can be lies told to one guardian only. The guard counts
//!    `Term`s itself and outputs, while hbbft is given at most f of each value and keeps serving
//!    others until it has decided by the coin.
//! 3. *A coin known early skips `Conf`.* f + 1 shares that arrive before this guardian's own `Conf` make
//!    hbbft never send it. The guard holds shares back until the `Conf` is out.
//! 4. *A grown set is not looked at again.* If `bin_values` grows after the `Conf`s have arrived, nothing
//!    counts them anew. The guard hands in this guardian's own `Conf` again after each `BVal`.
//!
//! It also lets each sender make each statement once a round, so repeats cost nothing, and bounds
//! the rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hbbft::binary_agreement::{
    self, BinaryAgreement, FaultKind as AgreementFault, Message, MessageContent, SbvMessage,
    bool_set::{self, BoolSet},
};

use super::context::{Context, Outbox};
use super::fault::FaultKind;
use super::message::{Body, Target};
use crate::NodeId;

/// A round ends the agreement with probability ½ at least every third time; no honest schedule
/// comes near this.
const MAX_ROUNDS: u64 = 200;

/// A statement that a sender can make once in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Statement {
    BVal(bool),
    Aux,
    Conf,
    Coin,
}

/// The agreement whether one proposal is in.
#[derive(Debug)]
pub struct Agreement {
    context: Arc<Context>,
    inner: Option<BinaryAgreement<NodeId, String>>,
    /// This guardian's round inside hbbft, read off the messages it sends.
    round: u64,
    inner_decided: bool,
    seen: BTreeSet<(u64, Statement, NodeId)>,
    terms: BTreeMap<NodeId, bool>,
    held_coins: Vec<(NodeId, Message)>,
    own_conf: Option<(u64, BoolSet)>,
    input: bool,
    output: Option<bool>,
}

impl Agreement {
    /// The agreement about `proposer`'s proposal in `epoch`.
    #[must_use]
    pub fn new(context: Arc<Context>, epoch: u64, proposer: NodeId) -> Self {
        // Coin shares sign this, so it must differ for every agreement under the same keys.
        let session = format!("federation-consensus/{epoch}/{proposer}");
        let inner = BinaryAgreement::new(Arc::clone(&context.network), session).ok();
        Self {
            context,
            inner,
            round: 0,
            inner_decided: false,
            seen: BTreeSet::new(),
            terms: BTreeMap::new(),
            held_coins: Vec::new(),
            own_conf: None,
            input: false,
            output: None,
        }
    }

    /// What was decided.
    #[must_use]
    pub const fn output(&self) -> Option<bool> {
        self.output
    }

    /// Whether this guardian has given its input.
    #[must_use]
    pub const fn has_input(&self) -> bool {
        self.input
    }

    /// Gives this guardian's input; a second one is ignored.
    pub fn propose(&mut self, value: bool, out: &mut Outbox) {
        if self.input {
            return;
        }
        self.input = true;
        out.changed();
        let me = self.context.me;
        let Some(inner) = &mut self.inner else { return };
        let step = inner.propose(value);
        self.absorb(me, step, out);
    }

    /// Handles a peer's message.
    pub fn handle(&mut self, from: NodeId, message: Message, out: &mut Outbox) {
        if message.epoch > MAX_ROUNDS {
            out.fault(from, FaultKind::AgreementRound);
            return;
        }
        let statement = match &message.content {
            MessageContent::Term(value) => return self.on_term(from, *value, message, out),
            MessageContent::SbvBroadcast(SbvMessage::BVal(value)) => Statement::BVal(*value),
            MessageContent::SbvBroadcast(SbvMessage::Aux(_)) => Statement::Aux,
            MessageContent::Conf(values) => {
                if ![bool_set::FALSE, bool_set::TRUE, bool_set::BOTH].contains(values) {
                    out.fault(from, FaultKind::Malformed);
                    return;
                }
                Statement::Conf
            }
            MessageContent::Coin(_) if message.epoch % 3 != 2 => {
                out.fault(from, FaultKind::BadCoinShare);
                return;
            }
            MessageContent::Coin(_) => Statement::Coin,
        };
        if !self.seen.insert((message.epoch, statement, from)) {
            return;
        }
        out.changed();
        let round = message.epoch;
        if statement == Statement::Coin && !self.inner_decided && !self.sent_conf(round) {
            self.held_coins.push((from, message));
            return;
        }
        self.feed(from, message, out);
        if let Statement::BVal(value) = statement {
            self.recount_confs(round, out);
            self.relay(round, value, out);
        }
    }

    fn on_term(&mut self, from: NodeId, value: bool, message: Message, out: &mut Outbox) {
        if let Some(earlier) = self.terms.get(&from) {
            if *earlier != value {
                out.fault(from, FaultKind::Equivocation);
            }
            return;
        }
        out.changed();
        self.terms.insert(from, value);
        let same = self.terms.values().filter(|v| **v == value).count();
        if same <= self.context.faulty() {
            self.feed(from, message, out);
        } else if self.output.is_none() {
            self.output = Some(value);
        }
    }

    fn feed(&mut self, from: NodeId, message: Message, out: &mut Outbox) {
        let Some(inner) = &mut self.inner else { return };
        let step = inner.handle_message(&from, message);
        self.absorb(from, step, out);
    }

    /// Takes over what hbbft says, and what the guard says because of it.
    fn absorb(
        &mut self,
        from: NodeId,
        step: binary_agreement::Result<binary_agreement::Step<NodeId>>,
        out: &mut Outbox,
    ) {
        let Ok(step) = step else {
            out.fault(from, FaultKind::AgreementRefused);
            return;
        };
        for fault in step.fault_log {
            // Repeats never come this far, and `Term`s overlap with what was said before them.
            if let AgreementFault::CoinFault(_) = fault.kind {
                out.fault(fault.node_id, FaultKind::BadCoinShare);
            }
        }
        let before = self.round;
        for targeted in step.messages {
            self.note_own(&targeted.message);
            out.send(Target::All, Body::Agreement(targeted.message));
        }
        for value in step.output {
            self.inner_decided = true;
            self.output.get_or_insert(value);
        }
        if self.inner_decided || self.round > before {
            // Rounds were left: what came in for them and is still to be repeated, is repeated now.
            for round in before..=self.round {
                self.relay(round, false, out);
                self.relay(round, true, out);
            }
        }
        self.release_coins(out);
    }

    fn note_own(&mut self, message: &Message) {
        let statement = match &message.content {
            MessageContent::SbvBroadcast(SbvMessage::BVal(value)) => {
                self.round = self.round.max(message.epoch);
                Statement::BVal(*value)
            }
            MessageContent::SbvBroadcast(SbvMessage::Aux(_)) => Statement::Aux,
            MessageContent::Conf(values) => {
                self.own_conf = Some((message.epoch, *values));
                Statement::Conf
            }
            MessageContent::Coin(_) => Statement::Coin,
            MessageContent::Term(_) => return,
        };
        self.seen.insert((message.epoch, statement, self.context.me));
    }

    fn sent_conf(&self, round: u64) -> bool {
        self.round > round || self.seen.contains(&(round, Statement::Conf, self.context.me))
    }

    /// Guard 3: shares go in once this guardian's own `Conf` of their round is out.
    fn release_coins(&mut self, out: &mut Outbox) {
        let held = std::mem::take(&mut self.held_coins);
        let (ready, held) = held.into_iter().partition(|(_, message)| self.sent_conf(message.epoch));
        self.held_coins = held;
        let ready: Vec<(NodeId, Message)> = ready;
        for (from, message) in ready {
            self.feed(from, message, out);
        }
    }

    /// Guard 4: our own `Conf` again makes hbbft count all of them again.
    fn recount_confs(&mut self, round: u64, out: &mut Outbox) {
        if let Some((sent_in, values)) = self.own_conf
            && sent_in == round
            && round == self.round
            && !self.inner_decided
        {
            let me = self.context.me;
            self.feed(me, MessageContent::Conf(values).with_epoch(round), out);
        }
    }

    /// Guard 1: in a round that hbbft has left, f + 1 `BVal`s of a value are answered with our own.
    fn relay(&mut self, round: u64, value: bool, out: &mut Outbox) {
        let left = round < self.round || (self.inner_decided && round == self.round);
        let own = (round, Statement::BVal(value), self.context.me);
        if !left || self.seen.contains(&own) {
            return;
        }
        let from = (round, Statement::BVal(value), NodeId::MIN);
        let to = (round, Statement::BVal(value), NodeId::MAX);
        if self.seen.range(from..=to).count() > self.context.faulty() {
            self.seen.insert(own);
            let message = MessageContent::SbvBroadcast(SbvMessage::BVal(value)).with_epoch(round);
            out.send(Target::All, Body::Agreement(message));
        }
    }
}

//! What this guardian proposes, and whether now: the [window](super::window)'s rule with everything it asks for.

use std::sync::Arc;
use std::time::Instant;

use federation_core::db::{Database, DbError};
use federation_core::module::{self, Registry};
use federation_core::{ConsensusItem, PeerId};

use super::contribution::{Contribution, MAX_CONTRIBUTION, MAX_ITEM_COUNT};
use super::pool::Pool;
use super::version::Versions;
use super::window::{Decision, Past, Recent, Situation, decide};
use crate::state;

/// Where a proposal's parts come from.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// This guardian.
    pub me: PeerId,
    /// Committed state.
    pub db: &'a Arc<dyn Database>,
    /// Transactions.
    pub pool: &'a Pool,
    /// The modules' items.
    pub modules: &'a Registry,
    /// The announcement of what this program knows.
    pub versions: &'a Versions,
}

/// What to do now.
#[derive(Debug)]
pub enum Next {
    /// Hand this to consensus.
    Propose(Contribution),
    /// Wait: for something new, and at most for this long.
    Wait(Option<std::time::Duration>),
}

/// One proposal an epoch, at the right time.
pub struct Proposer {
    /// The last epoch that was proposed for, and when.
    last: Option<(u64, Instant)>,
    /// The last epoch that a peer has opened.
    wanted: Option<u64>,
    /// Whether the last proposal had something worth an epoch.
    needed: bool,
    /// Whether the pool filled it.
    full: bool,
    recent: Recent,
    committed: Instant,
    /// How many transactions were left then.
    left: usize,
}

impl Default for Proposer {
    fn default() -> Self {
        Self {
            last: None,
            wanted: None,
            needed: false,
            full: false,
            recent: Recent::default(),
            committed: Instant::now(),
            left: 0,
        }
    }
}

impl Proposer {
    /// A peer has opened an epoch. It may be ahead of the batch that is still to be applied.
    pub fn wanted(&mut self, epoch: u64) {
        self.wanted = self.wanted.max(Some(epoch));
    }

    /// How long this guardian's proposal has been waiting for its epoch's end, if it is.
    pub fn under_way(&self, epoch: u64) -> Option<std::time::Duration> {
        self.last.filter(|(last, _)| *last == epoch).map(|(_, at)| at.elapsed())
    }

    /// An epoch is committed that decided so many transactions, so many of them of this guardian's pool, where so many are
    /// left.
    pub fn committed(&mut self, epoch: u64, decided: usize, own: usize, left: usize) {
        let took = self.under_way(epoch);
        let proposed = took.is_some();
        let past = Past { decided, own, needed: proposed && self.needed, full: proposed && self.full, took };
        self.recent = self.recent.after(past);
        self.committed = Instant::now();
        self.left = left;
    }

    /// What to do about `epoch` without anything to say: others that have opened it are not kept waiting.
    pub fn join(&mut self, epoch: u64) -> Next {
        if self.under_way(epoch).is_some() || self.wanted != Some(epoch) {
            return Next::Wait(None);
        }
        self.last = Some((epoch, Instant::now()));
        (self.needed, self.full) = (false, false);
        Next::Propose(Contribution::default())
    }

    /// What to do about `epoch`, the next to be committed.
    pub async fn next(&mut self, epoch: u64, from: Sources<'_>) -> Result<Next, DbError> {
        if self.under_way(epoch).is_some() {
            return Ok(Next::Wait(None));
        }
        let (items, opens) = items(from).await?;
        let waiting = from.pool.waiting();
        let situation = Situation {
            waiting: waiting.ready,
            full: waiting.fills_a_contribution(),
            items: opens,
            arrived: waiting.ready.saturating_sub(self.left),
            opened: self.wanted == Some(epoch),
            since_commit: self.committed.elapsed(),
            since_oldest: waiting.oldest,
        };
        match decide(&self.recent, &situation) {
            Decision::Nothing => Ok(Next::Wait(None)),
            Decision::Wait(time) => Ok(Next::Wait(Some(time))),
            Decision::Propose => {
                self.last = Some((epoch, Instant::now()));
                self.needed = opens || waiting.ready > 0;
                self.full = situation.full;
                Ok(Next::Propose(contribution(items, from.pool)))
            }
        }
    }
}

/// What this guardian says for itself, and whether that is worth an epoch.
async fn items(from: Sources<'_>) -> Result<(Vec<ConsensusItem>, bool), DbError> {
    let agreed = state::agreed_reader(Arc::clone(from.db) as _);
    let mut items: Vec<_> = from.versions.propose(&agreed, from.me).await?.into_iter().collect();
    let mut opens = !items.is_empty();
    for (id, found) in from.modules {
        let proposal = found.propose(&state::module_reader(Arc::clone(from.db) as _, *id)).await?;
        opens |= proposal.opens_epoch;
        items.extend(proposal.items.into_iter().map(|body| module::item(*id, body)));
    }
    Ok((items, opens))
}

/// As much of it as fits, with a draw from the pool.
fn contribution(items: Vec<ConsensusItem>, pool: &Pool) -> Contribution {
    let transactions: Vec<_> = pool.draw().iter().map(|bytes| bytes.to_vec()).collect();
    let used = |bytes: &Vec<u8>| bytes.len().saturating_add(16);
    let mut room = MAX_CONTRIBUTION.saturating_sub(transactions.iter().map(used).sum()).saturating_sub(1024);
    let mut kept: Vec<ConsensusItem> = Vec::new();
    for item in items {
        // What does not fit waits for the next epoch: modules propose again what is not applied.
        let fits = kept.len() < MAX_ITEM_COUNT && item.body.len() <= module::MAX_ITEM;
        if let Some(left) = room.checked_sub(used(&item.body)).filter(|_| fits) {
            room = left;
            kept.push(item);
        }
    }
    Contribution { items: kept, transactions }
}

//! When this guardian proposes: the batching window, and how fast it follows others into epochs that are worth nothing.
//!
//! One proposal an epoch, and the next epoch begins when the last one is committed: so whatever comes while an epoch is
//! under way gathers for the next one by itself. [`decide`] is about the moment after that. In order:
//!
//! 1. Nothing here that is worth an epoch, and nobody has opened one: **nothing**. An idle federation has no epochs.
//! 2. Nothing here, but a peer has opened the epoch: **join**, since no epoch ends without n − f proposals. At once, unless
//!    the last epochs were worth nothing (see below).
//! 3. A module has something, or a peer has opened the epoch and transactions wait here: **propose** at once.
//! 4. Transactions wait: **propose** at once if they fill a contribution, if the last epoch was full, or if since the last
//!    commit as many have come as the last epochs took from here (an idle federation expects none: the
//!    first transaction never waits, nor does one after the other of a single client). Otherwise more are likely to follow
//!    within a moment: clients that were answered by the last epoch hand in their next transactions at about the same
//!    time, and an epoch without them would make all of them wait for its end. So **wait** for them, at most a quarter of the time
//!    that an epoch takes and [`MAX_WINDOW`].
//!
//! # Worthless epochs
//! A faulty guardian could open epochs with nothing in them as fast as the others follow, and so keep their disks and
//! processors busy and their histories growing. What others say in an epoch that this guardian can't judge by itself:
//! it may be worth nothing here and much for the opener. So nothing is refused, it only takes longer:
//! after [`FREE`] epochs in a row in which no transaction was decided and this guardian had nothing to say, it joins the
//! next such epoch [`FIRST_DELAY`] after the last commit at the soonest, and doubles that with each one more, up to [`MAX_DELAY`].
//!
//! - The bound: n − f guardians make an epoch and at most f of them are faulty, so an honest one must be among them, and for
//!   every epoch with a transaction there are at most [`FREE`] + 5 worthless ones that didn't wait for the whole [`MAX_DELAY`]:
//!   in the long run at most 2 worthless epochs a second.
//! - The price: while such an attack lasts, a transaction that waits at another guardian only may be joined [`MAX_DELAY`] late, once:
//!   its epoch ends the row. One that waits here is never delayed, nor is anything if the last epoch is longer ago than
//!   [`MAX_DELAY`].

use std::time::Duration;

/// The longest that transactions wait for others to come along.
pub const MAX_WINDOW: Duration = Duration::from_millis(50);
/// After so long without an epoch nothing is known of the load.
pub const IDLE: Duration = Duration::from_secs(1);
/// So many worthless epochs in a row are joined at once: an honest guardian's proposal may have missed its epoch.
pub const FREE: u32 = 3;
/// How long after the last commit the next one is joined.
pub const FIRST_DELAY: Duration = Duration::from_millis(25);
/// And at the most.
pub const MAX_DELAY: Duration = Duration::from_millis(500);

/// What the last epochs were like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    /// How many transactions of this guardian's pool the last epochs decided: a moving average, in quarters.
    quarters: usize,
    /// Whether the last epoch's own contribution had no room left.
    full: bool,
    /// How long an epoch takes from the own proposal to the commit: a moving average.
    took: Duration,
    /// How many worthless epochs there were in a row.
    worthless: u32,
}

/// An epoch that is over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Past {
    /// How many transactions it decided.
    pub decided: usize,
    /// How many of them were in this guardian's pool.
    pub own: usize,
    /// Whether this guardian had something worth an epoch.
    pub needed: bool,
    /// Whether this guardian's pool filled its contribution.
    pub full: bool,
    /// From this guardian's proposal to the commit; `None` if it didn't propose.
    pub took: Option<Duration>,
}

/// What is known when it is asked whether to propose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Situation {
    /// How many transactions wait here.
    pub waiting: usize,
    /// Whether they fill a contribution.
    pub full: bool,
    /// Whether modules, or the guardian itself, have something worth an epoch.
    pub items: bool,
    /// Whether a peer has opened the epoch.
    pub opened: bool,
    /// How many of them have come since the last commit.
    pub arrived: usize,
    /// Since the last commit, or the start.
    pub since_commit: Duration,
    /// Since the oldest of the waiting transactions came.
    pub since_oldest: Duration,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Propose now.
    Propose,
    /// Ask again after this time, or when something comes.
    Wait(Duration),
    /// Ask again when something comes.
    Nothing,
}

impl Recent {
    /// The same after one more epoch.
    pub fn after(self, past: Past) -> Self {
        let took = past.took.map_or(self.took, |took| {
            if self.took.is_zero() { took } else { self.took.saturating_mul(3).saturating_add(took) / 4 }
        });
        let worthless = past.decided == 0 && !past.needed;
        Self {
            quarters: self.quarters.saturating_sub(self.quarters.div_ceil(4)).saturating_add(past.own),
            full: past.full,
            took,
            worthless: if worthless { self.worthless.saturating_add(1) } else { 0 },
        }
    }

    /// How many transactions an epoch takes from here.
    fn usual(&self) -> usize {
        self.quarters / 4
    }

    fn window(&self) -> Duration {
        (self.took / 4).min(MAX_WINDOW)
    }

    /// How long after the last commit an epoch is joined by whoever has nothing to say.
    fn delay(&self) -> Duration {
        match self.worthless.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(more) => FIRST_DELAY.saturating_mul(1 << more.min(10)).min(MAX_DELAY),
        }
    }
}

/// Whether to propose: see [above](self).
pub fn decide(recent: &Recent, now: &Situation) -> Decision {
    let wait_until = |time: Duration, elapsed: Duration| match time.checked_sub(elapsed) {
        Some(left) if !left.is_zero() => Decision::Wait(left),
        _ => Decision::Propose,
    };
    if now.items {
        return Decision::Propose;
    }
    if now.waiting == 0 {
        return if now.opened { wait_until(recent.delay(), now.since_commit) } else { Decision::Nothing };
    }
    let usual = if now.since_commit > IDLE { 0 } else { recent.usual() };
    if now.opened || now.full || recent.full || now.arrived >= usual {
        return Decision::Propose;
    }
    wait_until(recent.window(), now.since_commit.min(now.since_oldest))
}

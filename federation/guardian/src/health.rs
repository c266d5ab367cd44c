//! How this guardian is doing: what status page, metrics and alarms are made of beyond what others know already.
//!
//! The main loop takes a [sample](Health::sample) every [`INTERVAL`], so that an alarm can say how long something has
//! been wrong, and a short hiccup raises none.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use federation_core::PeerId;

/// How often a sample is taken.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// What is wrong for so long is an alarm.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a sample looks at.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// The next epoch to be committed.
    pub next_epoch: u64,
    /// The last epoch with f + 1 signatures.
    pub last_final: Option<u64>,
    /// Whether each of the others is connected.
    pub connected: BTreeMap<PeerId, bool>,
}

/// Counts since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Epochs applied.
    pub epochs: u64,
    /// Transactions accepted in them.
    pub accepted: u64,
    /// Transactions rejected in them.
    pub rejected: u64,
    /// The time from proposal to commit of the epochs that this guardian proposed in, and how many these were.
    pub took: (Duration, u64),
}

/// Since when something is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Guardians that have been disconnected for long.
    pub away: BTreeMap<PeerId, Duration>,
    /// For how long the last epoch has had fewer than f + 1 signatures, if for long.
    pub not_final: Option<Duration>,
    /// The epoch that doesn't end, and for how long this guardian has been waiting for that, if for long.
    pub stalled: Option<(u64, Duration)>,
}

#[derive(Debug, Default)]
struct State {
    proposed: Option<(u64, Instant)>,
    away: BTreeMap<PeerId, Instant>,
    not_final: Option<Instant>,
    counts: Counts,
}

/// Remembers since when.
#[derive(Debug, Default)]
pub struct Health(Mutex<State>);

impl Health {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This guardian has proposed in an epoch.
    pub fn proposed(&self, epoch: u64) {
        self.lock().proposed = Some((epoch, Instant::now()));
    }

    /// An epoch is committed.
    pub fn applied(&self, epoch: u64, accepted: usize, rejected: usize) {
        let mut state = self.lock();
        let took = state.proposed.filter(|(proposed, _)| *proposed == epoch).map(|(_, at)| at.elapsed());
        let counts = &mut state.counts;
        counts.epochs = counts.epochs.saturating_add(1);
        counts.accepted = counts.accepted.saturating_add(accepted as u64);
        counts.rejected = counts.rejected.saturating_add(rejected as u64);
        if let Some(took) = took {
            let (sum, number) = counts.took;
            counts.took = (sum.saturating_add(took), number.saturating_add(1));
        }
    }

    /// Looks at the links and at consensus.
    pub fn sample(&self, sample: &Sample, now: Instant) {
        let mut state = self.lock();
        for (peer, connected) in &sample.connected {
            if *connected {
                state.away.remove(peer);
            } else {
                state.away.entry(*peer).or_insert(now);
            }
        }
        let last = sample.next_epoch.checked_sub(1);
        if sample.last_final >= last {
            state.not_final = None;
        } else {
            state.not_final.get_or_insert(now);
        }
    }

    /// What has been wrong for longer than [`PATIENCE`]; `next_epoch` is the one to be committed next.
    pub fn trouble(&self, next_epoch: u64, now: Instant) -> Trouble {
        let state = self.lock();
        let long =
            |since: Instant| Some(now.saturating_duration_since(since)).filter(|time| *time > PATIENCE);
        Trouble {
            away: state.away.iter().filter_map(|(peer, since)| Some((*peer, long(*since)?))).collect(),
            not_final: state.not_final.and_then(long),
            stalled: state
                .proposed
                .filter(|(epoch, _)| *epoch == next_epoch)
                .and_then(|(epoch, since)| Some((epoch, long(since)?))),
        }
    }

    /// Counts since the start.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lasts_is_trouble() {
        let health = Health::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let sample = |connected, last_final| Sample {
            next_epoch: 8,
            last_final,
            connected: BTreeMap::from([(PeerId(1), connected), (PeerId(2), true)]),
        };
        health.sample(&sample(false, Some(6)), at(0));
        health.sample(&sample(true, Some(7)), at(30));
        health.sample(&sample(false, Some(6)), at(40));
        assert_eq!(health.trouble(8, at(100)), Trouble::default());
        health.sample(&sample(false, Some(6)), at(101));
        let lasting = Duration::from_secs(61);
        assert_eq!(
            health.trouble(8, at(101)),
            Trouble { away: [(PeerId(1), lasting)].into(), not_final: Some(lasting), stalled: None }
        );
        health.sample(&sample(true, Some(7)), at(102));
        assert_eq!(health.trouble(8, at(200)), Trouble::default());
    }

    #[test]
    fn an_epoch_that_does_not_end_is_trouble_until_it_does() {
        let health = Health::default();
        health.proposed(8);
        let late = Instant::now() + PATIENCE + Duration::from_secs(1);
        assert!(health.trouble(8, late).stalled.is_some_and(|(epoch, time)| epoch == 8 && time > PATIENCE));
        assert_eq!(health.trouble(9, late).stalled, None);
        health.applied(8, 2, 1);
        let counts = health.counts();
        assert_eq!((counts.epochs, counts.accepted, counts.rejected, counts.took.1), (1, 2, 1, 1));
    }

    #[test]
    fn a_federation_without_epochs_is_well() {
        let health = Health::default();
        let start = Instant::now();
        health.sample(&Sample::default(), start);
        assert_eq!(health.trouble(0, start + PATIENCE * 10), Trouble::default());
    }
}

//! What goes wrong and when: drawn from a seed, before anything runs.
//!
//! Each kind of fault is in a deck that is shuffled and dealt again and again, so that a run of some minutes has them all.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// Between the end of an incident and the next one.
const GAP: std::ops::Range<u64> = 500..4000;
/// How long an incident lasts; now and then so long that the others get far ahead.
const HOLD: std::ops::Range<u64> = 1500..9000;
const LONG: std::ops::Range<u64> = 20_000..30_000;

/// A fault. Guardians are counted as the harness does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` of these, in this order; then they are started again. With `again`, they are killed once more that long
    /// after they were started.
    Kill {
        /// Whom.
        whom: Vec<usize>,
        /// The second time.
        again: Option<Duration>,
    },
    /// SIGSTOP, and later SIGCONT.
    Freeze(usize),
    /// All links of these with the others are cut, in both directions.
    Cut(Vec<usize>),
    /// What the first sends to the second does not arrive.
    OneWay(usize, usize),
    /// The links of these with the others stay connected, but nothing comes through.
    Silence(Vec<usize>),
    /// All links are slow.
    Slow(Duration),
    /// The links of one are slow.
    SlowOne(usize, Duration),
    /// All connections are dropped, again and again.
    Flap(Duration),
    /// The disk is full: files may grow this much beyond the log. The guardian is to stop by itself.
    FullDisk(usize, u64),
    /// The disk is lost; the guardian is restored from its secrets backup.
    Wipe(usize),
    /// The disk is put back to where it was at the beginning of the incident. The guardian is restarted before and after.
    /// (On PostgreSQL the disk is lost instead.)
    RollBack(usize),
}

/// A fault with its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// After the end of the last one.
    pub after: Duration,
    /// What.
    pub fault: Fault,
    /// How long it stays.
    pub hold: Duration,
    /// After that much of it, these are killed on top, and started again at once.
    pub strike: Option<(Duration, Vec<usize>)>,
}

/// The incidents of a seed, without end.
pub struct Schedule {
    random: StdRng,
    guardians: usize,
    lost_disks: bool,
    deck: Vec<u8>,
}

impl Schedule {
    /// For so many guardians; with lost disks, if those can be restored.
    pub fn new(seed: u64, guardians: usize, lost_disks: bool) -> Self {
        Self { random: StdRng::seed_from_u64(seed), guardians, lost_disks, deck: Vec::new() }
    }

    /// So many different guardians.
    fn some(&mut self, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.guardians).collect();
        all.shuffle(&mut self.random);
        all.truncate(count);
        all
    }

    fn one(&mut self) -> usize {
        self.random.gen_range(0..self.guardians.max(1))
    }

    fn time(&mut self, ms: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.gen_range(ms))
    }

    fn kill(&mut self, count: usize) -> Fault {
        let again = self.random.gen_bool(0.3).then(|| self.time(0..3000));
        Fault::Kill { whom: self.some(count), again }
    }

    fn fault(&mut self) -> Fault {
        if self.deck.is_empty() {
            self.deck = (0..16).chain([0, 2]).collect();
            self.deck.shuffle(&mut self.random);
        }
        let half = self.guardians / 2;
        match self.deck.pop().unwrap_or_default() {
            0 => self.kill(1),
            1 => self.kill(2),
            2 => self.kill(self.guardians),
            3 => Fault::Freeze(self.one()),
            4 => Fault::Cut(self.some(1)),
            5 => Fault::Cut(self.some(half)),
            6 => match self.some(2).as_slice() {
                [from, to] => Fault::OneWay(*from, *to),
                _ => self.kill(1),
            },
            7 => Fault::Silence(self.some(1)),
            8 => Fault::Silence(self.some(half)),
            9 => Fault::Slow(self.time(20..400)),
            10 => Fault::SlowOne(self.one(), self.time(200..3000)),
            11 => Fault::Flap(self.time(50..1500)),
            12 => Fault::FullDisk(self.one(), self.random.gen_range(16..768) << 10),
            13 if self.lost_disks => Fault::Wipe(self.one()),
            14 if self.lost_disks => Fault::RollBack(self.one()),
            _ => {
                let again = Some(self.time(0..1500));
                Fault::Kill { whom: self.some(self.guardians), again }
            }
        }
    }
}

impl Iterator for Schedule {
    type Item = Incident;

    fn next(&mut self) -> Option<Incident> {
        let (after, fault) = (self.time(GAP), self.fault());
        let hold = if self.random.gen_bool(0.08) { self.time(LONG) } else { self.time(HOLD) };
        let strike = self.random.gen_bool(0.35).then(|| {
            let mut whom = self.some(self.guardians);
            whom.retain(|one| !fault.whom().contains(one));
            whom.truncate(self.random.gen_range(1..=self.guardians));
            (hold.mul_f64(self.random.gen_range(0.1..0.9)), whom)
        });
        Some(Incident { after, fault, hold, strike: strike.filter(|(_, whom)| !whom.is_empty()) })
    }
}

impl Fault {
    /// The guardians that can't take part in the agreement while it lasts.
    pub fn whom(&self) -> Vec<usize> {
        match self {
            Self::Kill { whom, .. } | Self::Cut(whom) | Self::Silence(whom) => whom.clone(),
            Self::Freeze(one) | Self::OneWay(one, _) | Self::SlowOne(one, _) => vec![*one],
            Self::FullDisk(one, _) | Self::Wipe(one) | Self::RollBack(one) => vec![*one],
            Self::Slow(_) | Self::Flap(_) => Vec::new(),
        }
    }
}

impl fmt::Display for Incident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, for {:.1?}", self.fault, self.hold)?;
        match &self.strike {
            Some((after, whom)) => write!(f, "; kill -9 of {whom:?} on top after {after:.1?}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { whom, again: None } => write!(f, "kill -9 of {whom:?}"),
            Self::Kill { whom, again: Some(time) } => {
                write!(f, "kill -9 of {whom:?}, and again after {time:.1?}")
            }
            Self::Freeze(one) => write!(f, "SIGSTOP of {one}"),
            Self::Cut(whom) => write!(f, "links of {whom:?} cut"),
            Self::OneWay(from, to) => write!(f, "link from {from} to {to} cut"),
            Self::Silence(whom) => write!(f, "links of {whom:?} silent"),
            Self::Slow(late) => write!(f, "all links slow by {late:.1?}"),
            Self::SlowOne(one, late) => write!(f, "links of {one} slow by {late:.1?}"),
            Self::Flap(every) => write!(f, "all links dropped every {every:.1?}"),
            Self::FullDisk(one, left) => write!(f, "disk of {one} full after {} kB", left >> 10),
            Self::Wipe(one) => write!(f, "disk of {one} lost"),
            Self::RollBack(one) => write!(f, "disk of {one} rolled back"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_one_schedule_with_faults_of_every_kind() {
        let take = |seed| Schedule::new(seed, 4, true).take(60).collect::<Vec<_>>();
        assert_eq!(take(1), take(1));
        assert_ne!(take(1), take(2));
        let mut kinds: Vec<_> = take(1).iter().map(|i| std::mem::discriminant(&i.fault)).collect();
        let mut different = Vec::new();
        while let Some(kind) = kinds.pop() {
            if !different.contains(&kind) {
                different.push(kind);
            }
        }
        assert_eq!(different.len(), 11);
        assert!(take(1).iter().any(|i| matches!(&i.fault, Fault::Kill { whom, .. } if whom.len() == 4)));
        assert!(take(1).iter().any(|i| i.strike.is_some()));
        let mut strikes = Schedule::new(5, 4, true).take(200);
        assert!(strikes.all(|i| i.strike.is_none_or(|(_, whom)| {
            !whom.is_empty() && whom.iter().all(|one| !i.fault.whom().contains(one))
        })));
        let calm = Schedule::new(3, 4, false).take(200);
        assert!(
            calm.into_iter().all(|incident| !matches!(incident.fault, Fault::Wipe(_) | Fault::RollBack(_)))
        );
    }
}

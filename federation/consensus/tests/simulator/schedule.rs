//! How much of what happens in one seed.

use federation_consensus::protection::Protection;
use federation_consensus::{NodeId, max_faulty};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::adversary::{LIES, Lie};

pub const MAX_PROPOSAL: usize = 2048;
/// Epochs that each seed runs at least.
pub const EPOCHS: u64 = 20;

/// An epoch's frames, and so the steps it takes, grow with the cube of the guardians: how much more that is than with four.
pub fn scale(n: u16) -> u64 {
    u64::from(n.max(4)).pow(3) / 64
}

/// One seed's weather. Probabilities are for one step of the simulator.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// The most frames that move at once on a link, and inputs handled in one round.
    pub burst: usize,
    pub group: usize,
    /// How often a node's clock ticks.
    pub tick: f64,
    /// Some links are served seldom.
    pub slow: bool,
    /// A connection breaks.
    pub drop: f64,
    /// The network falls apart, for at most so many steps.
    pub partition: f64,
    pub partition_time: u64,
    /// A guardian crashes; all do; and are down for at most so many steps.
    pub crash: f64,
    pub crash_all: f64,
    pub downtime: u64,
    /// Of the crashes, those in the middle of something.
    pub fuse: f64,
    /// Of the restarts, those on a wiped disk and on an earlier copy.
    pub wipe: f64,
    pub rollback: f64,
    /// Transactions waiting at a time.
    pub load: usize,
    /// Byzantine guardians.
    pub liars: Vec<(NodeId, Vec<Lie>, f64)>,
    /// How often a batch that has been applied still isn't committed.
    pub dawdle: f64,
    /// The protections that are switched off.
    pub without: &'static [Protection],
}

impl Schedule {
    /// The weather of a seed among `n`.
    pub fn new(n: u16, rng: &mut StdRng) -> Self {
        let faulty = max_faulty(n);
        let liars = if faulty == 0 || rng.gen_bool(0.4) { 0 } else { rng.gen_range(1..=faulty) };
        let mut ids: Vec<NodeId> = (0..n).collect();
        ids.shuffle(rng);
        let liars = ids
            .into_iter()
            .take(liars as usize)
            .map(|id| {
                let count = rng.gen_range(1..=4);
                let lies = LIES.choose_multiple(rng, count).copied().collect();
                (id, lies, *[0.05, 0.3, 0.8].choose(rng).unwrap())
            })
            .collect();
        let mut some = |often: f64, value: f64| if rng.gen_bool(often) { value } else { 0.0 };
        let scale = scale(n) as f64;
        let drop = some(0.6, 0.004 / scale);
        let partition = some(0.5, 0.0006 / scale);
        let crash = some(0.7, 0.001 / scale);
        let crash_all = some(0.4, 0.0002 / scale);
        let wipe = some(0.4, 0.25);
        let rollback = some(0.4, 0.25);
        let dawdle = some(0.3, 0.9);
        Self {
            burst: *[1, 4, 16].choose(rng).unwrap(),
            group: *[1, 4, 32].choose(rng).unwrap(),
            tick: *[0.003, 0.01, 0.05].choose(rng).unwrap(),
            slow: rng.gen_bool(0.3),
            drop,
            partition,
            partition_time: 1500 * scale as u64,
            crash,
            crash_all,
            downtime: *[50, 500, 3000].choose(rng).unwrap() * scale as u64,
            fuse: 0.6,
            wipe,
            rollback,
            load: *[1, 4, 20].choose(rng).unwrap(),
            liars,
            dawdle,
            without: &[],
        }
    }
}

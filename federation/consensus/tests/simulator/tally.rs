//! Counts.

use std::fmt;
use std::ops::AddAssign;

use federation_consensus::runner::core::Sizes;

#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    pub seeds: u64,
    pub epochs: u64,
    pub transactions: u64,
    pub crashes: u64,
    pub crashes_of_all: u64,
    pub wipes: u64,
    pub rollbacks: u64,
    pub partitions: u64,
    pub drops: u64,
    pub byzantine: u64,
    pub frames: u64,
    pub steps: u64,
    /// Answers about past epochs.
    pub past_epochs: u64,
    /// See [`Checks::tolerated`](crate::checks::Checks::tolerated).
    pub tolerated: u64,
    /// The most that any guardian held.
    pub most: Sizes,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.epochs += other.epochs;
        self.transactions += other.transactions;
        self.crashes += other.crashes;
        self.crashes_of_all += other.crashes_of_all;
        self.wipes += other.wipes;
        self.rollbacks += other.rollbacks;
        self.partitions += other.partitions;
        self.drops += other.drops;
        self.byzantine += other.byzantine;
        self.frames += other.frames;
        self.steps += other.steps;
        self.past_epochs += other.past_epochs;
        self.tolerated += other.tolerated;
        let (mine, theirs) = (&mut self.most, other.most);
        mine.outbox_bytes = mine.outbox_bytes.max(theirs.outbox_bytes);
        mine.remembered = mine.remembered.max(theirs.remembered);
        mine.signatures = mine.signatures.max(theirs.signatures);
        mine.fetched = mine.fetched.max(theirs.fetched);
        mine.pending = mine.pending.max(theirs.pending);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "{} seeds, {} epochs, {} transactions, {} crashes (all at once {}), {} wipes, {} rollbacks, {} partitions, {} \
             broken connections, {} byzantine guardians, {} frames, {} past epochs asked for, {} steps; at most {} bytes in outboxes, {} frames \
             remembered, {} signatures, {} epochs fetched",
            self.seeds,
            self.epochs,
            self.transactions,
            self.crashes,
            self.crashes_of_all,
            self.wipes,
            self.rollbacks,
            self.partitions,
            self.drops,
            self.byzantine,
            self.frames,
            self.past_epochs,
            self.steps,
            self.most.outbox_bytes,
            self.most.remembered,
            self.most.signatures,
            self.most.fetched,
        )
    }
}

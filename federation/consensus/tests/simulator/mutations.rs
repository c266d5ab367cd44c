//! The simulator is itself tested: with one protection switched off, the same checks in the same worlds find a fault within
//! 1,000 seeds. Worlds are chosen to have more of what the protection is against, and liars only where it is against them: with
//! the protection on, the same seed passes.

use federation_consensus::protection::Protection;

use crate::adversary::Lie;
use crate::schedule::Schedule;
use crate::{run, say};

const SEEDS: u64 = 1000;

fn finds_out(n: u16, without: &'static [Protection], adjust: impl Fn(&mut Schedule)) {
    let [protection, others @ ..] = without else { return };
    for seed in 0..SEEDS {
        let (_, result, _) = run(n, seed, |schedule| {
            adjust(schedule);
            schedule.without = without;
        });
        let Err(fault) = result else { continue };
        say(&format!("without {without:?}, n = {n}: found at seed {seed}: {}", fault.short()));
        let (_, result, world) = run(n, seed, |schedule| {
            adjust(schedule);
            schedule.without = others;
        });
        assert!(result.is_ok(), "seed {seed} fails with {protection:?}, too: {result:?} in {world}");
        return;
    }
    panic!("{SEEDS} seeds without {without:?}, and nothing was noticed");
}

/// Guardians that crash in the middle of things and are back soon, and an otherwise kind world.
fn crashes(schedule: &mut Schedule) {
    schedule.liars.clear();
    schedule.wipe = 0.0;
    schedule.rollback = 0.0;
    schedule.crash = 0.003;
    schedule.fuse = 1.0;
    schedule.downtime = 50;
}

#[test]
fn without_journal_before_send() {
    finds_out(4, &[Protection::JournalBeforeSend], crashes);
}

/// Two guardians, who miss every frame that is lost: among four, the others make up for most.
#[test]
fn without_acknowledge_when_durable() {
    finds_out(2, &[Protection::AcknowledgeWhenDurable], |schedule| {
        crashes(schedule);
        schedule.crash = 0.015;
    });
}

/// The amnesia rule would hide it: a guardian that has forgotten a skipped epoch too early keeps silent in it, as if its disk had been
/// put back. So that is off as well, here and in the comparison; no disk is lost in these worlds.
#[test]
fn without_journalled_skip() {
    finds_out(4, &[Protection::JournalledSkip, Protection::AmnesiaRule], |schedule| {
        crashes(schedule);
        schedule.slow = true;
        schedule.partition = 0.002;
        schedule.dawdle = 0.9;
    });
}

#[test]
fn without_no_second_proposal() {
    finds_out(4, &[Protection::NoSecondProposal], crashes);
}

#[test]
fn without_amnesia_rule() {
    finds_out(4, &[Protection::AmnesiaRule], |schedule| {
        crashes(schedule);
        schedule.wipe = 0.5;
        schedule.rollback = 0.5;
    });
}

/// One guardian has committed an epoch, the liar has its signature and gives nobody its own, and those that are restarted in
/// the middle of that epoch are told to be silent in it.
#[test]
fn without_complete_proof() {
    finds_out(4, &[Protection::CompleteProof], |schedule| {
        crashes(schedule);
        schedule.slow = true;
        schedule.liars = vec![(0, vec![Lie::ThinProof, Lie::FalseSignature, Lie::FalseHistory], 1.0)];
    });
}

#[test]
fn without_re_encoding() {
    finds_out(4, &[Protection::ReEncoding], |schedule| {
        schedule.liars = vec![(0, vec![Lie::NonCodeword], 0.8)];
    });
}

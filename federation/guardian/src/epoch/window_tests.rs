//! The rule case by case, and what it is worth in a model.

use std::time::Duration;

use super::window::{
    Decision, FIRST_DELAY, FREE, IDLE, MAX_DELAY, MAX_WINDOW, Past, Recent, Situation, decide,
};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn busy(own: usize, took: Duration) -> Recent {
    let past = Past { decided: own, own, needed: true, full: false, took: Some(took) };
    (0..50).fold(Recent::default(), |recent, _| recent.after(past))
}

#[test]
fn an_idle_federation_has_no_epochs_and_its_first_transaction_does_not_wait() {
    let now = Situation { since_commit: ms(60_000), ..Situation::default() };
    assert_eq!(decide(&Recent::default(), &now), Decision::Nothing);
    assert_eq!(decide(&busy(100, ms(200)), &now), Decision::Nothing);
    let first = Situation { waiting: 1, ..now };
    for recent in [Recent::default(), busy(1, ms(200)), busy(100, ms(200))] {
        assert_eq!(decide(&recent, &first), Decision::Propose);
    }
    // The second transaction of one client, right after the first.
    let second = Situation { since_commit: ms(1), arrived: 1, ..first };
    assert_eq!(decide(&busy(1, ms(200)), &second), Decision::Propose);
}

#[test]
fn after_a_busy_epoch_the_first_waits_for_the_others() {
    let recent = busy(100, ms(200));
    let now = Situation {
        waiting: 1,
        arrived: 1,
        since_commit: ms(10),
        since_oldest: ms(3),
        ..Situation::default()
    };
    assert_eq!(decide(&recent, &now), Decision::Wait(ms(47)));
    assert_eq!(decide(&recent, &Situation { since_commit: ms(2), ..now }), Decision::Wait(ms(48)));
    assert_eq!(decide(&recent, &Situation { waiting: 100, arrived: 100, ..now }), Decision::Propose);
    // Those that gathered during the epoch wait for those that it answered.
    assert_eq!(decide(&recent, &Situation { waiting: 160, arrived: 60, ..now }), Decision::Wait(ms(47)));
    assert_eq!(decide(&recent, &Situation { full: true, ..now }), Decision::Propose);
    assert_eq!(decide(&recent, &Situation { opened: true, ..now }), Decision::Propose);
    assert_eq!(decide(&recent, &Situation { items: true, ..now }), Decision::Propose);
    let late = Situation { since_commit: ms(50), since_oldest: ms(50), ..now };
    assert_eq!(decide(&recent, &late), Decision::Propose);
    let full = recent.after(Past { decided: 100, own: 100, full: true, ..Past::default() });
    assert_eq!(decide(&full, &now), Decision::Propose);
}

#[test]
fn the_window_is_a_quarter_of_an_epoch_and_bounded() {
    let now = Situation { waiting: 1, ..Situation::default() };
    for (took, window) in
        [(ms(20), ms(5)), (ms(100), ms(25)), (ms(200), MAX_WINDOW), (ms(60_000), MAX_WINDOW)]
    {
        assert_eq!(decide(&busy(100, took), &now), Decision::Wait(window));
    }
    let idle = Situation { since_commit: IDLE + ms(1), ..now };
    assert_eq!(decide(&busy(100, ms(60_000)), &idle), Decision::Propose);
}

#[test]
fn worthless_epochs_are_joined_ever_later_and_worthy_ones_at_once() {
    let joined = Situation { opened: true, ..Situation::default() };
    let mut recent = Recent::default();
    for _ in 0..FREE {
        assert_eq!(decide(&recent, &joined), Decision::Propose);
        recent = recent.after(Past::default());
    }
    let mut last = Duration::ZERO;
    for delay in [
        FIRST_DELAY,
        FIRST_DELAY * 2,
        FIRST_DELAY * 4,
        FIRST_DELAY * 8,
        FIRST_DELAY * 16,
        MAX_DELAY,
        MAX_DELAY,
    ] {
        assert_eq!(decide(&recent, &joined), Decision::Wait(delay));
        assert!(delay >= last);
        last = delay;
        assert_eq!(decide(&recent, &Situation { since_commit: delay, ..joined }), Decision::Propose);
        // Never when something waits here.
        assert_eq!(decide(&recent, &Situation { waiting: 1, ..joined }), Decision::Propose);
        assert_eq!(decide(&recent, &Situation { items: true, ..joined }), Decision::Propose);
        recent = recent.after(Past::default());
    }
    let worthy = [Past { decided: 1, ..Past::default() }, Past { needed: true, ..Past::default() }];
    for past in worthy {
        assert_eq!(decide(&recent.after(past), &joined), Decision::Propose);
    }
    // However long the row is.
    let endless = (0..100_000).fold(recent, |recent, _| recent.after(Past::default()));
    assert_eq!(decide(&endless, &joined), Decision::Wait(MAX_DELAY));
}

/// Epochs opened by a faulty guardian the moment it can, for a minute; each takes 10 ms once joined.
#[test]
fn one_guardian_alone_opens_two_epochs_a_second_at_most() {
    let (mut recent, mut time, mut epochs) = (Recent::default(), Duration::ZERO, 0);
    while time < ms(60_000) {
        let now = Situation { opened: true, ..Situation::default() };
        if let Decision::Wait(delay) = decide(&recent, &now) {
            time += delay;
        }
        time += ms(10);
        recent = recent.after(Past { took: Some(ms(10)), ..Past::default() });
        epochs += 1;
    }
    assert!(epochs <= 2 * 60 + 8, "{epochs} epochs in a minute");
}

/// Clients that hand in their next transaction some time after the last one was decided.
struct Model {
    clients: usize,
    think: fn(usize) -> Duration,
    took: Duration,
}

impl Model {
    /// Transactions, epochs and the mean time of a transaction in ten seconds.
    fn run(&self, rule: impl Fn(&Recent, &Situation) -> Decision) -> (usize, usize, Duration) {
        let end = ms(10_000);
        let mut arrivals: Vec<Duration> = (0..self.clients).map(|client| (self.think)(client)).collect();
        let (mut now, mut commit, mut recent) = (Duration::ZERO, Duration::ZERO, Recent::default());
        let (mut done, mut epochs, mut spent, mut round) = (0, 0, Duration::ZERO, 0);
        while now < end {
            let here: Vec<usize> = (0..self.clients).filter(|client| arrivals[*client] <= now).collect();
            let next = arrivals.iter().filter(|arrival| **arrival > now).min().copied().unwrap_or(end);
            let oldest = here.iter().map(|client| arrivals[*client]).min().unwrap_or(now);
            let situation = Situation {
                waiting: here.len(),
                arrived: here.iter().filter(|client| arrivals[**client] > commit).count(),
                since_commit: now - commit,
                since_oldest: now - oldest,
                ..Situation::default()
            };
            match rule(&recent, &situation) {
                Decision::Nothing => now = next,
                Decision::Wait(time) => now = next.min(now + time),
                Decision::Propose => {
                    now += self.took;
                    commit = now;
                    round += 1;
                    for client in &here {
                        spent += now - arrivals[*client];
                        arrivals[*client] = now + (self.think)(client * 31 + round);
                    }
                    (done, epochs) = (done + here.len(), epochs + 1);
                    let past = Past {
                        decided: here.len(),
                        own: here.len(),
                        needed: true,
                        full: false,
                        took: Some(self.took),
                    };
                    recent = recent.after(past);
                }
            }
        }
        (done, epochs, spent / u32::try_from(done.max(1)).unwrap())
    }
}

fn at_once(_: &Recent, now: &Situation) -> Decision {
    if now.waiting > 0 { Decision::Propose } else { Decision::Nothing }
}

#[test]
fn clients_in_step_get_on_faster_with_the_window_and_a_single_one_loses_nothing() {
    let in_step = |number| ms(1 + (number % 7) as u64);
    let crowd = Model { clients: 64, think: in_step, took: ms(60) };
    let (with, without) = (crowd.run(decide), crowd.run(at_once));
    println!("64 clients: (transactions, epochs, mean time) {with:?}, at once {without:?}");
    assert!(with.0 * 10 > without.0 * 16, "{with:?} {without:?}");
    assert!(with.2 < without.2);
    let one = Model { clients: 1, think: in_step, took: ms(60) };
    assert_eq!(one.run(decide), one.run(at_once));
    // Anything but in step: at most the window is lost.
    let loose = Model { clients: 64, think: |number| ms((number as u64 * 7919) % 997), took: ms(60) };
    let (with, without) = (loose.run(decide), loose.run(at_once));
    println!("64 clients out of step: {with:?}, at once {without:?}");
    assert!(
        with.0 * 100 >= without.0 * 95 && with.1 < without.1 && with.2 <= without.2 + ms(60) / 4,
        "{with:?} {without:?}"
    );
}

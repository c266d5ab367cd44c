//! Times that can be compared: taken in turns, so that whatever else the machine does hits all alike.

use std::time::{Duration, Instant};

/// How long one call takes.
pub fn time<T>(work: impl FnOnce() -> T) -> Duration {
    let started = Instant::now();
    std::hint::black_box(work());
    started.elapsed()
}

/// The median.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The median time of each work, over that many turns in which each is done once, after one that isn't counted.
pub fn medians(turns: usize, works: &mut [Box<dyn FnMut() + '_>]) -> Vec<Duration> {
    let mut times: Vec<Vec<Duration>> = works.iter().map(|_| Vec::with_capacity(turns)).collect();
    for turn in 0..=turns {
        for (work, times) in works.iter_mut().zip(&mut times) {
            let elapsed = time(work);
            if turn > 0 {
                times.push(elapsed);
            }
        }
    }
    times.into_iter().map(median).collect()
}

/// In microseconds.
pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

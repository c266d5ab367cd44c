//! The thread that the core lives on: the engine computes, and the journal waits for the disk.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::core::{Core, Input};
use super::gather::Wait;
use super::network::Network;
use super::{ConsensusError, ConsensusEvent};

/// Inputs handled with one flush of the journal.
const GROUP: usize = 512;
/// Bounds of the wait before a flush, and how often is looked meanwhile.
const SHORTEST: Duration = Duration::from_millis(2);
const LONGEST: Duration = Duration::from_millis(5);
const SHORT: Duration = Duration::from_millis(1);
const LOOK: Duration = Duration::from_micros(50);

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Command {
    Input(Input),
    Stop,
}

/// How long a flush takes here: what is worth to be waited for.
#[derive(Debug, Default)]
struct Pace(Duration);

impl Pace {
    /// Half a flush, but something on the fastest disk, since others' threads take their time as well, and little on the slowest.
    fn patience(&self) -> Duration {
        (self.0 / 2).clamp(SHORTEST, LONGEST)
    }

    /// Whether to wait on, after inputs that came from `started` until `arrived`.
    fn waits(&self, wait: Wait, started: Instant, arrived: Instant) -> bool {
        let patience = self.patience();
        match wait {
            Wait::No => false,
            Wait::Short => started.elapsed() < patience && arrived.elapsed() < (patience / 4).max(SHORT),
            Wait::Long => started.elapsed() < patience,
        }
    }

    fn flushed(&mut self, took: Duration) {
        self.0 = (self.0 * 7 + took) / 8;
    }
}

/// Runs until it is stopped, all handles are gone, or something fails.
pub(super) fn run<N: Network>(
    mut core: Core<N>,
    mut queue: mpsc::Receiver<Command>,
    events: &mpsc::UnboundedSender<ConsensusEvent>,
) {
    let mut pace = Pace::default();
    while let Some(first) = queue.blocking_recv() {
        match round(&mut core, &mut queue, events, &mut pace, first) {
            Ok(false) => {}
            Ok(true) => break,
            Err(error) => {
                tracing::error!(%error, "consensus stops");
                let _ = events.send(ConsensusEvent::Failed(error.to_string()));
                break;
            }
        }
    }
    // The journal is closed before anyone can see that the thread has ended.
    drop(core);
    drop(queue);
}

/// Handles what has come, waits a moment if more is about to, and answers. Returns whether to stop.
fn round<N: Network>(
    core: &mut Core<N>,
    queue: &mut mpsc::Receiver<Command>,
    events: &mpsc::UnboundedSender<ConsensusEvent>,
    pace: &mut Pace,
    first: Command,
) -> Result<bool, ConsensusError> {
    let tell = |told: Vec<ConsensusEvent>| {
        told.into_iter().for_each(|event| {
            let _ = events.send(event);
        });
    };
    let started = Instant::now();
    let mut stop = false;
    let mut next = Some(first);
    loop {
        let mut inputs = Vec::new();
        while let Some(command) = next.take() {
            match command {
                Command::Input(input) => inputs.push(input),
                Command::Stop => stop = true,
            }
            if inputs.len() < GROUP && !stop {
                next = queue.try_recv().ok();
            }
        }
        tell(core.take(inputs)?);
        let arrived = Instant::now();
        while next.is_none() && !stop && pace.waits(core.gathers(), started, arrived) {
            std::thread::sleep(LOOK);
            next = queue.try_recv().ok();
        }
        if next.is_none() {
            break;
        }
    }
    let (speaks, started) = (core.speaks(), Instant::now());
    tell(core.settle()?);
    if speaks {
        pace.flushed(started.elapsed());
    }
    Ok(stop)
}

//! The thread that the core lives on: the engine computes, and the journal waits for the disk.

use tokio::sync::mpsc;

use super::ConsensusEvent;
use super::core::{Core, Input};
use super::network::Network;

/// Inputs handled with one flush of the journal.
const GROUP: usize = 512;

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Command {
    Input(Input),
    Stop,
}

/// Runs until it is stopped, all handles are gone, or something fails.
pub(super) fn run<N: Network>(
    mut core: Core<N>,
    mut queue: mpsc::Receiver<Command>,
    events: &mpsc::UnboundedSender<ConsensusEvent>,
) {
    while let Some(first) = queue.blocking_recv() {
        let mut inputs = Vec::new();
        let mut stop = false;
        let mut next = Some(first);
        while let Some(command) = next.take() {
            match command {
                Command::Input(input) => inputs.push(input),
                Command::Stop => stop = true,
            }
            if inputs.len() < GROUP && !stop {
                next = queue.try_recv().ok();
            }
        }
        match core.round(inputs) {
            Ok(told) => told.into_iter().for_each(|event| {
                let _ = events.send(event);
            }),
            Err(error) => {
                tracing::error!(%error, "consensus stops");
                let _ = events.send(ConsensusEvent::Failed(error.to_string()));
                break;
            }
        }
        if stop {
            break;
        }
    }
    // The journal is closed before anyone can see that the thread has ended.
    drop(core);
    drop(queue);
}

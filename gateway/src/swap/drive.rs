//! One task an open swap: it takes step after step until there is nothing left to do.

use std::sync::Arc;
use std::time::Duration;

use federation_core::db::DbError;

use super::{SwapId, Swaps, lock};
use crate::GatewayError;
use crate::store::Change;

/// The first pause before an action is repeated.
const SHORT_PAUSE: Duration = Duration::from_millis(100);
/// The longest.
const LONG_PAUSE: Duration = Duration::from_secs(15);

/// What a step says about the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// At once.
    Next,
    /// After a pause, longer each time.
    Later,
    /// Nothing is left to do, or somebody else goes on.
    End,
}

/// What a task remembers between steps; lost in a crash, so nothing that money depends on, except to be more careful.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Whether no earlier process can have asked the node to pay.
    pub fresh: bool,
    /// Whether the node has answered a request to pay.
    pub asked: bool,
    /// When this task first met what it is still waiting for.
    pub since: Option<tokio::time::Instant>,
}

impl Memory {
    /// Whether what is waited for has taken longer than this; the first call starts the clock.
    pub fn is_over(&mut self, patience: Duration) -> bool {
        self.since.get_or_insert_with(tokio::time::Instant::now).elapsed() > patience
    }
}

/// Takes a swap's task off the list, even if it panics.
struct Driven {
    swaps: Arc<Swaps>,
    swap: SwapId,
}

impl Drop for Driven {
    fn drop(&mut self) {
        lock(&self.swaps.driven).remove(&self.swap);
    }
}

impl Swaps {
    /// Starts a task that ends when the gateway stops.
    pub(crate) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let mut stop = self.stop.subscribe();
        let mut tasks = lock(&self.tasks);
        // Finished ones would pile up.
        while tasks.try_join_next().is_some() {}
        if *stop.borrow() {
            return;
        }
        tasks.spawn(async move {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                () = task => {}
            }
        });
    }

    /// Starts a swap's task unless it has one. `fresh`: its first state was written just now.
    pub(super) fn drive(self: &Arc<Self>, swap: SwapId, fresh: bool) {
        if !lock(&self.driven).insert(swap) {
            return;
        }
        let driven = Driven { swaps: Arc::clone(self), swap };
        let swaps = Arc::clone(self);
        self.spawn(async move {
            let _driven = driven;
            swaps.steps(swap, fresh).await;
        });
    }

    async fn steps(self: &Arc<Self>, swap: SwapId, fresh: bool) {
        let mut memory = Memory { fresh, ..Memory::default() };
        let mut pause = SHORT_PAUSE;
        loop {
            let step = match swap {
                SwapId::Outgoing(id) => self.step_outgoing(id, &mut memory).await,
                SwapId::Incoming(hash) => self.step_incoming(hash, &mut memory).await,
            };
            match step {
                Ok(Step::Next) => {
                    pause = SHORT_PAUSE;
                    memory.since = None;
                }
                Ok(Step::End) => return,
                Ok(Step::Later) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONG_PAUSE);
                }
                Err(GatewayError::Db(error)) => {
                    self.fail(&error);
                    return;
                }
                Err(GatewayError::Client(error)) if error.is_transient() => {
                    tracing::info!(?swap, %error, "a federation is asked again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONG_PAUSE);
                }
                Err(error) => {
                    tracing::warn!(?swap, %error, "a step of a swap did not succeed, it is repeated");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONG_PAUSE);
                }
            }
        }
    }

    /// The database failed: what memory says and what disk says may differ, so nothing goes on.
    pub(super) fn fail(&self, error: &DbError) {
        tracing::error!(%error, "the gateway's database failed: the gateway stops");
        self.failed.send_replace(Some(error.to_string()));
        self.stop.send_replace(true);
    }

    /// Commits, and stops everything if that fails.
    pub(super) async fn commit(&self, change: Change<'_>, swaps: &[SwapId]) -> Result<(), GatewayError> {
        if let Err(error) = change.commit().await {
            self.fail(&error);
            return Err(error.into());
        }
        for swap in swaps {
            self.announce_change(*swap);
        }
        Ok(())
    }
}

//! What the node holds and what has expired: the two things that swaps wait for without a task of their own.

use std::sync::Arc;
use std::time::Duration;

use super::drive_incoming::MIN_BLOCKS_LEFT;
use super::incoming::IncomingState;
use super::pay::Refusal;
use super::{SwapId, Swaps, lock};
use crate::GatewayError;
use crate::node::HeldPayment;
use crate::store::now;

/// How often everything is looked at, even if nothing seems to have changed.
const ROUND: Duration = Duration::from_secs(5);
/// How long after its expiry an invoice may still see the end of a payment that began before.
const GRACE: u64 = 120;
/// How many blocks before its deadline a held payment that nobody knows is failed, so that its channel lives.
const STRAY_BLOCKS_LEFT: u32 = 12;

impl Swaps {
    /// Runs until the gateway stops.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut seen = 0;
        loop {
            if let Err(error) = self.look().await {
                if let GatewayError::Db(error) = &error {
                    self.fail(error);
                    return;
                }
                tracing::warn!(%error, "the Lightning node can't be watched");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            tokio::select! {
                counter = self.node.held_changed(seen) => seen = counter,
                () = tokio::time::sleep(ROUND) => {}
            }
        }
    }

    /// What is held to a payment hash, as of the last look.
    pub(super) fn held_payment(&self, hash: &[u8; 32]) -> Option<HeldPayment> {
        lock(&self.held).get(hash).cloned()
    }

    async fn look(self: &Arc<Self>) -> Result<(), GatewayError> {
        let held = self.node.held_payments().await?;
        *lock(&self.held) = held.iter().map(|held| (held.payment_hash, held.clone())).collect();
        for held in &held {
            self.look_at(held).await?;
        }
        let due = {
            let mut swept = lock(&self.swept);
            let due = swept.is_none_or(|swept| swept.elapsed() >= ROUND);
            if due {
                *swept = Some(tokio::time::Instant::now());
            }
            due
        };
        if due { self.sweep().await } else { Ok(()) }
    }

    async fn look_at(self: &Arc<Self>, held: &HeldPayment) -> Result<(), GatewayError> {
        let hash = held.payment_hash;
        match self.store.incoming(&hash).await?.map(|swap| swap.state) {
            // Paid from inside, or failed, while this was on its way; what is settled is not failed any more.
            Some(IncomingState::Done { .. } | IncomingState::Failed { .. }) => {
                if let Err(error) = self.node.cancel(hash).await {
                    tracing::info!(hash = hex::encode(hash), %error, "a late payment is not failed");
                }
            }
            // Without the invoice's row in our table nobody has got the invoice.
            Some(IncomingState::Offered | IncomingState::Lost { .. }) => {}
            Some(_) => self.drive(SwapId::Incoming(hash), false),
            None => {
                let height = self.node.info().await?.block_height;
                if held.claim_deadline_height.saturating_sub(height) <= STRAY_BLOCKS_LEFT {
                    tracing::error!(hash = hex::encode(hash), "a held payment that is no swap's is failed");
                    self.node.cancel(hash).await?;
                } else {
                    tracing::error!(
                        hash = hex::encode(hash),
                        "the node holds a payment that is no swap's: has an old database been restored?"
                    );
                }
            }
        }
        Ok(())
    }

    /// Closes invoices that can't be paid any more, and goes on with what has no task.
    async fn sweep(self: &Arc<Self>) -> Result<(), GatewayError> {
        let (now, height) = (now().as_secs(), self.node.info().await?.block_height);
        for swap in self.store.open_incoming().await? {
            let hash = swap.payment_hash();
            match swap.state {
                IncomingState::Offered | IncomingState::Waiting => {
                    if self.held_payment(&hash).is_some() {
                        continue;
                    }
                    let expired = swap.began_at.saturating_add(swap.expiry).saturating_add(GRACE) < now;
                    if expired || swap.contract.terms.fund_before_height <= height {
                        self.refuse(hash, Refusal::new("expired", "nobody paid the invoice in time")).await?;
                        self.drive(SwapId::Incoming(hash), false);
                    }
                }
                IncomingState::Lost { .. } => {}
                _ => self.drive(SwapId::Incoming(hash), false),
            }
        }
        for swap in self.store.open_outgoing().await? {
            self.drive(SwapId::Outgoing(swap.id()), false);
        }
        Ok(())
    }

    /// Whether a deadline is near enough for an alarm: half of what was left at least when it was funded.
    pub(super) fn is_near(deadline: u32, height: u32) -> bool {
        deadline.saturating_sub(height) < MIN_BLOCKS_LEFT / 2
    }
}

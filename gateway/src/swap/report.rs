//! What is under way, for operators; and waiting for changes.

use federation_core::{Amount, FederationId};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::incoming::{IncomingState, Payer};
use super::outgoing::OutgoingState;
use super::{SwapId, Swaps};
use crate::GatewayError;
use crate::store::{TOTALS, Totals, now};

/// After how long a payment without a result is an alarm, in seconds.
const PENDING_ALARM: u64 = 600;

/// How many swaps are in which state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapCounts {
    /// Payments being made.
    pub paying: usize,
    /// Paid, being claimed.
    pub claiming: usize,
    /// Invoices that wait for their payment.
    pub waiting: usize,
    /// Held payments whose contract is being funded.
    pub funding: usize,
    /// Funded, being settled.
    pub settling: usize,
    /// Being failed or taken back.
    pub refusing: usize,
    /// Lost money: see the alarms.
    pub lost: usize,
}

/// What is under way and what has been done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapReport {
    /// What is open.
    pub open: SwapCounts,
    /// Sums over finished swaps.
    pub totals: Totals,
    /// What is funded to users and not yet settled.
    #[serde(rename = "exposure_msat")]
    pub exposure: Amount,
    /// Seconds since the oldest payment that is being made began.
    pub oldest_payment_seconds: Option<u64>,
    /// What needs the operator's attention, a sentence each.
    pub alarms: Vec<String>,
}

impl Swaps {
    /// The report at a block height of the node.
    pub async fn report(&self, height: Option<u32>) -> Result<SwapReport, GatewayError> {
        let now = now().as_secs();
        let mut report = SwapReport { exposure: self.exposure(), ..SwapReport::default() };
        report.totals = TOTALS.get(self.store.reader(), &()).await?.unwrap_or_default();
        for swap in self.store.open_outgoing().await? {
            let age = now.saturating_sub(swap.began_at);
            match &swap.state {
                OutgoingState::Started(_) | OutgoingState::Inside(_) => {
                    report.open.paying += 1;
                    report.oldest_payment_seconds = report.oldest_payment_seconds.max(Some(age));
                    if age > PENDING_ALARM {
                        report.alarms.push(format!(
                            "the payment {} for contract {} has had no result for {age} s: look it up at your node; it is neither paid again nor refunded before the node knows",
                            swap.contract.payment_hash, swap.id()
                        ));
                    }
                }
                OutgoingState::Paid { attempt, .. } => {
                    report.open.claiming += 1;
                    if *attempt > 0 {
                        report.alarms.push(format!(
                            "the claim of contract {} was rejected {attempt} times",
                            swap.id()
                        ));
                    }
                }
                OutgoingState::Lost { .. } => {
                    report.open.lost += 1;
                    report.alarms.push(format!(
                        "LOST {}: contract {} was paid for and then refunded",
                        swap.contract.amount,
                        swap.id()
                    ));
                }
                OutgoingState::Done { .. } | OutgoingState::Cancelled { .. } | OutgoingState::Lapsed => {}
            }
        }
        for swap in self.store.open_incoming().await? {
            let hash = swap.contract.terms.payment_hash;
            let deadline = match &swap.state {
                IncomingState::Funding(Payer::Lightning { deadline })
                | IncomingState::Funded(Payer::Lightning { deadline })
                | IncomingState::Settling { deadline, .. } => Some(*deadline),
                _ => None,
            };
            if let (Some(deadline), Some(height)) = (deadline, height)
                && Self::is_near(deadline, height)
            {
                report.alarms.push(format!(
                    "the funded payment {hash} must be settled within {} blocks and is {}",
                    deadline.saturating_sub(height),
                    swap.state.name()
                ));
            }
            let count = match &swap.state {
                IncomingState::Offered | IncomingState::Waiting => &mut report.open.waiting,
                IncomingState::Funding(_) => &mut report.open.funding,
                IncomingState::Funded(_) | IncomingState::Settling { .. } => &mut report.open.settling,
                IncomingState::Lost { .. } => {
                    report.alarms.push(format!(
                        "LOST {}: contract {} was funded and its payment {hash} expired",
                        swap.contract.terms.amount,
                        swap.contract_id()
                    ));
                    &mut report.open.lost
                }
                _ => &mut report.open.refusing,
            };
            *count += 1;
        }
        Ok(report)
    }

    /// How many open swaps of a federation there are that hold or may hold money.
    pub async fn open_in(&self, federation: FederationId) -> Result<usize, GatewayError> {
        let outgoing = self.store.open_outgoing().await?;
        let incoming = self.store.open_incoming().await?;
        Ok(outgoing.iter().filter(|swap| swap.federation == federation).count()
            + incoming.iter().filter(|swap| swap.federation == federation).count())
    }
}

/// Waits for a change of one swap; `false` when the time is over.
pub(super) async fn wait_for(
    changed: &mut broadcast::Receiver<SwapId>,
    swap: SwapId,
    deadline: tokio::time::Instant,
) -> bool {
    loop {
        match tokio::time::timeout_at(deadline, changed.recv()).await {
            Ok(Ok(which)) if which != swap => {}
            // Too many to have kept them all: the caller looks again.
            Ok(Ok(_) | Err(RecvError::Lagged(_))) => return true,
            Ok(Err(RecvError::Closed)) | Err(_) => return false,
        }
    }
}

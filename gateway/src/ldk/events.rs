//! What LDK reports, and what follows from it.
//!
//! An event is acknowledged by returning `Ok`, and never repeated then. So what depends on it is
//! durable first; if it can't be, the event is asked for again. Each write of a row commits LDK's
//! state along with it, so that a row never speaks of what a crash could undo.

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, ScriptBuf};
use lightning::chain::chaininterface::{ConfirmationTarget, FeeEstimator as _};
use lightning::events::{Event, FundingInfo, PaymentPurpose, ReplayEvent};
use lightning::ln::channelmanager::PaymentId;
use lightning::ln::types::ChannelId;
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use rand::RngCore as _;

use super::builder::Parts;
use super::error::LdkError;
use super::held::{Arrived, State};
use super::types::lock;

/// Handles one event.
pub(super) fn handle(parts: &Parts, event: Event) -> Result<(), ReplayEvent> {
    let name = format!("{event:?}");
    apply(parts, event).map_err(|error| {
        tracing::error!(event = name, %error, "an event waits");
        ReplayEvent()
    })
}

fn apply(parts: &Parts, event: Event) -> Result<(), LdkError> {
    match event {
        Event::PaymentSent { payment_id, payment_preimage, payment_hash, fee_paid_msat, .. } => {
            // The id is the hash of the payment's row.
            let PaymentId(hash) = payment_id.unwrap_or(PaymentId(payment_hash.0));
            parts.payments.succeeded(&hash, payment_preimage.0, fee_paid_msat.unwrap_or(0))
        }
        Event::PaymentFailed { payment_id: PaymentId(hash), reason, .. } => {
            let reason = reason.map_or_else(|| "unknown".to_owned(), |r| format!("{r:?}"));
            parts.payments.failed(&hash, reason)
        }
        Event::PaymentClaimable { payment_hash, amount_msat, purpose, claim_deadline, .. } => {
            claimable(parts, payment_hash, amount_msat, &purpose, claim_deadline)
        }
        Event::PaymentClaimed { payment_hash: PaymentHash(hash), amount_msat, .. } => {
            let row = parts.held.change(&hash, |row| row.state = State::Settled)?;
            match row {
                Some(_) => Ok(()),
                None => parts.received.claimed(&hash, amount_msat),
            }
        }
        Event::FundingGenerationReady {
            temporary_channel_id,
            counterparty_node_id,
            channel_value_satoshis,
            output_script,
            user_channel_id,
        } => {
            let opened = fund(
                parts,
                temporary_channel_id,
                counterparty_node_id,
                Amount::from_sat(channel_value_satoshis),
                output_script,
            );
            if let Err(error) = opened {
                answer_opening(parts, user_channel_id, Err(error.to_string()));
            }
            Ok(())
        }
        Event::ChannelPending { user_channel_id, funding_txo, .. } => {
            // From here on the funding transaction is safe to broadcast, and must be.
            if let Some(tx) = parts.wallet.transaction(funding_txo.txid) {
                parts.outbox.put(&tx)?;
            }
            answer_opening(parts, user_channel_id, Ok(()));
            Ok(())
        }
        Event::ChannelClosed { channel_id, user_channel_id, reason, .. } => {
            tracing::info!(%channel_id, %reason, "a channel closed");
            answer_opening(parts, user_channel_id, Err(reason.to_string()));
            Ok(())
        }
        Event::DiscardFunding { funding_info, .. } => {
            let txid = match funding_info {
                FundingInfo::Tx { transaction } => transaction.compute_txid(),
                FundingInfo::OutPoint { outpoint } => outpoint.txid,
            };
            parts.outbox.drop(txid)
        }
        Event::OpenChannelRequest { temporary_channel_id, counterparty_node_id, channel_type, .. } => {
            let anchors = channel_type.supports_anchors_zero_fee_htlc_tx();
            accept(parts, temporary_channel_id, counterparty_node_id, anchors);
            Ok(())
        }
        Event::SpendableOutputs { outputs, channel_id } => parts
            .sweeper
            .track_spendable_outputs(outputs, channel_id, false, None)
            .map_err(|()| LdkError::Stopped("outputs to sweep can't be stored".to_owned())),
        Event::BumpTransaction(bump) => {
            parts.bumper.handle_event(&bump);
            Ok(())
        }
        other => {
            tracing::debug!(event = ?other, "nothing to do");
            Ok(())
        }
    }
}

/// A complete set of HTLCs to us.
fn claimable(
    parts: &Parts,
    hash: PaymentHash,
    amount_msat: u64,
    purpose: &PaymentPurpose,
    deadline: Option<u32>,
) -> Result<(), LdkError> {
    // An ordinary invoice: LDK made the preimage, and nobody waits.
    if let Some(preimage) = purpose.preimage() {
        if matches!(purpose, PaymentPurpose::SpontaneousPayment(_)) {
            parts.manager.fail_htlc_backwards(&hash);
        } else {
            parts.manager.claim_funds(preimage);
        }
        return Ok(());
    }
    match parts.held.arrived(&hash.0, amount_msat, deadline.unwrap_or(0))? {
        Arrived::Hold => {
            tracing::info!(%hash, amount_msat, deadline, "a payment is held");
        }
        Arrived::Claim(preimage) => parts.manager.claim_funds(PaymentPreimage(preimage)),
        Arrived::Fail => {
            tracing::info!(%hash, amount_msat, "a payment to no open invoice fails back");
            parts.manager.fail_htlc_backwards(&hash);
        }
    }
    Ok(())
}

/// Pays for a channel that we open.
fn fund(
    parts: &Parts,
    temporary: ChannelId,
    peer: PublicKey,
    value: Amount,
    script: ScriptBuf,
) -> Result<(), LdkError> {
    let give_up = |error: LdkError| {
        let _ = parts.manager.force_close_broadcasting_latest_txn(
            &temporary,
            &peer,
            "the funding transaction can't be made".to_owned(),
        );
        error
    };
    let rate = parts.fees.get_est_sat_per_1000_weight(ConfirmationTarget::NonAnchorChannelFee).into();
    let keep = parts.reserve_sat(1);
    let tx = parts.wallet.pay_to(script, value, rate, keep).map_err(give_up)?;
    let txid = tx.compute_txid();
    parts.manager.funding_transaction_generated(temporary, peer, tx).map_err(|error| {
        if let Err(error) = parts.wallet.forget(txid) {
            tracing::error!(%error, "coins of an unused funding transaction stay locked");
        }
        LdkError::Refused(format!("{error:?}"))
    })
}

/// Accepts or refuses a channel that a peer opens.
fn accept(parts: &Parts, temporary: ChannelId, peer: PublicKey, anchors: bool) {
    let needed = parts.reserve_sat(1);
    let result = if anchors && parts.wallet.spendable_sat() < needed {
        tracing::warn!(%peer, needed, "a channel is refused: no coins to bump its fees with");
        parts.manager.force_close_broadcasting_latest_txn(
            &temporary,
            &peer,
            "no reserve for anchor channels".to_owned(),
        )
    } else {
        let id = random_id();
        parts.manager.accept_inbound_channel(&temporary, &peer, id, None)
    };
    if let Err(error) = result {
        tracing::warn!(%peer, ?error, "a channel request is gone");
    }
}

/// A fresh `user_channel_id`.
pub(super) fn random_id() -> u128 {
    let mut bytes = [0; 16];
    rand::thread_rng().fill_bytes(&mut bytes);
    u128::from_le_bytes(bytes)
}

fn answer_opening(parts: &Parts, id: u128, result: Result<(), String>) {
    if let Some(waiting) = lock(&parts.opening).remove(&id) {
        // Nobody waits any more: the channel goes on by itself.
        let _ = waiting.send(result);
    }
}

impl Parts {
    /// What must stay in the on-chain wallet with `more` channels, in sat.
    pub fn reserve_sat(&self, more: u64) -> u64 {
        let channels = self.manager.list_channels().len() as u64;
        self.config.anchor_reserve_sat().saturating_mul(channels.saturating_add(more))
    }
}

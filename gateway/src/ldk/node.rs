//! The node as the gateway uses it.

use std::time::Duration;

use async_trait::async_trait;
use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::{Address, Amount, Txid};
use lightning::chain::chaininterface::{ConfirmationTarget, FeeEstimator as _};
use lightning::ln::channelmanager::{
    Bolt11InvoiceParameters, Bolt11PaymentError, PaymentId, Retry, RetryableSendFailure,
};
use lightning::routing::router::RouteParametersConfig;
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescription, Description, RouteHint};
use tokio::sync::watch;

use super::error::LdkError;
use super::held::State;
use super::log::Batch;
use super::start::LdkNode;
use crate::node::{
    Balances, HOLD_MIN_FINAL_CLTV, HeldPayment, HoldInvoiceRequest, LightningNode, NodeError, NodeInfo,
    OnchainSendRequest, PayRequest, PaymentStatus,
};

/// How much longer than `retry_for` a caller of `pay` waits for an HTLC under way.
const PAY_MARGIN: Duration = Duration::from_secs(5);
/// How long LDK may take to report a claim. It does at once.
const CLAIM_PATIENCE: Duration = Duration::from_secs(20);
/// What LDK adds to a `min_final_cltv_expiry_delta` against blocks found meanwhile.
const CLTV_BUFFER: u16 = 3;

impl LdkNode {
    /// An ordinary invoice, claimed by itself when it is paid.
    pub fn invoice(&self, amount_msat: u64, description: &str) -> Result<Bolt11Invoice, NodeError> {
        self.create_invoice(Bolt11InvoiceParameters {
            amount_msats: Some(amount_msat),
            description: describe(description)?,
            ..Bolt11InvoiceParameters::default()
        })
    }

    /// What was received to an ordinary invoice, in msat; `None` if it is not paid yet.
    pub fn received(&self, payment_hash: [u8; 32]) -> Result<Option<u64>, NodeError> {
        Ok(self.parts.received.amount_msat(&payment_hash)?)
    }

    /// Resolves with the amount, in msat, when an ordinary invoice is paid.
    pub async fn wait_received(&self, payment_hash: [u8; 32]) -> Result<u64, NodeError> {
        let mut changes = self.parts.received.changes();
        loop {
            if let Some(amount_msat) = self.received(payment_hash)? {
                return Ok(amount_msat);
            }
            changed(&mut changes).await?;
        }
    }

    /// The height that the node has been told of; wait on it after mining.
    pub fn height(&self) -> watch::Receiver<u32> {
        self.parts.height.subscribe()
    }

    fn create_invoice(&self, params: Bolt11InvoiceParameters) -> Result<Bolt11Invoice, NodeError> {
        let made = self.parts.manager.create_bolt11_invoice(params);
        made.map_err(|error| NodeError::Refused(format!("no invoice: {error:?}")))
    }

    /// Hands a payment to LDK. What it refuses was never under way.
    fn send(&self, hash: [u8; 32], request: &PayRequest) -> Result<(), LdkError> {
        let limits = RouteParametersConfig {
            max_total_routing_fee_msat: Some(request.max_fee_msat),
            max_total_cltv_expiry_delta: request.max_delay_blocks,
            ..RouteParametersConfig::default()
        };
        let sent = self.parts.manager.pay_for_bolt11_invoice(
            &request.invoice,
            PaymentId(hash),
            Some(request.amount_msat),
            limits,
            Retry::Timeout(request.retry_for),
        );
        let reason = match sent {
            Ok(()) => return Ok(()),
            // LDK has it from before; its events decide.
            Err(Bolt11PaymentError::SendingFailed(RetryableSendFailure::DuplicatePayment)) => {
                return Ok(());
            }
            Err(Bolt11PaymentError::InvalidAmount) => "the amount is below the invoice's",
            Err(Bolt11PaymentError::SendingFailed(failure)) => match failure {
                RetryableSendFailure::PaymentExpired => "the invoice has expired",
                RetryableSendFailure::RouteNotFound => {
                    "there is no route within the limits of amount, fee and delay"
                }
                RetryableSendFailure::OnionPacketSizeExceeded => "the onion would be too large",
                RetryableSendFailure::DuplicatePayment => return Ok(()),
            },
        };
        self.parts.payments.failed(&hash, reason.to_owned())
    }

    fn check(&self, request: &PayRequest) -> Result<(), NodeError> {
        let refuse = |reason: &str| Err(NodeError::Refused(reason.to_owned()));
        if request.invoice.network() != self.parts.config.network {
            return refuse("the invoice is for another network");
        }
        if request.amount_msat == 0 {
            return refuse("an amount of zero can't be paid");
        }
        match request.invoice.amount_milli_satoshis() {
            Some(amount) if amount != request.amount_msat => refuse("the amount is not the invoice's"),
            _ => Ok(()),
        }
    }
}

fn describe(text: &str) -> Result<Bolt11InvoiceDescription, NodeError> {
    let description = Description::new(text.to_owned());
    let description = description.map_err(|error| NodeError::Refused(error.to_string()))?;
    Ok(Bolt11InvoiceDescription::Direct(description))
}

async fn changed<T>(changes: &mut watch::Receiver<T>) -> Result<(), NodeError> {
    let gone = |_| NodeError::Unavailable("the node stopped".to_owned());
    changes.changed().await.map_err(gone)
}

#[async_trait]
impl LightningNode for LdkNode {
    async fn info(&self) -> Result<NodeInfo, NodeError> {
        let manager = &self.parts.manager;
        let channels = manager.list_usable_channels();
        let route_hints = channels
            .iter()
            .filter(|channel| !channel.is_announced)
            .filter_map(|channel| {
                let forwarding = channel.counterparty.forwarding_info.as_ref()?;
                Some(RouteHint(vec![lightning_invoice::RouteHintHop {
                    src_node_id: channel.counterparty.node_id,
                    short_channel_id: channel.get_inbound_payment_scid()?,
                    fees: lightning_invoice::RoutingFees {
                        base_msat: forwarding.fee_base_msat,
                        proportional_millionths: forwarding.fee_proportional_millionths,
                    },
                    cltv_expiry_delta: forwarding.cltv_expiry_delta,
                    htlc_minimum_msat: channel.inbound_htlc_minimum_msat,
                    htlc_maximum_msat: channel.inbound_htlc_maximum_msat,
                }]))
            })
            .collect();
        Ok(NodeInfo {
            alias: self.parts.config.alias.clone(),
            node_id: manager.get_our_node_id(),
            network: self.parts.config.network,
            block_height: *self.parts.height.borrow(),
            route_hints,
        })
    }

    async fn pay(&self, request: PayRequest) -> Result<PaymentStatus, NodeError> {
        let hash = *request.invoice.payment_hash().as_byte_array();
        let payments = &self.parts.payments;
        let mut changes = payments.changes();
        if payments.status(&hash)? == PaymentStatus::Unknown {
            self.check(&request)?;
            if payments.start(&hash)? {
                self.send(hash, &request)?;
                self.parts.peers.process_events();
            }
        }
        let result = async {
            loop {
                match payments.status(&hash)? {
                    PaymentStatus::Pending => changed(&mut changes).await?,
                    known => return Ok(known),
                }
            }
        };
        let limit = request.retry_for.saturating_add(PAY_MARGIN);
        tokio::select! {
            result = result => result,
            () = tokio::time::sleep(limit) => Ok(payments.status(&hash)?),
            reason = self.parts.ledger.failed() => Err(NodeError::Unavailable(reason)),
        }
    }

    async fn payment(&self, payment_hash: [u8; 32]) -> Result<PaymentStatus, NodeError> {
        Ok(self.parts.payments.status(&payment_hash)?)
    }

    async fn hold_invoice(&self, request: HoldInvoiceRequest) -> Result<Bolt11Invoice, NodeError> {
        let held = &self.parts.held;
        let existing = held.get(&request.payment_hash)?;
        if existing.is_none() {
            let expiry = u32::try_from(request.expiry.as_secs())
                .map_err(|_| NodeError::Refused("the expiry is too far away".to_owned()))?;
            let invoice = self.create_invoice(Bolt11InvoiceParameters {
                amount_msats: Some(request.amount_msat),
                description: describe(&request.description)?,
                invoice_expiry_delta_secs: Some(expiry),
                min_final_cltv_expiry_delta: Some(HOLD_MIN_FINAL_CLTV - CLTV_BUFFER),
                payment_hash: Some(PaymentHash(request.payment_hash)),
            })?;
            // If another call was faster, its invoice stays.
            held.open(request.clone(), invoice.to_string())?;
        }
        match held.get(&request.payment_hash)? {
            // The same again when asked again, such as after a crash.
            Some(row)
                if row.request == request && !matches!(row.state, State::Settled | State::Cancelled) =>
            {
                row.invoice.parse().map_err(|error| {
                    NodeError::Unavailable(format!("the stored invoice can't be read: {error:?}"))
                })
            }
            _ => Err(NodeError::Refused("the payment hash has been used before".to_owned())),
        }
    }

    async fn held_payments(&self) -> Result<Vec<HeldPayment>, NodeError> {
        Ok(self.parts.held.held(*self.parts.height.borrow())?)
    }

    async fn held_changed(&self, seen: u64) -> u64 {
        let mut changes = self.parts.held.changes();
        // The sender lives as long as the node; without it there is nothing to tell.
        changes.wait_for(|count| *count != seen).await.map_or(seen, |count| *count)
    }

    async fn settle(&self, payment_hash: [u8; 32], preimage: [u8; 32]) -> Result<(), NodeError> {
        if sha256::Hash::hash(&preimage).to_byte_array() != payment_hash {
            return Err(NodeError::WrongPreimage(payment_hash));
        }
        let parts = &self.parts;
        // LDK's own: it fails the HTLCs while it handles the block of their deadline.
        let height = parts.manager.current_best_block().height;
        let mut changes = parts.held.changes();
        let row = parts.held.change(&payment_hash, |row| {
            if matches!(row.state, State::Held { deadline, .. } if height < deadline) {
                row.state = State::Settling { preimage };
            }
        })?;
        match row.map(|row| row.state) {
            Some(State::Settled) => return Ok(()),
            Some(State::Settling { .. }) => {}
            _ => return Err(NodeError::NotHeld(payment_hash)),
        }
        parts.manager.claim_funds(PaymentPreimage(preimage));
        // From here on a crash does not lose it. What follows only makes sure that LDK took it.
        parts.ledger.commit(Batch::new())?;
        parts.peers.process_events();
        let claimed = async {
            loop {
                match parts.held.get(&payment_hash)?.map(|row| row.state) {
                    Some(State::Settling { .. }) => changed(&mut changes).await?,
                    Some(State::Settled) => return Ok(()),
                    _ => return Err(NodeError::NotHeld(payment_hash)),
                }
            }
        };
        match tokio::time::timeout(CLAIM_PATIENCE, claimed).await {
            Ok(result) => result,
            Err(_) => Err(NodeError::Unavailable("the claim is not confirmed yet".to_owned())),
        }
    }

    async fn cancel(&self, payment_hash: [u8; 32]) -> Result<(), NodeError> {
        let parts = &self.parts;
        let row = parts.held.change(&payment_hash, |row| {
            if matches!(row.state, State::Open | State::Held { .. }) {
                row.state = State::Cancelled;
            }
        })?;
        match row.map(|row| row.state) {
            Some(State::Settling { .. } | State::Settled) => {
                return Err(NodeError::AlreadySettled(payment_hash));
            }
            Some(_) => parts.manager.fail_htlc_backwards(&PaymentHash(payment_hash)),
            None => {}
        }
        parts.ledger.commit(Batch::new())?;
        parts.peers.process_events();
        Ok(())
    }

    async fn onchain_address(&self) -> Result<Address, NodeError> {
        Ok(self.parts.wallet.new_address()?)
    }

    async fn onchain_send(&self, request: OnchainSendRequest) -> Result<Txid, NodeError> {
        let parts = &self.parts;
        let address = request.address.require_network(parts.config.network);
        let address = address.map_err(|error| NodeError::Refused(error.to_string()))?;
        let rate = request.fee_rate_sat_per_kwu.unwrap_or_else(|| {
            parts.fees.get_est_sat_per_1000_weight(ConfirmationTarget::NonAnchorChannelFee).into()
        });
        let tx = parts.wallet.pay_to(
            address.script_pubkey(),
            Amount::from_sat(request.amount_sat),
            rate,
            parts.reserve_sat(0),
        )?;
        let txid = tx.compute_txid();
        // Kept before it is sent: whatever happens, it is sent once and not paid twice.
        parts.outbox.put(&tx)?;
        match parts.bitcoind.send_transaction(&tx).await {
            Ok(None) => Ok(txid),
            Ok(Some(reason)) => {
                parts.outbox.drop(txid)?;
                Err(NodeError::Refused(format!("the transaction was not accepted: {reason}")))
            }
            Err(error) => {
                tracing::warn!(%txid, %error, "a transaction is sent later");
                Ok(txid)
            }
        }
    }

    async fn balances(&self) -> Result<Balances, NodeError> {
        let channels = self.parts.manager.list_usable_channels();
        Ok(Balances {
            onchain_sat: self.parts.wallet.spendable_sat(),
            outbound_msat: channels.iter().map(|channel| channel.outbound_capacity_msat).sum(),
            inbound_msat: channels.iter().map(|channel| channel.inbound_capacity_msat).sum(),
        })
    }
}

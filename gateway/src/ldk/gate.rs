//! Holds the channel manager's messages back until the state they follow from is on disk.

use std::sync::Arc;

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{
    AcceptChannel, AcceptChannelV2, AnnouncementSignatures, BaseMessageHandler, ChannelMessageHandler,
    ChannelReady, ChannelReestablish, ChannelUpdate, ClosingSigned, CommitmentSigned, ErrorMessage,
    FundingCreated, FundingSigned, Init, MessageSendEvent, OpenChannel, OpenChannelV2, PeerStorage,
    PeerStorageRetrieval, RevokeAndACK, Shutdown, SpliceAck, SpliceInit, SpliceLocked, Stfu, TxAbort,
    TxAckRbf, TxAddInput, TxAddOutput, TxComplete, TxInitRbf, TxRemoveInput, TxRemoveOutput, TxSignatures,
    UpdateAddHTLC, UpdateFailHTLC, UpdateFailMalformedHTLC, UpdateFee, UpdateFulfillHTLC,
};
use lightning::ln::types::ChannelId;
use lightning::types::features::{InitFeatures, NodeFeatures};
use tokio::sync::Notify;

use super::ledger::Ledger;
use super::log::Batch;
use super::types::ChannelManager;

/// The channel manager as the peer manager sees it.
pub(super) struct Gate {
    manager: Arc<ChannelManager>,
    ledger: Arc<Ledger>,
    arrivals: Arc<Notify>,
}

impl Gate {
    /// `arrivals` is told when HTLCs came in that LDK keeps back for a while.
    pub fn new(manager: Arc<ChannelManager>, ledger: Arc<Ledger>, arrivals: Arc<Notify>) -> Self {
        Gate { manager, ledger, arrivals }
    }
}

/// Whether a message says nothing about a channel's state.
fn is_gossip(message: &MessageSendEvent) -> bool {
    matches!(
        message,
        MessageSendEvent::SendChannelAnnouncement { .. }
            | MessageSendEvent::BroadcastChannelAnnouncement { .. }
            | MessageSendEvent::BroadcastChannelUpdate { .. }
            | MessageSendEvent::BroadcastNodeAnnouncement { .. }
            | MessageSendEvent::SendChannelUpdate { .. }
            | MessageSendEvent::SendChannelRangeQuery { .. }
            | MessageSendEvent::SendShortIdsQuery { .. }
            | MessageSendEvent::SendReplyChannelRange { .. }
            | MessageSendEvent::SendGossipTimestampFilter { .. }
    )
}

impl BaseMessageHandler for Gate {
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        // Taken first, committed then: what is sent was made before the commit began.
        let messages = self.manager.get_and_clear_pending_msg_events();
        if messages.iter().all(is_gossip) {
            return messages;
        }
        match self.ledger.commit(Batch::new()) {
            Ok(()) => messages,
            // The node has stopped. To its peers it is silent, as if it had crashed before.
            Err(_) => Vec::new(),
        }
    }

    fn peer_disconnected(&self, peer: PublicKey) {
        self.manager.peer_disconnected(peer)
    }

    fn provided_node_features(&self) -> NodeFeatures {
        self.manager.provided_node_features()
    }

    fn provided_init_features(&self, peer: PublicKey) -> InitFeatures {
        self.manager.provided_init_features(peer)
    }

    fn peer_connected(&self, peer: PublicKey, msg: &Init, inbound: bool) -> Result<(), ()> {
        self.manager.peer_connected(peer, msg, inbound)
    }
}

/// All handed on unchanged.
impl ChannelMessageHandler for Gate {
    fn handle_open_channel(&self, peer: PublicKey, msg: &OpenChannel) {
        self.manager.handle_open_channel(peer, msg)
    }

    fn handle_open_channel_v2(&self, peer: PublicKey, msg: &OpenChannelV2) {
        self.manager.handle_open_channel_v2(peer, msg)
    }

    fn handle_accept_channel(&self, peer: PublicKey, msg: &AcceptChannel) {
        self.manager.handle_accept_channel(peer, msg)
    }

    fn handle_accept_channel_v2(&self, peer: PublicKey, msg: &AcceptChannelV2) {
        self.manager.handle_accept_channel_v2(peer, msg)
    }

    fn handle_funding_created(&self, peer: PublicKey, msg: &FundingCreated) {
        self.manager.handle_funding_created(peer, msg)
    }

    fn handle_funding_signed(&self, peer: PublicKey, msg: &FundingSigned) {
        self.manager.handle_funding_signed(peer, msg)
    }

    fn handle_channel_ready(&self, peer: PublicKey, msg: &ChannelReady) {
        self.manager.handle_channel_ready(peer, msg)
    }

    fn handle_peer_storage(&self, peer: PublicKey, msg: PeerStorage) {
        self.manager.handle_peer_storage(peer, msg)
    }

    fn handle_peer_storage_retrieval(&self, peer: PublicKey, msg: PeerStorageRetrieval) {
        self.manager.handle_peer_storage_retrieval(peer, msg)
    }

    fn handle_shutdown(&self, peer: PublicKey, msg: &Shutdown) {
        self.manager.handle_shutdown(peer, msg)
    }

    fn handle_closing_signed(&self, peer: PublicKey, msg: &ClosingSigned) {
        self.manager.handle_closing_signed(peer, msg)
    }

    fn handle_stfu(&self, peer: PublicKey, msg: &Stfu) {
        self.manager.handle_stfu(peer, msg)
    }

    fn handle_splice_init(&self, peer: PublicKey, msg: &SpliceInit) {
        self.manager.handle_splice_init(peer, msg)
    }

    fn handle_splice_ack(&self, peer: PublicKey, msg: &SpliceAck) {
        self.manager.handle_splice_ack(peer, msg)
    }

    fn handle_splice_locked(&self, peer: PublicKey, msg: &SpliceLocked) {
        self.manager.handle_splice_locked(peer, msg)
    }

    fn handle_tx_add_input(&self, peer: PublicKey, msg: &TxAddInput) {
        self.manager.handle_tx_add_input(peer, msg)
    }

    fn handle_tx_add_output(&self, peer: PublicKey, msg: &TxAddOutput) {
        self.manager.handle_tx_add_output(peer, msg)
    }

    fn handle_tx_remove_input(&self, peer: PublicKey, msg: &TxRemoveInput) {
        self.manager.handle_tx_remove_input(peer, msg)
    }

    fn handle_tx_remove_output(&self, peer: PublicKey, msg: &TxRemoveOutput) {
        self.manager.handle_tx_remove_output(peer, msg)
    }

    fn handle_tx_complete(&self, peer: PublicKey, msg: &TxComplete) {
        self.manager.handle_tx_complete(peer, msg)
    }

    fn handle_tx_signatures(&self, peer: PublicKey, msg: &TxSignatures) {
        self.manager.handle_tx_signatures(peer, msg)
    }

    fn handle_tx_init_rbf(&self, peer: PublicKey, msg: &TxInitRbf) {
        self.manager.handle_tx_init_rbf(peer, msg)
    }

    fn handle_tx_ack_rbf(&self, peer: PublicKey, msg: &TxAckRbf) {
        self.manager.handle_tx_ack_rbf(peer, msg)
    }

    fn handle_tx_abort(&self, peer: PublicKey, msg: &TxAbort) {
        self.manager.handle_tx_abort(peer, msg)
    }

    fn handle_update_add_htlc(&self, peer: PublicKey, msg: &UpdateAddHTLC) {
        self.manager.handle_update_add_htlc(peer, msg)
    }

    fn handle_update_fulfill_htlc(&self, peer: PublicKey, msg: UpdateFulfillHTLC) {
        self.manager.handle_update_fulfill_htlc(peer, msg)
    }

    fn handle_update_fail_htlc(&self, peer: PublicKey, msg: &UpdateFailHTLC) {
        self.manager.handle_update_fail_htlc(peer, msg)
    }

    fn handle_update_fail_malformed_htlc(&self, peer: PublicKey, msg: &UpdateFailMalformedHTLC) {
        self.manager.handle_update_fail_malformed_htlc(peer, msg)
    }

    fn handle_commitment_signed(&self, peer: PublicKey, msg: &CommitmentSigned) {
        self.manager.handle_commitment_signed(peer, msg)
    }

    fn handle_commitment_signed_batch(
        &self,
        peer: PublicKey,
        channel_id: ChannelId,
        batch: Vec<CommitmentSigned>,
    ) {
        self.manager.handle_commitment_signed_batch(peer, channel_id, batch)
    }

    fn handle_revoke_and_ack(&self, peer: PublicKey, msg: &RevokeAndACK) {
        self.manager.handle_revoke_and_ack(peer, msg);
        // With this message an HTLC is irrevocably ours.
        if self.manager.needs_pending_htlc_processing() {
            self.arrivals.notify_one();
        }
    }

    fn handle_update_fee(&self, peer: PublicKey, msg: &UpdateFee) {
        self.manager.handle_update_fee(peer, msg)
    }

    fn handle_announcement_signatures(&self, peer: PublicKey, msg: &AnnouncementSignatures) {
        self.manager.handle_announcement_signatures(peer, msg)
    }

    fn handle_channel_reestablish(&self, peer: PublicKey, msg: &ChannelReestablish) {
        self.manager.handle_channel_reestablish(peer, msg)
    }

    fn handle_channel_update(&self, peer: PublicKey, msg: &ChannelUpdate) {
        self.manager.handle_channel_update(peer, msg)
    }

    fn handle_error(&self, peer: PublicKey, msg: &ErrorMessage) {
        self.manager.handle_error(peer, msg)
    }

    fn get_chain_hashes(&self) -> Option<Vec<ChainHash>> {
        self.manager.get_chain_hashes()
    }

    fn message_received(&self) {
        self.manager.message_received()
    }
}

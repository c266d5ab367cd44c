//! Peers and channels.

use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use lightning::ln::channel_state::ChannelShutdownState;
use lightning::ln::types::ChannelId;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::builder::Parts;
use super::error::LdkError;
use super::events::random_id;
use super::log::Batch;
use super::start::LdkNode;
use super::types::lock;

/// How long a peer may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Addresses of peers, by node id.
const PEERS: &str = "peers/";

/// A channel to open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenChannel {
    /// With whom.
    pub node_id: PublicKey,
    /// Where they listen; `None` if they are connected or known already.
    pub address: Option<SocketAddr>,
    /// Its size, in sat.
    pub amount_sat: u64,
    /// What of it is given to them, in msat.
    pub push_msat: u64,
    /// Whether it is announced to the network.
    pub announced: bool,
}

/// A channel, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelSummary {
    /// Its id, in hex.
    pub channel_id: String,
    /// With whom.
    pub node_id: PublicKey,
    /// `txid:index` of its funding output, once there is one.
    pub funding: Option<String>,
    /// Its size, in sat.
    pub amount_sat: u64,
    /// What can be sent, in msat.
    pub outbound_msat: u64,
    /// What can be received, in msat.
    pub inbound_msat: u64,
    /// Confirmations of its funding transaction.
    pub confirmations: u32,
    /// Whether it is confirmed enough, and not closing.
    pub ready: bool,
    /// Whether it can be used right now: ready, and the peer is connected.
    pub usable: bool,
    /// Whether it is announced to the network.
    pub announced: bool,
}

impl LdkNode {
    /// Connects to a peer and remembers its address.
    pub async fn connect_peer(&self, node_id: PublicKey, address: SocketAddr) -> Result<(), LdkError> {
        connect(&self.parts, node_id, address).await?;
        let row = Some(address.to_string().into_bytes());
        self.parts.ledger.commit(Batch::from([(format!("{PEERS}{node_id}"), row)]))
    }

    /// Opens a channel. Returns its id, in hex, when its funding transaction is handed to the
    /// network; it is usable after the confirmations that both sides ask for.
    pub async fn open_channel(&self, open: OpenChannel) -> Result<String, LdkError> {
        let parts = &self.parts;
        match open.address.or_else(|| known_address(parts, &open.node_id)) {
            Some(address) => self.connect_peer(open.node_id, address).await?,
            None if parts.peers.peer_by_node_id(&open.node_id).is_some() => {}
            None => return Err(LdkError::Refused("the peer's address is not known".to_owned())),
        }
        let needed = open.amount_sat.saturating_add(parts.reserve_sat(1));
        let have = parts.wallet.spendable_sat();
        if have < needed {
            return Err(LdkError::Funds(format!("{needed} sat are needed, {have} are there")));
        }
        let id = random_id();
        let (done, opened) = oneshot::channel();
        lock(&parts.opening).insert(id, done);
        let mut config = parts.config.user_config();
        config.channel_handshake_config.announce_for_forwarding = open.announced;
        let created = parts.manager.create_channel(
            open.node_id,
            open.amount_sat,
            open.push_msat,
            id,
            None,
            Some(config),
        );
        if let Err(error) = created {
            lock(&parts.opening).remove(&id);
            return Err(LdkError::Refused(format!("{error:?}")));
        }
        parts.peers.process_events();
        let answer = tokio::time::timeout(PATIENCE, opened).await;
        lock(&parts.opening).remove(&id);
        answer
            .map_err(|_| LdkError::Timeout("opening the channel"))?
            .map_err(|_| LdkError::Stopped("while a channel was opened".to_owned()))?
            .map_err(LdkError::Refused)?;
        parts.outbox.send_all().await?;
        let channels = parts.manager.list_channels();
        let channel = channels.iter().find(|channel| channel.user_channel_id == id);
        channel
            .map(|channel| channel.channel_id.to_string())
            .ok_or_else(|| LdkError::Refused("the channel closed again".to_owned()))
    }

    /// All channels that are not closed.
    pub fn list_channels(&self) -> Vec<ChannelSummary> {
        let channels = self.parts.manager.list_channels();
        channels
            .into_iter()
            .map(|channel| ChannelSummary {
                channel_id: channel.channel_id.to_string(),
                node_id: channel.counterparty.node_id,
                funding: channel.funding_txo.map(|f| f.into_bitcoin_outpoint().to_string()),
                amount_sat: channel.channel_value_satoshis,
                outbound_msat: channel.outbound_capacity_msat,
                inbound_msat: channel.inbound_capacity_msat,
                confirmations: channel.confirmations.unwrap_or(0),
                ready: channel.is_channel_ready
                    && channel
                        .channel_shutdown_state
                        .is_none_or(|state| state == ChannelShutdownState::NotShuttingDown),
                usable: channel.is_usable,
                announced: channel.is_announced,
            })
            .collect()
    }

    /// Begins to close a channel: together with the peer, or by force without it. What is left
    /// of it comes to the on-chain wallet, after a force close with its delay.
    pub async fn close_channel(&self, channel_id: &str, force: bool) -> Result<(), LdkError> {
        let manager = &self.parts.manager;
        let channel = manager
            .list_channels()
            .into_iter()
            .find(|channel| channel.channel_id.to_string() == channel_id)
            .ok_or_else(|| LdkError::Refused(format!("there is no channel {channel_id}")))?;
        let (id, peer): (ChannelId, _) = (channel.channel_id, channel.counterparty.node_id);
        let closed = if force {
            let reason = "closed by its operator".to_owned();
            manager.force_close_broadcasting_latest_txn(&id, &peer, reason)
        } else {
            manager.close_channel(&id, &peer)
        };
        closed.map_err(|error| LdkError::Refused(format!("{error:?}")))?;
        self.parts.ledger.commit(Batch::new())?;
        self.parts.peers.process_events();
        Ok(())
    }
}

/// Connects, and returns when the connection is ready for use.
pub(super) async fn connect(parts: &Parts, node_id: PublicKey, address: SocketAddr) -> Result<(), LdkError> {
    if parts.peers.peer_by_node_id(&node_id).is_some() {
        return Ok(());
    }
    let unreachable = || LdkError::Refused(format!("{node_id}@{address} can't be reached"));
    let connection = lightning_net_tokio::connect_outbound(parts.peers.clone(), node_id, address).await;
    let mut connection = Box::pin(connection.ok_or_else(unreachable)?);
    let ready = async {
        // LDK tells nobody when the handshake is over.
        while parts.peers.peer_by_node_id(&node_id).is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = &mut connection => return Err(unreachable()),
        () = ready => {}
        () = tokio::time::sleep(PATIENCE) => return Err(unreachable()),
    }
    tokio::spawn(connection);
    Ok(())
}

/// Peers with whom there are channels, and who are not connected.
pub(super) fn lost_peers(parts: &Parts) -> Vec<PublicKey> {
    let mut peers: Vec<_> = parts
        .manager
        .list_channels()
        .iter()
        .map(|channel| channel.counterparty.node_id)
        .filter(|peer| parts.peers.peer_by_node_id(peer).is_none())
        .collect();
    peers.sort_unstable();
    peers.dedup();
    peers
}

/// Where a peer was last reached.
pub(super) fn known_address(parts: &Parts, node_id: &PublicKey) -> Option<SocketAddr> {
    let row = parts.ledger.get(&format!("{PEERS}{node_id}"))?;
    String::from_utf8(row).ok()?.parse().ok()
}

//! The embedded LDK node's own endpoints for its operator.
//!
//! | endpoint | body | answer |
//! |---|---|---|
//! | `POST /v1/ldk/peers` | [`ConnectPeer`] | `{}` |
//! | `GET /v1/ldk/channels` | | a list of channels |
//! | `POST /v1/ldk/channels` | [`OpenChannel`] | `{"channel_id": …}` |
//! | `DELETE /v1/ldk/channels/{channel_id}?force=true` | | `{}` |

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use bitcoin::secp256k1::PublicKey;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::body::Body;
use crate::GatewayError;
use crate::ldk::{ChannelSummary, LdkError, LdkNode, OpenChannel};
use crate::node::NodeError;

/// A peer to connect to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConnectPeer {
    /// Its key.
    pub node_id: PublicKey,
    /// Where it listens.
    pub address: SocketAddr,
}

#[derive(Deserialize)]
struct Close {
    #[serde(default)]
    force: bool,
}

fn node_error(error: LdkError) -> GatewayError {
    GatewayError::Node(NodeError::from(error))
}

/// Routes for [`Gateway::serve_admin`](crate::Gateway::serve_admin).
pub fn ldk_router(node: Arc<LdkNode>) -> Router {
    Router::new()
        .route("/v1/ldk/peers", post(connect))
        .route("/v1/ldk/channels", get(list).post(open))
        .route("/v1/ldk/channels/{channel_id}", delete(close))
        .with_state(node)
}

async fn connect(
    State(node): State<Arc<LdkNode>>,
    Body(peer): Body<ConnectPeer>,
) -> Result<Json<Value>, GatewayError> {
    node.connect_peer(peer.node_id, peer.address).await.map_err(node_error)?;
    Ok(Json(json!({})))
}

async fn list(State(node): State<Arc<LdkNode>>) -> Json<Vec<ChannelSummary>> {
    Json(node.list_channels())
}

async fn open(
    State(node): State<Arc<LdkNode>>,
    Body(channel): Body<OpenChannel>,
) -> Result<Json<Value>, GatewayError> {
    let id = node.open_channel(channel).await.map_err(node_error)?;
    Ok(Json(json!({ "channel_id": id })))
}

async fn close(
    State(node): State<Arc<LdkNode>>,
    Path(id): Path<String>,
    Query(close): Query<Close>,
) -> Result<Json<Value>, GatewayError> {
    node.close_channel(&id, close.force).await.map_err(node_error)?;
    Ok(Json(json!({})))
}

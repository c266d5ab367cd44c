//! The gateway, as the RPC commands see it.

use std::sync::Arc;

use async_trait::async_trait;
use gateway::node::LightningNode;
use serde_json::Value;

use crate::cln::ClnNode;
use crate::options::{GatewayOptions, Options};
use crate::role::Role;

/// What the plugin asks of a gateway. Errors are one sentence for the operator.
#[async_trait]
pub trait GatewayRole: Send + Sync {
    /// Federations, swaps, alarms.
    async fn status(&self) -> Result<Value, String>;
    /// E-cash in each federation.
    async fn balance(&self) -> Result<Value, String>;
    /// Joins a federation by its invite code.
    async fn connect(&self, invite: &str) -> Result<Value, String>;
    /// Takes nothing new on; what is funded is finished.
    async fn drain(&self);
    /// Stops. What was persisted is resumed at the next start.
    async fn shutdown(&self);
}

/// Starts the gateway on this node.
pub async fn run(
    role: Arc<Role<dyn GatewayRole>>,
    options: Options,
    gateway: GatewayOptions,
    node: Arc<ClnNode>,
) {
    match start(options, gateway, node).await {
        Ok(running) => role.running(running),
        Err(reason) => {
            tracing::error!("the gateway does not start: {reason}");
            role.failed(reason);
        }
    }
}

async fn start(
    _options: Options,
    _gateway: GatewayOptions,
    node: Arc<dyn LightningNode>,
) -> Result<Arc<dyn GatewayRole>, String> {
    node.info().await.map_err(|error| error.to_string())?;
    Err("this build has no gateway yet".to_owned())
}

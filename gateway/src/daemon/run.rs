//! Runs node and gateway until a signal, or until one of them can't go on.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};

use super::options::RunOptions;
use crate::Gateway;
use crate::api::ldk_router;
use crate::ldk::LdkNode;
use crate::node::LightningNode;

/// The file that tells `gatewayd admin` where the admin API is.
pub(super) const ADMIN_URL_FILE: &str = "admin-url";

pub(super) async fn run(data_dir: PathBuf, options: RunOptions) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&data_dir)
        .with_context(|| data_dir.display().to_string())?;
    // From the first moment: a signal while it starts must not be lost.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let started = tokio::select! {
        started = start(&data_dir, &options) => started?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    let (gateway, node) = started;
    let failure = tokio::select! {
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        reason = gateway.failed() => Some(reason),
        reason = node.failed() => Some(reason),
    };
    tracing::info!("stopping");
    gateway.shutdown().await;
    node.stop().await;
    match failure {
        Some(reason) => bail!("the gateway stopped: {reason}"),
        None => Ok(()),
    }
}

async fn start(data_dir: &Path, options: &RunOptions) -> anyhow::Result<(Arc<Gateway>, Arc<LdkNode>)> {
    let node = LdkNode::start(options.ldk(data_dir)?).await?;
    let gateway =
        Gateway::start(options.gateway(data_dir), Arc::clone(&node) as Arc<dyn LightningNode>).await?;
    let admin = gateway.serve_admin(options.admin_bind, ldk_router(Arc::clone(&node))).await?;
    let file = data_dir.join(ADMIN_URL_FILE);
    std::fs::write(&file, format!("http://{admin}\n")).with_context(|| file.display().to_string())?;
    let info = node.info().await?;
    // One line for whoever started it: now it can be used.
    println!(
        "{}",
        serde_json::json!({
            "ready": true,
            "api_url": gateway.api_url(),
            "api_address": gateway.api_address(),
            "admin_url": format!("http://{admin}"),
            "gateway_key": gateway.key(),
            "node_id": info.node_id,
            "ldk_listen": node.listen_addr(),
        })
    );
    Ok((gateway, node))
}

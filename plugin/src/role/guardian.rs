//! The guardian: chain, fees and the key at rest all come from lightningd.

use std::sync::Arc;

use federation_guardian::{Guardian, GuardianConfig, SNAPSHOT_INTERVAL, SealingKey};

use crate::cln::{ClnChain, Rpc};
use crate::options::{GuardianOptions, Options};
use crate::role::Role;

/// What lightningd derives the key from. Another text would be another key: secrets at rest could not be read.
const SECRET_NAME: &str = "cln-federation guardian";

/// Starts the guardian, and notes when it ends.
pub async fn run(role: Arc<Role<Guardian>>, options: Options, guardian: GuardianOptions, rpc: Rpc) {
    rpc.ready().await;
    // From `makesecret`: nothing to configure, and nothing in `listconfigs`. It dies with `hsm_secret`.
    let started = match rpc.secret(SECRET_NAME).await {
        Ok(key) => {
            let config = GuardianConfig {
                data_dir: options.data_dir.join("guardian"),
                store_url: guardian.store_url,
                api_bind: guardian.api_bind,
                api_url: guardian.api_url,
                link_bind: guardian.link_bind,
                link_address: guardian.link_address,
                network: options.network,
                snapshot_interval: SNAPSHOT_INTERVAL,
            };
            Guardian::start(config, SealingKey::new(key), Arc::new(ClnChain::new(rpc)))
                .await
                .map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    match started {
        Ok(running) => {
            role.running(running.clone());
            role.failed(running.stopped().await);
        }
        Err(reason) => {
            tracing::error!("the guardian does not start: {reason}");
            role.failed(reason);
        }
    }
}

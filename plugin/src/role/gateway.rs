//! The gateway: its node is this lightningd, and its keys come from `makesecret`.

use std::sync::Arc;

use bip39::Mnemonic;
use gateway::{Fees, Gateway, GatewayConfig, Limits};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::cln::{AskedFile, ClnNode, Rpc};
use crate::hook::{Hook, unix_now};
use crate::options::{GatewayOptions, Options};
use crate::role::Role;

/// What lightningd derives the words from. Another text would be another gateway, with other e-cash.
const SECRET_NAME: &str = "cln-federation gateway";
/// Records of payments must be kept this long, in seconds: whether an old swap was paid is read from them.
const MIN_PAYS_AGE: u64 = 30 * 24 * 3600;

/// The file that says which payments `xpay` was asked for, in the data folder.
const ASKED_FILE: &str = "xpay-asked";
/// The gateway's own data, in the data folder.
const GATEWAY_FOLDER: &str = "gateway";

/// Starts the gateway, and notes when it ends.
pub async fn run(
    role: Arc<Role<Gateway>>,
    options: Options,
    gateway: GatewayOptions,
    hook: Arc<Hook>,
    rpc: Rpc,
) {
    rpc.ready().await;
    match start(options, gateway, hook, rpc).await {
        Ok(running) => {
            role.running(running.clone());
            role.failed(running.failed().await);
        }
        Err(reason) => {
            tracing::error!("the gateway does not start: {reason}");
            role.failed(reason);
        }
    }
}

async fn start(
    options: Options,
    gateway: GatewayOptions,
    hook: Arc<Hook>,
    rpc: Rpc,
) -> Result<Arc<Gateway>, String> {
    // A lightningd without the autoclean plugin cleans nothing.
    if let Ok(status) = rpc.call("autoclean-status", json!({})).await {
        check_autoclean(&status)?;
    }
    let folder = options.data_dir.clone();
    let asked = tokio::task::spawn_blocking(move || {
        // A gateway that has run before has this file.
        let must_exist = folder.join(GATEWAY_FOLDER).exists();
        AskedFile::open(&folder.join(ASKED_FILE), unix_now(), must_exist)
    });
    let asked = asked.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let node = Arc::new(ClnNode::new(rpc.clone(), hook, Arc::new(asked)));
    let secret = rpc.secret(SECRET_NAME).await.map_err(|error| error.to_string())?;
    let config = GatewayConfig {
        data_dir: options.data_dir.join(GATEWAY_FOLDER),
        api_bind: gateway.api_bind,
        api_url: Some(gateway.api_url),
        fees: Fees::default(),
        limits: Limits::default(),
        words: Some(words(&secret)?),
    };
    Gateway::start(config, node).await.map_err(|error| error.to_string())
}

/// Twelve words of the secret's first half: they are nowhere on disk, and come back with `hsm_secret`.
fn words(secret: &Zeroizing<[u8; 32]>) -> Result<String, String> {
    let entropy = secret.get(..16).unwrap_or_default();
    Mnemonic::from_entropy(entropy).map(|words| words.to_string()).map_err(|error| error.to_string())
}

/// Without its record a paid invoice looks like one that was never tried.
fn check_autoclean(status: &Value) -> Result<(), String> {
    for kind in ["succeededpays", "failedpays"] {
        let Some(cleaned) = status.get("autoclean").and_then(|status| status.get(kind)) else { continue };
        let enabled = cleaned.get("enabled").and_then(Value::as_bool).unwrap_or(false);
        let age = cleaned.get("age").and_then(Value::as_u64).unwrap_or(u64::MAX);
        if enabled && age < MIN_PAYS_AGE {
            return Err(format!(
                "autoclean-{kind}-age is {age} s: set it to {MIN_PAYS_AGE} or more, or a paid invoice could be refunded"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn autoclean_must_leave_the_records() {
        let status = |enabled: bool, age: u64| json!({ "autoclean": { "succeededpays": { "enabled": enabled, "age": age, "cleaned": 0 } } });
        assert!(check_autoclean(&status(true, 3600)).unwrap_err().contains("autoclean-succeededpays-age"));
        assert!(check_autoclean(&status(false, 3600)).is_ok());
        assert!(check_autoclean(&status(true, MIN_PAYS_AGE)).is_ok());
        assert!(check_autoclean(&json!([])).is_ok());
    }

    #[test]
    fn twelve_words() {
        assert_eq!(words(&Zeroizing::new([7; 32])).unwrap().split(' ').count(), 12);
    }
}

//! Wallets' backups.

use axum::Json as Answer;
use axum::extract::Path;
use bitcoin::secp256k1::XOnlyPublicKey;
use federation_core::api::ApiError;
use federation_core::backup::Backup;
use serde_json::{Value, json};

use super::problem::Problem;
use super::{Federation, Json};

pub(super) async fn keep(
    Federation(running): Federation,
    Json(backup): Json<Backup>,
) -> Result<Answer<Value>, Problem> {
    running.takes_writes()?;
    running.backups.put(backup).await?;
    Ok(Answer(json!({})))
}

pub(super) async fn show(
    Federation(running): Federation,
    Path(key): Path<String>,
) -> Result<Answer<Backup>, Problem> {
    let key: XOnlyPublicKey = key
        .parse()
        .map_err(|_| ApiError::bad_request("bad_parameter", "a key is 64 hex digits (BIP-340)"))?;
    let unknown = || {
        ApiError::not_found(
            "unknown_backup",
            "no backup is kept here under this key: ask another guardian, too",
        )
    };
    Ok(Answer(running.backups.get(&key).await?.ok_or_else(unknown)?))
}

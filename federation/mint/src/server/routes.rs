//! The mint's REST endpoints, under `/v1/modules/mint/`.
//!
//! | route | gives |
//! |---|---|
//! | `GET shares?txid=…[&index=…][&wait=SECONDS]` | this guardian's partial signatures of an accepted transaction's outputs, and the signatures of those that have theirs; with `wait` (at most [`MAX_WAIT_SECONDS`]) as soon as it is accepted |
//! | `GET audit` | notes issued and spent, a denomination and in total |
//! | `POST issued {"blinded_nonces": [hex]}` | which of these were issued, and their signatures: for restoring a wallet |
//! | `GET spent?prefix=hex[&after=hex]` | the nonces of spent notes that begin with 1 to 4 bytes: a wallet finds its spent notes among many |
//!
//! What they reveal: who asks for `issued` shows that these blinded nonces belong together; who asks for `spent` shows a
//! prefix that it shares with others. Asked over separate connections, the two can't be linked by what they carry; that both come
//! from one network address, one soon after the other, only the wallet's user can hide.

use std::sync::Arc;
use std::time::Duration;

use federation_core::api::{ApiError, ApiRequest, Route};
use federation_core::db::TableKey;
use federation_core::rest::MAX_WAIT_SECONDS;
use federation_core::{OutPoint, TxId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::early::Signed;
use super::tables::{ISSUED, OUTCOMES, SPENT};
use super::{Mint, audit};
use crate::{Denomination, PointBytes};

/// The most blinded nonces of one request.
const MAX_LOOKUP: usize = 512;
/// The most spent nonces of one answer.
const MAX_SPENT: usize = 2000;

pub(super) fn all(mint: &Arc<Mint>) -> Vec<Route> {
    let (shares, books) = (Arc::clone(mint), Arc::clone(mint));
    vec![
        Route::get("shares", move |request| {
            let mint = Arc::clone(&shares);
            async move { mint.serve_shares(request).await }
        })
        .signing(),
        Route::get("audit", move |request: ApiRequest| {
            let mint = Arc::clone(&books);
            async move { answer(&audit::books(&request.db, &mint.config).await?) }
        }),
        Route::post("issued", issued),
        Route::get("spent", spent),
    ]
}

fn answer(value: &impl Serialize) -> Result<Value, ApiError> {
    serde_json::to_value(value).map_err(|error| ApiError::new(500, "internal", error.to_string()))
}

impl Mint {
    /// An accepted output's share is of use to its owner only, and says no more than the consensus item will. To ask for it reveals
    /// what asking for the transaction's status does: an interest in it.
    async fn serve_shares(&self, request: ApiRequest) -> Result<Value, ApiError> {
        let txid: TxId = request.parameter("txid")?;
        let index: Option<u16> = optional(&request, "index")?;
        let wait = optional::<u64>(&request, "wait")?.unwrap_or(0).min(MAX_WAIT_SECONDS);
        let now = Instant::now();
        let deadline = now.checked_add(Duration::from_secs(wait)).unwrap_or(now);
        let signed = self.wait_early(&request, txid, deadline).await?;
        let Signed { mut shares, mut outcomes } = signed.unwrap_or_default();
        shares.retain(|at, _| index.is_none_or(|index| *at == index));
        outcomes.retain(|at, _| index.is_none_or(|index| *at == index));
        if shares.is_empty() && outcomes.is_empty() {
            return Err(ApiError::not_found(
                "unknown_output",
                "no accepted transaction has such outputs of the mint here: wait until it is accepted",
            ));
        }
        Ok(json!({ "guardian": self.us, "shares": shares, "outcomes": outcomes }))
    }
}

/// A parameter that may be left out.
fn optional<T: std::str::FromStr>(request: &ApiRequest, name: &str) -> Result<Option<T>, ApiError>
where
    T::Err: std::fmt::Display,
{
    if request.query.contains_key(name) { request.parameter(name).map(Some) } else { Ok(None) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lookup {
    blinded_nonces: Vec<PointBytes>,
}

/// A note that was issued.
#[derive(Serialize)]
struct Found {
    #[serde(flatten)]
    point: OutPoint,
    denomination: Denomination,
    /// Null while it is pending.
    outcome: Option<PointBytes>,
}

async fn issued(request: ApiRequest) -> Result<Value, ApiError> {
    let Lookup { blinded_nonces } = request.json()?;
    if blinded_nonces.len() > MAX_LOOKUP {
        return Err(ApiError::bad_request(
            "too_many_nonces",
            format!(
                "{} blinded nonces, but at most {MAX_LOOKUP} are looked up at once",
                blinded_nonces.len()
            ),
        ));
    }
    let issued = ISSUED.get_many(&request.db, &blinded_nonces).await?;
    let points: Vec<OutPoint> = issued.iter().flatten().map(|issued| issued.point).collect();
    let mut outcomes = OUTCOMES.get_many(&request.db, &points).await?.into_iter();
    let found: Vec<Option<Found>> = issued
        .into_iter()
        .map(|issued| {
            let issued = issued?;
            let outcome = outcomes.next().flatten();
            Some(Found { point: issued.point, denomination: issued.denomination, outcome })
        })
        .collect();
    Ok(json!({ "notes": answer(&found)? }))
}

/// The first bytes of a key.
struct Prefix(Vec<u8>);

impl TableKey for Prefix {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn read(_: &mut &[u8]) -> Option<Self> {
        None
    }
}

async fn spent(request: ApiRequest) -> Result<Value, ApiError> {
    let prefix: String = request.parameter("prefix")?;
    let prefix =
        hex::decode(&prefix).ok().filter(|prefix| (1..=4).contains(&prefix.len())).ok_or_else(|| {
            ApiError::bad_request("bad_parameter", "the parameter 'prefix' is 1 to 4 bytes in hexadecimal")
        })?;
    let after = match request.query.get("after") {
        None => None,
        Some(text) => {
            let mut nonce = [0; 32];
            hex::decode_to_slice(text, &mut nonce).map_err(|_| {
                ApiError::bad_request("bad_parameter", "the parameter 'after' is 32 bytes in hexadecimal")
            })?;
            Some(nonce)
        }
    };
    let found = SPENT.scan(&request.db, &Prefix(prefix), after.as_ref(), MAX_SPENT).await?;
    let more = found.len() == MAX_SPENT;
    let nonces: Vec<String> = found.into_iter().map(|(nonce, ())| hex::encode(nonce)).collect();
    Ok(json!({ "nonces": nonces, "more": more }))
}

//! The REST endpoints, under `/v1/modules/lightning/`:
//!
//! | | |
//! |---|---|
//! | `GET contract?id=…` | a [`ContractReport`]; with `wait=SECONDS` it waits (30 at most) for the contract to be funded, with `not=STATE` also for it to leave that state |
//! | `GET height` | `{"height": …}`, the agreed one |
//! | `GET gateways` | the live [`Announcement`]s |
//! | `POST gateways` | takes an [`Announcement`] |

use std::sync::Arc;
use std::time::Duration;

use federation_core::api::{ApiError, ApiRequest, Route};
use federation_core::db::{DbError, Reader};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::tables::{CONTRACTS, Record};
use super::{LightningModule, height};
use crate::contract::Contract;
use crate::report::{ContractKind, ContractReport, ContractState};
use crate::{Announcement, ContractId};

/// The longest wait of one request, in seconds.
const MAX_WAIT: u64 = 30;

pub(super) fn routes(module: Arc<LightningModule>) -> Vec<Route> {
    let with = || Arc::clone(&module);
    let (contract, post, get) = (with(), with(), with());
    vec![
        Route::get("contract", move |request| {
            let module = Arc::clone(&contract);
            async move { module.contract(request).await }
        }),
        Route::get("height", |request: ApiRequest| async move {
            Ok(json!({ "height": height::agreed(&request.db).await? }))
        }),
        Route::get("gateways", move |_| {
            let module = Arc::clone(&get);
            async move { Ok(json!(module.gateways.live().await?)) }
        }),
        Route::post("gateways", move |request: ApiRequest| {
            let module = Arc::clone(&post);
            async move {
                let announcement: Announcement = request.json()?;
                let expires_at = announcement.info.expires_at;
                module.gateways.announce(announcement).await?;
                Ok(json!({ "expires_at": expires_at }))
            }
        }),
    ]
}

/// A parameter that may be left out.
fn optional<T: std::str::FromStr>(request: &ApiRequest, name: &str) -> Result<Option<T>, ApiError>
where
    T::Err: std::fmt::Display,
{
    if request.query.contains_key(name) { request.parameter(name).map(Some) } else { Ok(None) }
}

impl LightningModule {
    async fn contract(&self, request: ApiRequest) -> Result<Value, ApiError> {
        let id: ContractId = request.parameter("id")?;
        let wait = optional::<u64>(&request, "wait")?.unwrap_or(0).min(MAX_WAIT);
        let unwanted: Option<ContractState> = optional(&request, "not")?;
        let deadline = Instant::now() + Duration::from_secs(wait);
        let mut commits = self.commits.subscribe();
        let record = loop {
            // Marked before reading, so that a commit in between is not missed.
            commits.borrow_and_update();
            let record = CONTRACTS.get(&request.db, &id).await?;
            let satisfied = record.as_ref().is_some_and(|record| Some(record.state) != unwanted);
            if satisfied || !matches!(timeout_at(deadline, commits.changed()).await, Ok(Ok(()))) {
                break record;
            }
        };
        let record = record.ok_or_else(|| {
            ApiError::not_found("unknown_contract", "no such contract has been funded, or not yet")
        })?;
        Ok(json!(report(&request.db, id, record).await?))
    }
}

async fn report(db: &dyn Reader, id: ContractId, record: Record) -> Result<ContractReport, DbError> {
    let (kind, deadline_height) = match &record.contract {
        Contract::Outgoing(contract) => (ContractKind::Outgoing, contract.expiry_height),
        Contract::Incoming(contract) => (ContractKind::Incoming, contract.terms.fund_before_height),
    };
    Ok(ContractReport {
        id,
        kind,
        amount: record.contract.amount(),
        state: record.state,
        preimage: record.preimage,
        deadline_height,
        height: height::agreed(db).await?,
    })
}

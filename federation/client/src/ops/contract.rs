//! Where a contract stands.

use std::time::Duration;

use federation_lightning::report::{ContractReport, ContractState};
use federation_lightning::{KIND, Preimage};

use crate::Result;
use crate::api::{CallError, Request};
use crate::client::Client;

impl Client {
    /// Whether n − f guardians say that they don't know what is asked for, and none that it does.
    pub(super) async fn is_unknown(&self, request: &Request) -> bool {
        let mut unknown = 0usize;
        for answer in self.inner.api.all(request, Duration::ZERO).await.into_values() {
            match answer {
                Ok(_) => return false,
                Err(CallError::Refused { status: 404, .. }) => unknown = unknown.saturating_add(1),
                Err(_) => {}
            }
        }
        unknown >= self.inner.api.guardians().saturating_sub(self.inner.api.max_faulty())
    }

    /// State and preimage of a contract, as f + 1 guardians say; `None`: they do not know it. Waits for it to be known, with
    /// `not` for it to leave that state.
    pub(super) async fn contract(
        &self,
        id: &str,
        wait: Duration,
        not: Option<ContractState>,
    ) -> Result<Option<(ContractState, Option<Preimage>)>> {
        let mut query = vec![("id", id.to_owned()), ("wait", wait.as_secs().to_string())];
        query.extend(not.map(|state| ("not", state.to_string())));
        let request = Request::module_get(KIND, "contract", &query);
        self.inner
            .api
            .agreed_on(&request, wait, |answer| match answer {
                Ok(value) => serde_json::from_value::<ContractReport>(value)
                    .map(|report| Some((report.state, report.preimage)))
                    .map_err(|error| CallError::Down(error.to_string())),
                Err(CallError::Refused { status: 404, .. }) => Ok(None),
                Err(error) => Err(error),
            })
            .await
    }
}

//! Which of the gateway's federations a command means.

use federation_core::FederationId;
use gateway::Gateway;

use super::{Failure, Params};

/// The one that the parameter `federation` names, by its id; without it the only one there is.
pub(super) async fn chosen(gateway: &Gateway, params: &Params) -> Result<FederationId, Failure> {
    let served = gateway.federations().await.map_err(|error| Failure::failed(error.to_string()))?;
    match (params.text("federation")?, served.as_slice()) {
        (Some(id), served) => {
            let found = served.iter().find(|federation| federation.id.to_string() == id);
            found.map(|federation| federation.id).ok_or_else(|| {
                Failure::params("this gateway serves no federation with that id: see fedgw-status")
            })
        }
        (None, [federation]) => Ok(federation.id),
        (None, []) => Err(Failure::not_ready("this gateway serves no federation yet: see fedgw-connect")),
        (None, _) => Err(Failure::params("this gateway serves several federations: give 'federation'")),
    }
}

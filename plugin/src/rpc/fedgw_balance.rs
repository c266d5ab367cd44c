//! `fedgw-balance`: what the gateway can pay with.

use futures::FutureExt;
use serde_json::json;

use super::{Command, Failure};

pub(super) fn command() -> Command {
    Command {
        name: "fedgw-balance",
        usage: "",
        description: "Show the gateway's e-cash in each federation, and what its node holds.",
        run: |app, _| {
            async move {
                let gateway = app.gateway.get()?;
                let failed = |error: String| Failure::failed(error);
                let federations = gateway.federations().await.map_err(|error| failed(error.to_string()))?;
                let node = gateway.node().balances().await.map_err(|error| failed(error.to_string()))?;
                let ecash = federations.iter().map(|federation| {
                    json!({
                        "federation_id": federation.id,
                        "name": federation.name,
                        "balance_msat": federation.balance,
                    })
                });
                Ok(json!({
                    "ecash": ecash.collect::<Vec<_>>(),
                    "onchain_msat": node.onchain_sat.saturating_mul(1000),
                    "outbound_msat": node.outbound_msat,
                    "inbound_msat": node.inbound_msat,
                }))
            }
            .boxed()
        },
    }
}

//! `fedgw-deposit`: e-cash for the node's coins.

use futures::FutureExt;
use gateway::node::OnchainSendRequest;
use serde_json::json;

use super::federation::chosen;
use super::{Command, Failure, Params};
use crate::app::App;

pub(super) fn command() -> Command {
    Command {
        name: "fedgw-deposit",
        usage: "amount_msat [federation]",
        description: "Send coins of the node's wallet to the federation, and get e-cash for them once they are final. \
                      Each call sends again.",
        run: |app, params| run(app, params).boxed(),
    }
}

async fn run(app: App, params: Params) -> Result<serde_json::Value, Failure> {
    let amount_sat =
        params.whole_sat("amount_msat")?.ok_or_else(|| Failure::params("missing parameter 'amount_msat'"))?;
    let gateway = app.gateway.get()?;
    let federation = chosen(&gateway, &params).await?;
    let failed = |error: String| Failure::failed(error);
    let deposit = gateway.deposit(federation).await.map_err(|error| failed(error.to_string()))?;
    if amount_sat < deposit.minimum_sat {
        return Err(Failure::params(format!("'amount_msat' must be at least {}sat", deposit.minimum_sat)));
    }
    let address =
        deposit.address.parse().map_err(|_| failed("the federation's address cannot be read".to_owned()))?;
    let request = OnchainSendRequest { address, amount_sat, fee_rate_sat_per_kwu: None };
    let txid = gateway.node().onchain_send(request).await.map_err(|error| failed(error.to_string()))?;
    Ok(json!({
        "txid": txid,
        "address": deposit.address,
        "amount_msat": amount_sat.saturating_mul(1000),
        "confirmations": deposit.confirmations,
    }))
}

//! `fedgw-withdraw`: the node's coins for e-cash.

use futures::FutureExt;

use super::federation::chosen;
use super::{Command, Failure, Params, to_json};
use crate::app::App;

pub(super) fn command() -> Command {
    Command {
        name: "fedgw-withdraw",
        usage: "amount_msat [federation] [max_fee_msat]",
        description: "Turn the gateway's e-cash into coins of the node's wallet. The amount may be 'all'.",
        run: |app, params| run(app, params).boxed(),
    }
}

async fn run(app: App, params: Params) -> Result<serde_json::Value, Failure> {
    let amount_sat = match params.text("amount_msat") {
        Ok(Some(text)) if text == "all" => None,
        _ => params.whole_sat("amount_msat")?,
    };
    let max_fee_sat = params.whole_sat("max_fee_msat")?;
    let gateway = app.gateway.get()?;
    let federation = chosen(&gateway, &params).await?;
    let failed = |error: String| Failure::failed(error);
    let address = gateway.node().onchain_address().await.map_err(|error| failed(error.to_string()))?;
    let done = gateway.withdraw(federation, &address.to_string(), amount_sat, max_fee_sat).await;
    to_json(done.map_err(|error| failed(error.to_string()))?)
}

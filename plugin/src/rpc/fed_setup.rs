//! `fed-setup`: this guardian's own setup code.

use federation_guardian::FederationParams;
use futures::FutureExt;
use serde_json::json;

use super::{Command, Failure, Params};
use crate::app::App;

pub(super) fn command() -> Command {
    Command {
        name: "fed-setup",
        usage: "name [federation] [guardians] [finality]",
        description: "Make this guardian's keys and show its setup code. The founder also gives the federation's name \
                      and its number of guardians (1 to 20); all others leave these out.",
        run: |app, params| run(app, params).boxed(),
    }
}

async fn run(app: App, params: Params) -> Result<serde_json::Value, Failure> {
    let name = params.required_text("name")?;
    let federation = params.text("federation")?;
    let guardians = params.number::<u16>("guardians")?;
    let finality = params.number::<u32>("finality")?;
    let guardian = app.guardian.get()?;
    let network = app.options().map(|options| options.network);
    let federation = match (federation, guardians, network) {
        (None, None, _) if finality.is_none() => None,
        (Some(federation), Some(guardians), Some(network)) => {
            let defaults = FederationParams::new(&federation, guardians, network);
            let params = FederationParams { finality: finality.unwrap_or(defaults.finality), ..defaults };
            params.check().map_err(|error| Failure::params(error.to_string()))?;
            Some(params)
        }
        _ => {
            return Err(Failure::params(
                "the founder gives both 'federation' and 'guardians', all others neither",
            ));
        }
    };
    let code = guardian.setup_code(&name, federation).await;
    Ok(json!({ "code": code.map_err(|error| Failure::failed(error.to_string()))? }))
}

//! `fedgw-receive-ecash`: e-cash for the gateway to work with.

use futures::FutureExt;
use serde_json::json;

use super::{Command, Failure};

pub(super) fn command() -> Command {
    Command {
        name: "fedgw-receive-ecash",
        usage: "ecash",
        description: "Take an e-cash string of a federation that this gateway serves into its wallet, to pay users with.",
        run: |app, params| {
            async move {
                let ecash = params.required_text("ecash")?;
                let received = app.gateway.get()?.receive_ecash(&ecash).await;
                let amount = received.map_err(|error| Failure::failed(error.to_string()))?;
                Ok(json!({ "amount_msat": amount }))
            }
            .boxed()
        },
    }
}

//! `fed-invite`: the code that users join by.

use futures::FutureExt;
use serde_json::json;

use super::{Command, Failure};

pub(super) fn command() -> Command {
    Command {
        name: "fed-invite",
        usage: "",
        description: "Show the invite code that users join the federation by.",
        run: |app, _| {
            async move {
                let invite =
                    app.guardian.get()?.invite().map_err(|error| Failure::not_ready(error.to_string()))?;
                Ok(json!({ "invite": invite.to_string(), "federation_id": invite.federation.to_string() }))
            }
            .boxed()
        },
    }
}

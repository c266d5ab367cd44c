//! `fed-setup-peer`: another guardian's setup code.

use futures::FutureExt;

use super::{Command, Failure, to_json};

pub(super) fn command() -> Command {
    Command {
        name: "fed-setup-peer",
        usage: "code",
        description: "Add the setup code of another guardian of the new federation.",
        run: |app, params| {
            async move {
                let code = params.required_text("code")?;
                let status = app.guardian.get()?.add_peer(&code).await;
                to_json(status.map_err(|error| Failure::failed(error.to_string()))?)
            }
            .boxed()
        },
    }
}

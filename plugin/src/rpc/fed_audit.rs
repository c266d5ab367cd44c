//! `fed-audit`: what the federation has and owes.

use futures::FutureExt;

use super::{Command, Failure, to_json};

pub(super) fn command() -> Command {
    Command {
        name: "fed-audit",
        usage: "",
        description: "Show what the federation has and what it owes, by module.",
        run: |app, _| {
            async move {
                let audit = app.guardian.get()?.audit().await;
                to_json(audit.map_err(|error| Failure::not_ready(error.to_string()))?)
            }
            .boxed()
        },
    }
}

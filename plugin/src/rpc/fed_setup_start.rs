//! `fed-setup-start`: begins the key generation.

use futures::FutureExt;

use super::{Command, Failure, to_json};

pub(super) fn command() -> Command {
    Command {
        name: "fed-setup-start",
        usage: "",
        description: "Start the key generation with the other guardians. It runs once all have started it; see fed-setup-status.",
        run: |app, _| {
            async move {
                let status = app.guardian.get()?.start_setup().await;
                to_json(status.map_err(|error| Failure::failed(error.to_string()))?)
            }
            .boxed()
        },
    }
}

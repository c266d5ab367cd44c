//! `fed-status`: the guardian at a glance.

use federation_guardian::SetupPhase;
use futures::FutureExt;
use serde_json::json;

use super::{Command, Failure, to_json};

pub(super) fn command() -> Command {
    Command {
        name: "fed-status",
        usage: "",
        description: "Show the guardian: its federation, epoch, links to the other guardians, and alarms.",
        run: |app, _| {
            async move {
                let role = app.guardian.to_json();
                let version = env!("CARGO_PKG_VERSION");
                // Off, starting or failed is a status too, and no error.
                let Ok(guardian) = app.guardian.get() else {
                    return Ok(json!({ "version": version, "guardian": role }));
                };
                let setup = guardian.setup_status().await;
                if setup.phase != SetupPhase::Done || guardian.running().is_err() {
                    return Ok(json!({ "version": version, "guardian": role, "setup": to_json(setup)? }));
                }
                let status = guardian.status().await.map_err(|error| Failure::failed(error.to_string()))?;
                Ok(json!({ "version": version, "guardian": role, "federation": to_json(status)? }))
            }
            .boxed()
        },
    }
}

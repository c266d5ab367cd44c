//! `fedgw-connect`: serves a federation.

use federation_core::invite::InviteCode;
use futures::FutureExt;

use super::{Command, Failure, to_json};

pub(super) fn command() -> Command {
    Command {
        name: "fedgw-connect",
        usage: "invite",
        description: "Join a federation by its invite code, and be a gateway of it.",
        run: |app, params| {
            async move {
                let invite = params.required_text("invite")?;
                invite.parse::<InviteCode>().map_err(|error| Failure::params(error.to_string()))?;
                let summary = app.gateway.get()?.connect(&invite).await;
                to_json(summary.map_err(|error| Failure::failed(error.to_string()))?)
            }
            .boxed()
        },
    }
}

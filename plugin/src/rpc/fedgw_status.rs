//! `fedgw-status`: the gateway at a glance.

use futures::FutureExt;
use serde_json::json;

use super::{Command, Failure, to_json};

pub(super) fn command() -> Command {
    Command {
        name: "fedgw-status",
        usage: "",
        description: "Show the gateway: its federations, swaps, held HTLCs and alarms.",
        run: |app, _| {
            async move {
                let mut status = json!({
                    "version": env!("CARGO_PKG_VERSION"),
                    "gateway": app.gateway.to_json(),
                    "held_htlcs": app.hook.waiting(),
                });
                if let (Ok(gateway), Some(fields)) = (app.gateway.get(), status.as_object_mut()) {
                    let status =
                        gateway.status().await.map_err(|error| Failure::failed(error.to_string()))?;
                    fields.insert("status".to_owned(), to_json(status)?);
                }
                Ok(status)
            }
            .boxed()
        },
    }
}

//! `fedgw-status`: the gateway at a glance.

use futures::FutureExt;
use serde_json::json;

use super::{Command, Failure};

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
                    fields.insert("status".to_owned(), gateway.status().await.map_err(Failure::failed)?);
                }
                Ok(status)
            }
            .boxed()
        },
    }
}

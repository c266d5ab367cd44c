//! `fedgw-balance`: what the gateway can pay with.

use futures::FutureExt;

use super::{Command, Failure};

pub(super) fn command() -> Command {
    Command {
        name: "fedgw-balance",
        usage: "",
        description: "Show the gateway's e-cash in each federation, and what its node holds.",
        run: |app, _| async move { app.gateway.get()?.balance().await.map_err(Failure::failed) }.boxed(),
    }
}

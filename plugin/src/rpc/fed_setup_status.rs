//! `fed-setup-status`: how far the setup is.

use futures::FutureExt;

use super::{Command, to_json};

pub(super) fn command() -> Command {
    Command {
        name: "fed-setup-status",
        usage: "",
        description: "Show how far the setup of the federation is, and which guardians are known.",
        run: |app, _| async move { to_json(app.guardian.get()?.setup_status().await) }.boxed(),
    }
}

//! `ecash join INVITE`

use std::fmt;

use federation_client::{ClientError, Folder, Result};
use federation_core::FederationId;
use federation_core::invite::{InviteCode, InviteError};
use serde::Serialize;

use crate::output::print;
use crate::progress::Progress;

/// Join a federation.
#[derive(Debug, clap::Args)]
pub struct Join {
    /// The invite code, from a guardian: clnfed1…
    invite: String,
}

#[derive(Serialize)]
struct Output {
    federation_id: FederationId,
    name: String,
    network: String,
    guardians: usize,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "joined {} ({} guardians, {})", self.name, self.guardians, self.network)?;
        writeln!(f, "federation {}", self.federation_id)?;
        write!(f, "write down the words that `ecash words` shows: they are the only backup")
    }
}

/// An invite code that somebody has typed or pasted.
pub fn parse_invite(text: &str) -> Result<InviteCode> {
    text.parse().map_err(|error: InviteError| ClientError::Refused {
        code: "bad_invite".to_owned(),
        detail: error.to_string(),
    })
}

pub async fn run(folder: &Folder, join: &Join, json: bool) -> Result<()> {
    let invite = parse_invite(&join.invite)?;
    let progress = Progress::new("fetching the federation's configuration");
    let client = folder.join(&invite).await?;
    drop(progress);
    let config = client.config();
    let output = Output {
        federation_id: client.federation_id(),
        name: config.name.clone(),
        network: config.network.to_string(),
        guardians: config.guardians.len(),
    };
    print(&output, json)
}

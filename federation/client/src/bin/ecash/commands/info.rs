//! `ecash info`

use std::fmt;
use std::time::Duration;

use federation_client::api::Request;
use federation_client::ops::now;
use federation_client::{Client, Result};
use federation_core::rest::StatusResponse;
use federation_core::{Amount, FederationId, PeerId};
use serde::Serialize;

use crate::output::{print, sat};
use crate::progress::Progress;

#[derive(Serialize)]
struct Guardian {
    peer: PeerId,
    up: bool,
    /// Its version, or why it is down.
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    alarms: Vec<String>,
}

#[derive(Serialize)]
struct Output {
    federation_id: FederationId,
    name: String,
    network: String,
    /// How many guardians it takes to sign.
    threshold: usize,
    fee_in_msat: Amount,
    fee_out_msat: Amount,
    min_deposit_sat: u64,
    confirmations: u32,
    guardians: Vec<Guardian>,
    backup: Backup,
}

/// What the guardians keep of what the words do not give.
#[derive(Serialize)]
struct Backup {
    /// Something has happened that it does not have.
    behind: bool,
    /// When enough guardians took one last, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<u64>,
    /// How many took the last one.
    kept_by: u16,
    #[serde(skip_serializing_if = "String::is_empty")]
    problem: String,
}

impl fmt::Display for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ago = self.time.map(|time| now().as_secs().saturating_sub(time) / 60);
        match (self.behind, ago) {
            (false, None) => write!(f, "none is needed so far")?,
            (true, None) => write!(f, "none yet")?,
            (behind, Some(minutes)) => {
                write!(f, "{minutes} min ago, kept by {} guardians", self.kept_by)?;
                if behind {
                    write!(f, "; not up to date")?;
                }
            }
        }
        if !self.problem.is_empty() {
            write!(f, "; {}", self.problem)?;
        }
        Ok(())
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({})", self.name, self.network)?;
        writeln!(f, "federation    {}", self.federation_id)?;
        writeln!(f, "guardians     {} of {} sign together", self.threshold, self.guardians.len())?;
        writeln!(f, "fee a note    {} in, {} out", sat(self.fee_in_msat), sat(self.fee_out_msat))?;
        writeln!(f, "deposits      from {} sat, {} confirmations", self.min_deposit_sat, self.confirmations)?;
        writeln!(f, "backup        {}", self.backup)?;
        for guardian in &self.guardians {
            let state = if guardian.up { "up" } else { "down" };
            writeln!(f, "guardian {:<4} {state}, {}", guardian.peer.to_string(), guardian.detail)?;
            for alarm in &guardian.alarms {
                writeln!(f, "              alarm: {alarm}")?;
            }
        }
        Ok(())
    }
}

pub async fn run(client: &Client, json: bool) -> Result<()> {
    let progress = Progress::new("asking the guardians");
    let answers = client.api().all(&Request::get("/v1/status"), Duration::ZERO).await;
    drop(progress);
    let guardians = answers.into_iter().map(|(peer, answer)| {
        let status = answer.map_err(|error| error.to_string()).and_then(|value| {
            serde_json::from_value::<StatusResponse>(value).map_err(|error| error.to_string())
        });
        match status {
            Ok(status) => Guardian {
                peer,
                up: true,
                detail: format!("version {}", status.version),
                epoch: Some(status.epoch),
                alarms: status.alarms,
            },
            Err(detail) => Guardian { peer, up: false, detail, epoch: None, alarms: Vec::new() },
        }
    });
    let backup = client.backup_status().await?;
    let (config, (_, mint), (_, wallet)) = (client.config(), client.mint(), client.wallet());
    let output = Output {
        federation_id: client.federation_id(),
        name: config.name.clone(),
        network: config.network.to_string(),
        threshold: config.threshold(),
        fee_in_msat: mint.fee_in,
        fee_out_msat: mint.fee_out,
        min_deposit_sat: wallet.params.min_deposit_sat,
        confirmations: wallet.params.finality,
        guardians: guardians.collect(),
        backup: Backup {
            behind: backup.is_due,
            time: (backup.last.at > 0).then_some(backup.last.at),
            kept_by: backup.last.kept_by,
            problem: backup.last.problem,
        },
    };
    print(&output, json)
}

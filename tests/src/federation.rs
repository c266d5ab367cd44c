//! A federation of real `guardiand` processes.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use federation_core::rest::{AuditResponse, StatusResponse};
use serde::de::DeserializeOwned;

use crate::{Bitcoind, Network, Process, Sandbox, Spec, binaries, ports, wait_for};

/// How long the key generation of seven guardians may take on a busy machine.
const SETUP: Duration = Duration::from_secs(120);
/// Epochs between snapshots where guardians lose their disks: few, so that what is older is forgotten within minutes.
const SNAPSHOT_INTERVAL: u64 = 50;

/// Guardians in the order in which they were started; their numbers in the federation may differ.
pub struct Federation {
    /// The guardians.
    pub guardians: Vec<Guardian>,
    /// What users join with.
    pub invite: String,
}

/// One `guardiand`.
pub struct Guardian {
    /// Its process.
    pub process: Process,
    /// The base URL of its API.
    pub url: String,
    /// The folder of its state.
    pub data_dir: PathBuf,
    plan: Plan,
}

#[derive(Clone)]
struct Plan {
    name: String,
    url: String,
    program: PathBuf,
    args: Vec<String>,
    data_dir: PathBuf,
}

impl Federation {
    /// Sets up and starts `n` guardians on SQLite.
    pub async fn start(sandbox: &Sandbox, bitcoind: &Bitcoind, n: usize) -> Result<Self> {
        Self::start_on(sandbox, bitcoind, &vec![None; n]).await
    }

    /// The same with a store's URL for each guardian, where it is not to be SQLite.
    pub async fn start_on(sandbox: &Sandbox, bitcoind: &Bitcoind, stores: &[Option<String>]) -> Result<Self> {
        Self::start_over(sandbox, bitcoind, stores, None, &[]).await
    }

    /// The same with a state snapshot after every so many epochs.
    pub async fn start_with_snapshots(
        sandbox: &Sandbox,
        bitcoind: &Bitcoind,
        stores: &[Option<String>],
        interval: u64,
    ) -> Result<Self> {
        let interval = format!("--snapshot-interval={interval}");
        Self::start_over(sandbox, bitcoind, stores, None, &[interval]).await
    }

    /// The same with links that go through proxies, so that they can be cut; and with guardians whose disk can be made full.
    pub async fn start_proxied(
        sandbox: &Sandbox,
        bitcoind: &Bitcoind,
        stores: &[Option<String>],
    ) -> Result<(Self, Network)> {
        let network = Network::start(stores.len()).await?;
        let federation = Self::start_over(sandbox, bitcoind, stores, Some(&network), &[]).await?;
        Ok((federation, network))
    }

    async fn start_over(
        sandbox: &Sandbox,
        bitcoind: &Bitcoind,
        stores: &[Option<String>],
        network: Option<&Network>,
        extra: &[String],
    ) -> Result<Self> {
        let program = binaries::find("guardiand")?;
        let passphrase = sandbox.path().join("passphrase");
        std::fs::write(&passphrase, "regtest")?;
        let credentials = sandbox.path().join("bitcoind-password");
        std::fs::write(&credentials, credentials_of(bitcoind)?)?;
        let mut plans = Vec::new();
        for (i, store) in stores.iter().enumerate() {
            let api = ports::free_port()?;
            let data_dir = sandbox.folder(&format!("guardian-{i}"))?;
            let mut args = vec![
                "--network=regtest".to_owned(),
                format!("--data-dir={}", data_dir.display()),
                format!("--passphrase-file={}", passphrase.display()),
                format!("--api-bind=127.0.0.1:{api}"),
            ];
            match network.and_then(|network| network.addresses(i)) {
                Some((bind, address)) => {
                    args.extend([format!("--link-bind={bind}"), format!("--link-address={address}")]);
                    args.push(format!("--snapshot-interval={SNAPSHOT_INTERVAL}"));
                }
                None => args.push(format!("--link-bind=127.0.0.1:{}", ports::free_port()?)),
            }
            args.extend_from_slice(extra);
            args.extend(store.as_ref().map(|url| format!("--store={url}")));
            plans.push(Plan {
                name: format!("guardian-{i}"),
                url: format!("http://127.0.0.1:{api}"),
                program: program.clone(),
                args,
                data_dir,
            });
        }
        let mut codes = Vec::new();
        for (i, plan) in plans.iter().enumerate() {
            let mut command = vec!["setup".to_owned(), format!("--name={}", plan.name)];
            if i == 0 {
                command.extend(["--federation=regtest".to_owned(), format!("--guardians={}", plans.len())]);
            }
            codes.push(plan.output(&command).await?);
        }
        for (i, plan) in plans.iter().enumerate() {
            let mut command = vec!["add-peer".to_owned()];
            command.extend(codes.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, code)| code.clone()));
            if command.len() > 1 {
                plan.output(&command).await?;
            }
        }
        let mut guardians = Vec::new();
        for plan in plans {
            let log = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
            let mut spec: Spec = sandbox
                .spec(&plan.name, &program)
                .env("RUST_LOG", log)
                .args(&plan.args)
                .arg("run")
                .arg(format!("--bitcoind-url={}", bitcoind.url()))
                .arg(format!("--bitcoind-password-file={}", credentials.display()));
            if network.is_some() {
                spec = spec.outlives_limit();
            }
            let (url, data_dir) = (plan.url.clone(), plan.data_dir.clone());
            guardians.push(Guardian { process: spec.start()?, url, data_dir, plan });
        }
        for guardian in &guardians {
            guardian.ready().await?;
        }
        let first = guardians.first().context("a federation needs a guardian")?;
        let invite = first.command(&["invite"]).await?;
        Ok(Self { guardians, invite })
    }

    /// The audit, once all running guardians have applied the same epochs.
    pub async fn audit(&self) -> Result<AuditResponse> {
        self.settled().await?;
        for guardian in &self.guardians {
            if let Ok(audit) = guardian.get("/v1/audit").await {
                return Ok(audit);
            }
        }
        bail!("no guardian answers")
    }

    /// Waits until all running guardians have applied the same epochs, and says how many.
    pub async fn settled(&self) -> Result<u64> {
        wait_for("all guardians at the same epoch", Duration::from_secs(30), || async {
            let mut epochs = Vec::new();
            for guardian in &self.guardians {
                if guardian.process.exited()?.is_none() {
                    epochs.push(guardian.status().await?.epoch);
                }
            }
            epochs.sort_unstable();
            Ok(epochs.first().copied().filter(|first| epochs.last() == Some(first)))
        })
        .await
    }

    /// Leaves all running when this value goes.
    pub fn leave(self) {
        for guardian in self.guardians {
            guardian.process.leave();
        }
    }
}

impl Guardian {
    /// `GET` of its API.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let response = reqwest::get(format!("{}{path}", self.url)).await?;
        if !response.status().is_success() {
            bail!("{path}: {}", response.text().await?);
        }
        Ok(response.json().await?)
    }

    /// Runs `guardiand` with this guardian's folder and addresses for another command; what it prints.
    pub async fn command(&self, command: &[&str]) -> Result<String> {
        let command: Vec<String> = command.iter().map(|part| (*part).to_owned()).collect();
        self.plan.output(&command).await
    }

    /// Its status.
    pub async fn status(&self) -> Result<StatusResponse> {
        self.get("/v1/status").await
    }

    /// Waits until the federation runs in it.
    pub async fn ready(&self) -> Result<StatusResponse> {
        self.process.wait_ready(SETUP, || async { Ok(Some(self.status().await?)) }).await
    }
}

impl Plan {
    /// What another run of the program, beside the guardian's own process, prints.
    async fn output(&self, command: &[String]) -> Result<String> {
        let output = tokio::process::Command::new(&self.program)
            .args(&self.args)
            .args(command)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        if !output.status.success() {
            bail!("guardiand {}: {}", command.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

fn credentials_of(bitcoind: &Bitcoind) -> Result<String> {
    let url = bitcoind.url_with_credentials();
    let credentials = url.split_once("//").and_then(|(_, rest)| rest.split_once('@'));
    Ok(credentials.context("no credentials")?.0.to_owned())
}

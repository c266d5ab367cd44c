//! The real `ecash` command line, one wallet a folder.

use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::{Sandbox, binaries};

/// No command of a healthy federation takes this long.
const LIMIT: Duration = Duration::from_secs(90);

/// A user's wallet.
pub struct Ecash {
    /// Whose it is.
    pub name: String,
    program: PathBuf,
    folder: PathBuf,
}

/// What `ecash --json` says when it refuses.
#[derive(Debug)]
pub struct Refusal {
    /// The stable code.
    pub code: String,
    /// The sentence.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for Refusal {}

impl Ecash {
    /// A wallet that is to be: nothing is in its folder.
    pub fn unborn(sandbox: &Sandbox, name: &str) -> Result<Self> {
        let folder = sandbox.path().join(format!("wallet-{name}"));
        Ok(Self { name: name.to_owned(), program: binaries::find("ecash")?, folder })
    }

    /// A new wallet that has joined.
    pub async fn join(sandbox: &Sandbox, name: &str, invite: &str) -> Result<Self> {
        let wallet = Self::unborn(sandbox, name)?;
        wallet.run(&["join", invite]).await?;
        Ok(wallet)
    }

    /// The wallet's folder.
    pub fn folder(&self) -> &PathBuf {
        &self.folder
    }

    /// Runs a command; the last line of JSON that it prints. A refusal is a [`Refusal`].
    pub async fn run(&self, args: &[&str]) -> Result<Value> {
        self.run_with(args, "").await
    }

    /// The same with something on its standard input.
    pub async fn run_with(&self, args: &[&str], input: &str) -> Result<Value> {
        let mut child = tokio::process::Command::new(&self.program)
            .arg("--json")
            .arg("--data-dir")
            .arg(&self.folder)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        let shown =
            || format!("{}: ecash {}", self.name, args.join(" ").chars().take(120).collect::<String>());
        let output = tokio::time::timeout(LIMIT, child.wait_with_output())
            .await
            .with_context(|| format!("{} did not end in {} s", shown(), LIMIT.as_secs()))??;
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if !output.status.success() {
            let line = stderr.lines().last().unwrap_or_default();
            let Ok(refusal) = serde_json::from_str::<Value>(line) else { bail!("{}: {stderr}", shown()) };
            let text = |key: &str| refusal.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            return Err(Refusal { code: text("code"), message: text("message") }).with_context(shown);
        }
        let stdout = String::from_utf8(output.stdout)?;
        let line = stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).with_context(|| format!("{} printed no JSON: {stdout}", shown()))
    }

    /// A command that must be refused, with what it says.
    pub async fn refused(&self, args: &[&str]) -> Result<Refusal> {
        match self.run(args).await {
            Ok(value) => bail!("{}: ecash {} was not refused: {value}", self.name, args.join(" ")),
            Err(error) => error.downcast::<Refusal>(),
        }
    }

    /// What can be spent, in msat.
    pub async fn balance(&self) -> Result<u64> {
        number(&self.run(&["balance"]).await?, "balance_msat")
    }
}

/// A number of a JSON object.
pub fn number(value: &Value, key: &str) -> Result<u64> {
    value.get(key).and_then(Value::as_u64).with_context(|| format!("no number {key} in {value}"))
}

/// A text of a JSON object.
pub fn text(value: &Value, key: &str) -> Result<String> {
    let found =
        value.get(key).and_then(Value::as_str).with_context(|| format!("no text {key} in {value}"))?;
    Ok(found.to_owned())
}

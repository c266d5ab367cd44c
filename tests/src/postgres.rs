//! A private PostgreSQL cluster on a loopback port.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::TcpStream;

use crate::ports::free_port;
use crate::{Process, Sandbox, Signal, Spec, binaries};

const START: Duration = Duration::from_secs(60);

/// A server whose superuser `postgres` needs no password.
pub struct Postgres {
    process: Process,
    bin: PathBuf,
    port: u16,
    /// How `createdb` and `dropdb` are started.
    client: Spec,
    drop: Spec,
}

/// Whom PostgreSQL runs as if this is root, which it refuses: Debian's user for it, else nobody. By user and group id.
fn ordinary_user(own_uid: u32) -> Result<Option<(u32, u32)>> {
    if own_uid != 0 {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let ids = |name: &str| {
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == name).then_some(())?;
            Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
        })
    };
    ids("postgres").or_else(|| ids("nobody")).map(Some).context("no user to run PostgreSQL as")
}

/// The folder of the server's programs: `PG_BIN` in the environment, else what `contrib/lib/tools.sh` finds or downloads.
fn programs() -> Result<PathBuf> {
    match std::env::var_os("PG_BIN") {
        Some(path) => Ok(path.into()),
        None => binaries::script("tools.sh", &["postgres"]),
    }
}

impl Postgres {
    /// Makes a cluster and starts it.
    pub async fn start(sandbox: &Sandbox) -> Result<Self> {
        let bin = tokio::task::spawn_blocking(programs).await??;
        let (data, port) = (sandbox.folder("postgres")?, free_port()?);
        let user = ordinary_user(data.metadata()?.uid())?;
        if let Some((user, group)) = user {
            chown(&data, Some(user), Some(group))?;
        }
        let spec = |name: &str, program: &str| {
            sandbox.spec(name, bin.join(program)).user(user).env("LC_ALL", "C.UTF-8")
        };
        spec("postgres-initdb", "initdb")
            .args([Path::new("-D"), &data])
            .args(["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync", "--no-instructions"])
            .run(START)
            .await?;
        let process = spec("postgres", "postgres")
            .args([Path::new("-D"), &data])
            // It is killed here, but the machine isn't: what the kernel has is safe.
            .args(["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .arg(format!("--port={port}"))
            .signals(Signal::Int, Signal::Quit)
            .start()?;
        let (client, drop) = (spec("postgres-createdb", "createdb"), spec("postgres-dropdb", "dropdb"));
        let postgres = Self { client, drop, process, bin, port };
        postgres.wait_ready().await?;
        Ok(postgres)
    }

    async fn wait_ready(&self) -> Result<()> {
        let port = self.port;
        let listens = || async move { Ok(Some(TcpStream::connect(("127.0.0.1", port)).await?)) };
        self.process.wait_ready(START, listens).await?;
        // It listens a little before it takes clients on.
        self.process
            .wait_ready(START, || async {
                let log = std::fs::read_to_string(self.process.log())?;
                let started = log.rsplit_once("starting PostgreSQL").map_or("", |(_, after)| after);
                Ok(started.contains("ready to accept connections").then_some(()))
            })
            .await
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The folder of `psql` and its like.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The URL of a database on it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes a database and returns its URL.
    pub async fn create_database(&self, name: &str) -> Result<String> {
        let port = self.port.to_string();
        let create = self.client.clone().args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port, name]);
        create.run(START).await?;
        Ok(self.url(name))
    }

    /// Makes a database anew, without anything in it. Its clients must be gone.
    pub async fn empty_database(&self, name: &str) -> Result<String> {
        let port = self.port.to_string();
        let drop = self.drop.clone().args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port]);
        drop.args(["--force", name]).run(START).await?;
        self.create_database(name).await
    }

    /// The bytes of a database on the disk.
    pub async fn size(&self, name: &str) -> Result<u64> {
        let port = self.port.to_string();
        let query = format!("SELECT pg_database_size('{name}')");
        let mut command = tokio::process::Command::new(self.bin.join("psql"));
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port, "-tAc", &query, name]);
        let output = command.kill_on_drop(true).output().await.context("can't run psql")?;
        let size = String::from_utf8_lossy(&output.stdout).trim().parse();
        size.with_context(|| format!("psql: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Ends it without waiting for its clients, and starts it again.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.stop().await?;
        self.process.restart()?;
        self.wait_ready().await
    }

    /// Lets it run on after this process.
    pub fn leave(self) {
        self.process.leave();
    }
}

//! One child process: started in a process group of its own, logging to a file, gone when this value is.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::future::Future;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::spawn::{spawn, which};
use crate::wait_for;

/// How many lines of a log are part of an error.
const TAIL: usize = 15;
/// How long a stopped process may take to end before it is killed.
const STOP: Duration = Duration::from_secs(30);

/// The signals that the harness sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// End in order.
    Term,
    /// As from the keyboard; PostgreSQL: end without waiting for clients.
    Int,
    /// PostgreSQL: end at once, without leaving shared memory behind.
    Quit,
    /// End now, whatever is half done.
    Kill,
    /// Freeze.
    Stop,
    /// Go on.
    Cont,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Int => "INT",
            Self::Quit => "QUIT",
            Self::Kill => "KILL",
            Self::Stop => "STOP",
            Self::Cont => "CONT",
        }
    }
}

/// How to start a process, and start it again.
#[derive(Clone, Debug)]
pub struct Spec {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    user: Option<(u32, u32)>,
    log: PathBuf,
    stop: Signal,
    /// Sent to it when this process ends without having stopped it.
    orphan: Option<Signal>,
    /// Whether a write over the [limit](Process::limit_files) is an error to it, rather than its end.
    outlives_limit: bool,
}

impl Spec {
    pub(crate) fn new(name: &str, program: impl AsRef<Path>, log: PathBuf, outlive: bool) -> Self {
        Self {
            name: name.to_owned(),
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            envs: Vec::new(),
            user: None,
            log,
            stop: Signal::Term,
            orphan: (!outlive).then_some(Signal::Kill),
            outlives_limit: false,
        }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// One more environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// As another user and group; needs root.
    #[must_use]
    pub fn user(mut self, ids: Option<(u32, u32)>) -> Self {
        self.user = ids;
        self
    }

    /// How it is stopped in order, and how when nobody is left to stop it.
    #[must_use]
    pub fn signals(mut self, stop: Signal, orphan: Signal) -> Self {
        self.stop = stop;
        self.orphan = self.orphan.map(|_| orphan);
        self
    }

    /// A write over the [limit](Process::limit_files) fails, as on a full disk, rather than ends it.
    #[must_use]
    pub fn outlives_limit(mut self) -> Self {
        self.outlives_limit = true;
        self
    }

    /// The command, in a process group of its own.
    fn command(&self) -> Result<Command> {
        let mut command = match which("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                if let Some((user, group)) = self.user {
                    command.args([format!("--reuid={user}"), format!("--regid={group}")]);
                    command.arg("--clear-groups");
                }
                command.arg(format!("--pdeathsig={}", self.orphan.map_or("clear", Signal::name)));
                command.arg("--");
                if self.outlives_limit {
                    // What a shell ignores, the program that it becomes ignores too.
                    command.args(["sh", "-c", r#"trap "" XFSZ; exec "$0" "$@""#]);
                }
                command.arg(&self.program);
                command
            }
            None if self.user.is_none() && self.orphan.is_none() && !self.outlives_limit => {
                Command::new(&self.program)
            }
            None => bail!("setpriv is missing (Debian's package util-linux)"),
        };
        command.args(&self.args).envs(self.envs.iter().map(|(name, value)| (name, value)));
        command.process_group(0).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs it to its end; an error shows the log's last lines.
    pub async fn run(self, within: Duration) -> Result<()> {
        let process = self.start()?;
        let status = process.wait_exit(within).await?;
        if status.success() { Ok(()) } else { Err(process.failure(&format!("ended with {status}"))) }
    }

    /// Starts it. Its output is appended to its log.
    pub fn start(self) -> Result<Process> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("can't write {}", self.log.display()))?;
        let mut command = self.command()?;
        command.stdout(log.try_clone()?).stderr(log);
        let child = spawn(command).with_context(|| format!("can't start {}", self.program.display()))?;
        Ok(Process { spec: self, child: Mutex::new(child), left: false })
    }
}

/// A running process. Dropping it kills it and all that it has started in its process group.
pub struct Process {
    spec: Spec,
    child: Mutex<Child>,
    left: bool,
}

impl Process {
    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it is called in errors and in its log's name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its process id, which is also its process group's.
    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.spec.log
    }

    /// How it ended; `None` while it runs.
    pub fn exited(&self) -> Result<Option<ExitStatus>> {
        Ok(self.child().try_wait()?)
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read(&self.spec.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().join("\n")
    }

    /// An error about it, with the last lines of its log.
    pub fn failure(&self, what: &str) -> anyhow::Error {
        anyhow!("{} {what}; its log {} ends:\n{}", self.name(), self.log().display(), self.log_tail())
    }

    /// Waits until `check` gives something: as [`wait_for`], but fails at once when the process has ended.
    pub async fn wait_ready<T, F>(&self, within: Duration, mut check: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<Option<T>>>,
    {
        let ready = wait_for("ready", within, || {
            let ended = self.exited();
            let check = check();
            async move {
                match ended? {
                    Some(status) => Ok(Some(Err(status))),
                    None => Ok(check.await?.map(Ok)),
                }
            }
        });
        match ready.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(status)) => Err(self.failure(&format!("ended with {status} while it started"))),
            Err(error) => Err(self.failure(&format!("did not start: {error}"))),
        }
    }

    /// Waits for its end.
    pub async fn wait_exit(&self, within: Duration) -> Result<ExitStatus> {
        let ended = wait_for("ended", within, || async { self.exited() }).await;
        ended.map_err(|_| self.failure("has not ended"))
    }

    /// Sends a signal to it alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // Once it is reaped, its number may be another's.
        let mut child = self.child();
        if child.try_wait()?.is_some() {
            bail!("{} has ended", self.spec.name);
        }
        send(signal, &child.id().to_string())
    }

    /// From now on no file of its may grow over this many bytes: for it, the disk is full.
    pub fn limit_files(&self, bytes: u64) -> Result<()> {
        let mut child = self.child();
        if child.try_wait()?.is_some() {
            bail!("{} has ended", self.spec.name);
        }
        let mut command = Command::new("prlimit");
        command.args([format!("--pid={}", child.id()), format!("--fsize={bytes}:")]);
        let status = command.status().context("can't run prlimit (Debian's package util-linux)")?;
        if status.success() { Ok(()) } else { Err(anyhow!("prlimit for {} failed", self.spec.name)) }
    }

    /// Asks it to end, waits for that, and kills it if it takes too long, which is an error.
    pub async fn stop(&self) -> Result<ExitStatus> {
        if let Some(status) = self.exited()? {
            return Ok(status);
        }
        self.signal(self.spec.stop)?;
        match self.wait_exit(STOP).await {
            Ok(status) => Ok(status),
            Err(_) => {
                self.kill();
                Err(self.failure("did not stop when asked"))
            }
        }
    }

    /// Kills it with all that it has started in its process group, and waits for its end: as a power cut would.
    pub fn kill(&self) {
        let mut child = self.child();
        // Not reaped yet, so the group's number is still its own.
        if matches!(child.try_wait(), Ok(None)) {
            let _ = send(Signal::Kill, &format!("-{}", child.id()));
            let _ = child.wait();
        }
    }

    /// Starts it again with the same arguments, killing what still runs.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        *self = self.spec.clone().start()?;
        Ok(())
    }

    /// Lets it run on after this process; the [`Sandbox`](crate::Sandbox) must have been told before.
    pub fn leave(mut self) {
        self.left = true;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        // PostgreSQL's children are not in its group: they end with it only if it has the time to tell them.
        if self.spec.orphan != Some(Signal::Kill)
            && let Some(signal) = self.spec.orphan
            && self.signal(signal).is_ok()
        {
            for _ in 0..200 {
                if !matches!(self.exited(), Ok(None)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        self.kill();
    }
}

/// By the shell's own `kill`: minimal systems have no program of that name.
fn send(signal: Signal, to: &str) -> Result<()> {
    let script = r#"kill -s "$0" -- "$1""#;
    let status = Command::new("sh").args(["-c", script, signal.name(), to]).stderr(Stdio::null()).status();
    if status?.success() { Ok(()) } else { Err(anyhow!("could not send {} to {to}", signal.name())) }
}

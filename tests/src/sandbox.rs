//! The folder that a test's processes live in.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::Spec;

const PREFIX: &str = "clnfed-";
/// Holds the process id of the folder's owner, unless the folder is to be kept.
const OWNER: &str = "owner";
/// After how long a folder is removed whose owner was killed: long enough to look into it.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A temporary folder. It is removed with this value, unless the test has failed, `KEEP_SANDBOX=1` is set or
/// [`keep`](Self::keep) was called: then it is said where it is.
///
/// Declare it before the processes in it, so that it goes after them.
pub struct Sandbox {
    dir: Option<TempDir>,
    path: PathBuf,
    outlive: bool,
    kept: AtomicBool,
}

impl Sandbox {
    /// A new folder; its name shows whose it is.
    pub fn new(name: &str) -> Result<Self> {
        // Short, because lightningd's socket in it may have a path of 107 bytes at most.
        sweep();
        let dir = tempfile::Builder::new().prefix(&format!("{PREFIX}{name}-")).tempdir();
        let dir = dir.context("no temporary folder: is the disk full?")?;
        // PostgreSQL runs as another user when this is root, and has its own folder in here.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o711))?;
        fs::write(dir.path().join(OWNER), std::process::id().to_string())?;
        Ok(Self { path: dir.path().to_owned(), dir: Some(dir), outlive: false, kept: AtomicBool::new(false) })
    }

    /// Processes that are started from now on may outlive this one; they do so if they are
    /// [left](crate::Process::leave).
    pub fn outlive_us(&mut self) {
        self.outlive = true;
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A folder in it, made if missing.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("can't make {}", path.display()))?;
        Ok(path)
    }

    /// How to start a program here; it logs to `NAME.log`.
    pub fn spec(&self, name: &str, program: impl AsRef<Path>) -> Spec {
        Spec::new(name, program, self.path.join(format!("{name}.log")), self.outlive)
    }

    /// Leaves the folder where it is when this value goes: something went wrong.
    pub fn keep_for_a_look(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Leaves the folder where it is.
    pub fn keep(&mut self) -> &Path {
        if let Some(dir) = self.dir.take() {
            let _ = fs::remove_file(dir.keep().join(OWNER));
        }
        &self.path
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let wanted = self.kept.load(Ordering::Relaxed)
            || std::thread::panicking()
            || std::env::var_os("KEEP_SANDBOX").is_some_and(|v| v == "1");
        if wanted && self.dir.is_some() {
            eprintln!("logs and data are kept in {}", self.keep().display());
        }
    }
}

/// Removes what killed processes have left: they could not do it themselves.
fn sweep() {
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let owner = entry.path().join(OWNER);
        let old = fs::metadata(&owner)
            .and_then(|owner| owner.modified())
            .is_ok_and(|time| time.elapsed().is_ok_and(|age| age > ABANDONED));
        let gone = || {
            let owner = fs::read_to_string(&owner).unwrap_or_default();
            !owner.is_empty() && !Path::new("/proc").join(owner).exists()
        };
        if old && gone() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

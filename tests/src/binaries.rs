//! Where this project's programs are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// One of this project's programs, such as `guardiand`: as the environment names it (`GUARDIAND`), else beside the
/// program that runs now, where Cargo has built it.
pub fn find(name: &str) -> Result<PathBuf> {
    let variable = name.to_ascii_uppercase().replace('-', "_");
    if let Some(path) = std::env::var_os(&variable) {
        return Ok(path.into());
    }
    let here = std::env::current_exe().context("this program does not know where it is")?;
    // Tests are one folder further down, in `deps`.
    for folder in here.ancestors().skip(1).take(2) {
        let path = folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!(
        "{name} is not built: run `cargo build --workspace --all-features --bins`, or name it in the environment \
         ({variable}=PATH)"
    )
}

/// Brings one of this project's programs up to date, if Cargo has started this one and the environment names none: Cargo
/// builds only what it is told to run, and a measure of what was built last week would be worth nothing.
pub fn build(name: &str, package: &str) -> Result<()> {
    let named = std::env::var_os(name.to_ascii_uppercase().replace('-', "_")).is_some();
    let Some(cargo) = std::env::var_os("CARGO").filter(|_| !named) else { return Ok(()) };
    eprintln!("building {name}");
    let mut command = Command::new(cargo);
    command.args(["build", "--package", package, "--bin", name]).current_dir(repository());
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    // Its output isn't this program's.
    let built = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    if built.success() { Ok(()) } else { bail!("{name} can't be built") }
}

/// The repository's root.
pub fn repository() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// What a script under `contrib/lib` prints. Takes minutes when it has to download something.
pub(crate) fn script(name: &str, args: &[&str]) -> Result<PathBuf> {
    let script = repository().join("contrib/lib").join(name);
    let output = Command::new(&script).args(args).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("can't run {}", script.display()))?;
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || printed.is_empty() {
        bail!("{} failed: {}", script.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(printed.into())
}

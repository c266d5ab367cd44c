//! Starts children so that none is left behind, without unsafe code.
//!
//! Linux can send a process a signal when its parent ends (`PR_SET_PDEATHSIG`), and util-linux's `setpriv` sets that up.
//! "Parent" is the thread that forked, so all forks are made by one thread that lives as long as this process.

use std::io;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{OnceLock, mpsc};
use std::thread;

type Job = (Command, mpsc::Sender<io::Result<Child>>);

fn forker() -> &'static mpsc::Sender<Job> {
    static FORKER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    FORKER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, answer) in queue {
                let _ = answer.send(command.spawn());
            }
        });
        jobs
    })
}

/// `command.spawn()` in the thread that never ends.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    let (answer, child) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts processes is gone");
    forker().send((command, answer)).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

/// A program by its name, in the folders of `PATH`.
pub fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

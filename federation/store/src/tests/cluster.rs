//! A private PostgreSQL on a loopback port, gone with the test.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BINARIES: &str = "/usr/lib/postgresql/15/bin";

/// A running server and its files.
pub struct Cluster {
    server: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

/// PostgreSQL refuses to run as root; and the kernel ends the server with the thread that started it.
fn as_ordinary_user(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if is_root() {
        command.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]);
    }
    command.arg(PathBuf::from(BINARIES).join(program)).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.starts_with(b"0\n")
}

impl Cluster {
    /// `None` if PostgreSQL is not installed.
    pub fn start() -> Option<Self> {
        if !Path::new(BINARIES).join("initdb").exists() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        if is_root() {
            assert!(Command::new("chown").arg("nobody").arg(dir.path()).status().unwrap().success());
        }
        let data = dir.path().join("data");
        let initdb = as_ordinary_user("initdb")
            .args(["--auth", "trust", "--username", "test", "--encoding", "UTF8", "--no-sync", "-D"])
            .arg(&data)
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(initdb.status.success(), "initdb: {}", String::from_utf8_lossy(&initdb.stderr));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = as_ordinary_user("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k"])
            .arg(dir.path())
            .current_dir(dir.path())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let ready = || {
            let mut ready = as_ordinary_user("pg_isready");
            ready.args(["-h", "127.0.0.1", "-U", "test", "-d", "postgres", "-p", &port.to_string()]);
            ready.status().unwrap().success()
        };
        while !ready() {
            assert!(server.try_wait().unwrap().is_none(), "the PostgreSQL server ended by itself");
            assert!(Instant::now() < deadline, "PostgreSQL does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(Self { server, port, _dir: dir })
    }

    pub fn url(&self) -> String {
        format!("postgres://test@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // `QUIT` is PostgreSQL's immediate shutdown: it takes its children along, `kill` would not.
        let _ = Command::new("kill").args(["-QUIT", &self.server.id().to_string()]).status();
        let _ = self.server.wait();
    }
}

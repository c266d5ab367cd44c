//! A regtest bitcoind and lightningds on free ports, in a temporary folder. All end with the test, also when it is killed.
#![allow(dead_code)]

use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// The longest that anything here takes.
const DEADLINE: Duration = Duration::from_secs(90);

/// Whether the tests can run. Without lightningd they are skipped, or fail if REQUIRE_LIGHTNINGD=1.
pub fn lightningd_is_here() -> bool {
    let here =
        Command::new("lightningd").arg("--version").output().is_ok_and(|output| output.status.success());
    if !here {
        assert_ne!(std::env::var("REQUIRE_LIGHTNINGD").as_deref(), Ok("1"), "lightningd is not on PATH");
        println!("SKIPPED: lightningd is not on PATH");
    }
    here
}

pub fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts a program that is killed when this thread ends, however it ends.
fn spawn(program: &Path, args: &[String], log: &Path) -> Child {
    let log = std::fs::File::create(log).unwrap();
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

pub struct Bitcoind {
    child: Child,
    pub folder: TempDir,
    cli: PathBuf,
    port: u16,
}

impl Bitcoind {
    pub fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/lib/bitcoind.sh");
        let found = Command::new("bash").arg(script).output().unwrap();
        let program = PathBuf::from(String::from_utf8(found.stdout).unwrap().trim());
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let args = [
            "-regtest".to_owned(),
            format!("-datadir={}", folder.path().display()),
            format!("-rpcport={port}"),
            "-rpcuser=u".to_owned(),
            "-rpcpassword=p".to_owned(),
            "-listen=0".to_owned(),
            "-fallbackfee=0.00001".to_owned(),
            "-txindex=0".to_owned(),
        ];
        let child = spawn(&program, &args, &folder.path().join("out"));
        let this = Self { child, cli: program.with_file_name("bitcoin-cli"), folder, port };
        wait_for("bitcoind", || this.try_call(&["getblockcount"]));
        this.call(&["createwallet", "w"]);
        // More than 121: Bitcoin Knots takes nothing with a lock time of 21, which a wallet may set.
        this.mine(125);
        this
    }

    fn try_call(&self, args: &[&str]) -> Option<String> {
        let port = format!("-rpcport={}", self.port);
        let mut command = Command::new(&self.cli);
        let output =
            command.args(["-regtest", "-rpcuser=u", "-rpcpassword=p", &port]).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }

    pub fn call(&self, args: &[&str]) -> String {
        self.try_call(args).unwrap_or_else(|| panic!("bitcoin-cli {args:?} failed"))
    }

    pub fn mine(&self, blocks: u32) {
        let address = self.call(&["getnewaddress"]);
        self.call(&["generatetoaddress", &blocks.to_string(), &address]);
    }

    pub fn height(&self) -> u64 {
        self.call(&["getblockcount"]).parse().unwrap()
    }
}

impl Drop for Bitcoind {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Node {
    child: Child,
    pub folder: PathBuf,
    args: Vec<String>,
    pub port: u16,
}

impl Node {
    pub fn start(bitcoind: &Bitcoind, name: &str, extra: &[String]) -> Self {
        let folder = bitcoind.folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let port = free_port();
        let mut args: Vec<String> = [
            "--network=regtest",
            "--developer",
            "--dev-bitcoind-poll=1",
            "--dev-fast-gossip",
            "--bitcoin-rpcuser=u",
            "--bitcoin-rpcpassword=p",
            "--log-level=debug",
            "--disable-plugin=clnrest",
            "--disable-plugin=cln-grpc",
            "--disable-plugin=wss-proxy",
            "--allow-deprecated-apis=false",
        ]
        .map(str::to_owned)
        .into();
        args.push(format!("--lightning-dir={}", folder.display()));
        args.push(format!("--log-file={}", folder.join("log").display()));
        args.push(format!("--addr=127.0.0.1:{port}"));
        args.push(format!("--bitcoin-rpcport={}", bitcoind.port));
        args.push(format!("--bitcoin-cli={}", bitcoind.cli.display()));
        args.extend_from_slice(extra);
        let child = spawn(Path::new("lightningd"), &args, &folder.join("out"));
        let node = Self { child, folder, args, port };
        node.wait_until_up(bitcoind);
        node
    }

    fn wait_until_up(&self, bitcoind: &Bitcoind) {
        wait_for("lightningd", || {
            let info = self.try_call("getinfo", &[]).ok()?;
            (info["blockheight"].as_u64()? >= bitcoind.height()).then_some(())
        });
    }

    /// Ends lightningd by its own command or by `kill -9`, and starts it again.
    pub fn restart(&mut self, bitcoind: &Bitcoind, kill: bool) {
        if kill {
            self.child.kill().unwrap();
        } else {
            let _ = self.try_call("stop", &[]);
        }
        self.child.wait().unwrap();
        self.child = spawn(Path::new("lightningd"), &self.args, &self.folder.join("out"));
        self.wait_until_up(bitcoind);
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("regtest/lightning-rpc")
    }

    /// Sends a raw request, and reads the answer.
    pub fn raw(&self, request: &str) -> Value {
        self.try_raw(request).unwrap_or_else(|error| panic!("no answer to {request}: {error}"))
    }

    fn try_raw(&self, request: &str) -> Result<Value, String> {
        let mut stream = UnixStream::connect(self.socket()).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(DEADLINE)).map_err(|error| error.to_string())?;
        stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        let mut buffer = [0; 1 << 16];
        while !bytes.ends_with(b"\n\n") {
            let count = stream.read(&mut buffer).map_err(|error| error.to_string())?;
            if count == 0 {
                break;
            }
            bytes.extend_from_slice(&buffer[..count]);
        }
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    }

    pub fn try_call(&self, method: &str, params: &[(&str, Value)]) -> Result<Value, Value> {
        let params: serde_json::Map<_, _> =
            params.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        self.try_json(method, Value::Object(params))
    }

    pub fn try_json(&self, method: &str, params: Value) -> Result<Value, Value> {
        let request = json!({ "jsonrpc": "2.0", "id": "t", "method": method, "params": params });
        let mut answer = self.try_raw(&request.to_string()).map_err(Value::from)?;
        match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(answer["error"].take()),
        }
    }

    pub fn call(&self, method: &str, params: &[(&str, Value)]) -> Value {
        self.try_call(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    pub fn list(&self, method: &str, params: &[&str]) -> Value {
        self.try_json(method, json!(params)).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    pub fn id(&self) -> String {
        self.call("getinfo", &[])["id"].as_str().unwrap().to_owned()
    }

    /// A million sat on our side of a new channel.
    pub fn open_channel(&self, bitcoind: &Bitcoind, to: &Node, announce: bool) {
        let address = self.call("newaddr", &[]);
        bitcoind.call(&["sendtoaddress", address["p2tr"].as_str().unwrap(), "0.1"]);
        bitcoind.mine(1);
        wait_for("coins", || {
            let funds = self.call("listfunds", &[]);
            funds["outputs"].as_array()?.iter().any(|output| output["status"] == "confirmed").then_some(())
        });
        let id = json!(to.id());
        self.connect(to);
        let push = json!("300000sat");
        let fund =
            [("id", id), ("amount", json!(1_000_000)), ("announce", json!(announce)), ("push_msat", push)];
        self.call("fundchannel", &fund);
        bitcoind.mine(6);
        self.wait_for_channels(to);
        if announce {
            wait_for("gossip", || {
                let both = |node: &Node| {
                    node.call("listchannels", &[])["channels"].as_array().map(Vec::len) == Some(2)
                };
                (both(self) && both(to)).then_some(())
            });
        }
    }

    pub fn connect(&self, to: &Node) {
        self.call("connect", &[("id", json!(format!("{}@127.0.0.1:{}", to.id(), to.port)))]);
    }

    pub fn wait_for_channels(&self, to: &Node) {
        for node in [self, to] {
            wait_for("a channel", || {
                let channels = node.call("listpeerchannels", &[]);
                let usable = |channel: &Value| {
                    channel["state"] == "CHANNELD_NORMAL"
                        && channel["peer_connected"] == true
                        && channel["updates"]["remote"].is_object()
                };
                channels["channels"].as_array()?.iter().all(usable).then_some(())
            });
        }
    }

    /// Lines of the log at BROKEN or UNUSUAL that come from a plugin.
    pub fn alarms(&self, plugin: &str) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap();
        // lightningd counts a hook that was answered with `resolve` or `fail` as in use for ever (plugin_hook.c, v26.06.6:
        // `num_users`), and says this at every later `plugin start`. The hook is called nevertheless.
        let deferring = |line: &str| line.contains("Deferring registration of hook");
        let alarming = |line: &str| line.contains("BROKEN") || line.contains("UNUSUAL");
        let alarm = |line: &&str| alarming(line) && line.contains(plugin) && !deferring(line);
        log.lines().filter(alarm).map(str::to_owned).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().filter(|line| !line.contains("DEBUG")).collect();
            println!("--- {}", self.folder.display());
            if let Some(keep) = std::env::var_os("KEEP_LOGS") {
                let name = self.folder.file_name().unwrap_or_default();
                let _ = std::fs::copy(self.folder.join("log"), Path::new(&keep).join(name));
            }
            lines.iter().rev().take(40).rev().for_each(|line| println!("{line}"));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The plugin for hold invoices. `cargo test` builds it, `cargo test --test hold` does not.
pub fn hold_plugin() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_cln-federation")).with_file_name("examples").join("hold-plugin");
    if !path.exists() {
        let args = ["build", "--quiet", "--package", "cln-federation", "--example", "hold-plugin"];
        let built = Command::new(env!("CARGO")).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).status();
        assert!(
            built.is_ok_and(|status| status.success()) && path.exists(),
            "cannot build {}",
            path.display()
        );
    }
    path
}

pub fn error_code(result: Result<Value, impl Debug + Into<Value>>) -> i64 {
    let error: Value = result.unwrap_err().into();
    error["code"].as_i64().unwrap_or_else(|| panic!("no code in {error}"))
}

//! A bitcoind on regtest that ends with the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use federation_wallet::bitcoind::{Auth, Bitcoind};
use serde_json::Value;

/// However the test ends, its bitcoind ends after this many seconds.
const LIFETIME: &str = "240";

pub struct Node {
    child: Child,
    cli: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Node {
    pub fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/lib/bitcoind.sh");
        let output = Command::new(&script).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "{} found no bitcoind", script.display());
        let bitcoind = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let child = Command::new("timeout")
            .arg(LIFETIME)
            .arg(&bitcoind)
            .args(["-regtest", "-listen=0", "-server", "-fallbackfee=0.00002", "-txindex=1"])
            .arg(format!("-datadir={}", dir.path().display()))
            .arg(format!("-rpcport={port}"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let node = Self { child, cli: bitcoind.with_file_name("bitcoin-cli"), dir, port };
        let deadline = Instant::now() + Duration::from_secs(60);
        while node.try_call(&["getblockcount"]).is_none() {
            assert!(Instant::now() < deadline, "bitcoind does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        node.call(&["createwallet", "user"]);
        // More than 121: Bitcoin Knots takes nothing with a lock time of 21, which a wallet may set.
        node.mine(125);
        node
    }

    pub fn source(&self) -> Bitcoind {
        let cookie = self.dir.path().join("regtest/.cookie");
        Bitcoind::new(&format!("127.0.0.1:{}", self.port), Auth::Cookie(cookie)).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.cli);
        command
            .arg("-regtest")
            .arg(format!("-datadir={}", self.dir.path().display()))
            .arg(format!("-rpcport={}", self.port))
            .args(arguments);
        command
    }

    fn try_call(&self, arguments: &[&str]) -> Option<Value> {
        let output = self.command(arguments).stderr(Stdio::null()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        // bitcoin-cli prints strings without quotes.
        output.status.success().then(|| serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub fn call(&self, arguments: &[&str]) -> Value {
        self.try_call(arguments).unwrap_or_else(|| panic!("bitcoin-cli {arguments:?} failed"))
    }

    pub fn text(&self, arguments: &[&str]) -> String {
        self.call(arguments).as_str().unwrap().to_owned()
    }

    pub fn mine(&self, blocks: u32) {
        let address = self.text(&["getnewaddress"]);
        self.call(&["generatetoaddress", &blocks.to_string(), &address]);
    }

    pub fn height(&self) -> u32 {
        u32::try_from(self.call(&["getblockcount"]).as_u64().unwrap()).unwrap()
    }

    /// What confirmed outputs to an address hold, in satoshi.
    pub fn received(&self, address: &str) -> u64 {
        let btc = self.call(&["getreceivedbyaddress", address]).as_f64().unwrap();
        bitcoin::Amount::from_btc(btc).unwrap().to_sat()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.try_call(&["stop"]);
        let _ = self.child.wait();
    }
}

//! The plugin from start to end: what is wired to what, and in which order.
//!
//! 1. stdin and stdout, through [`wire`](crate::wire); no file is touched: lightningd may only want the manifest.
//! 2. `init`: options are checked, live payment hashes loaded, then it is answered. That takes milliseconds.
//! 3. Guardian and gateway start, each on its own.
//! 4. `shutdown`: nothing new, held payments get a while, then everything stops.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use cln_plugin::{Builder, Plugin};
use federation_guardian::Guardian;
use gateway::Gateway;
use serde_json::{Value, json};

use crate::cln::Rpc;
use crate::hook::live::LiveFile;
use crate::hook::{Hook, unix_now};
use crate::options::{self, Options};
use crate::role::{self, Role};
use crate::wire::check::HTLC_ACCEPTED;
use crate::wire::output::MessagePipe;
use crate::wire::{Known, Output, pump};
use crate::{logging, rpc};

/// How long held payments may take to be settled when the plugin is stopped. lightningd kills it after 30 s.
const PATIENCE: Duration = Duration::from_secs(25);
/// What is left of that time for guardian and gateway.
const LAST_STEPS: Duration = Duration::from_secs(4);
/// The file of live payment hashes, in the data folder.
const LIVE_FILE: &str = "live-htlcs";

/// The running plugin; cheap to clone.
#[derive(Clone)]
pub struct App {
    shared: Arc<Shared>,
}

impl std::ops::Deref for App {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// What commands and notifications work on.
pub struct Shared {
    /// The HTLC hook.
    pub hook: Arc<Hook>,
    /// The guardian.
    pub guardian: Arc<Role<Guardian>>,
    /// The gateway.
    pub gateway: Arc<Role<Gateway>>,
    output: Output,
    options: OnceLock<Options>,
}

impl App {
    fn new(hook: Arc<Hook>, output: Output) -> Self {
        let shared = Shared {
            hook,
            guardian: Arc::new(Role::new("guardian", "fed-guardian")),
            gateway: Arc::new(Role::new("gateway", "fedgw-enable")),
            output,
            options: OnceLock::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The options; `None` before `init`.
    pub fn options(&self) -> Option<&Options> {
        self.options.get()
    }

    fn start_roles(&self, options: &Options) {
        let rpc = Rpc::new(&options.rpc_socket);
        if let Some(guardian) = options.guardian.clone() {
            self.guardian.starting();
            tokio::spawn(role::guardian::run(self.guardian.clone(), options.clone(), guardian, rpc.clone()));
        }
        if let Some(gateway) = options.gateway.clone() {
            self.gateway.starting();
            let hook = self.hook.clone();
            tokio::spawn(role::gateway::run(self.gateway.clone(), options.clone(), gateway, hook, rpc));
        }
    }

    /// Ends everything in the order that loses nothing.
    async fn stop(&self) {
        if let Ok(gateway) = self.gateway.get() {
            gateway.drain(true);
        }
        let patience = if self.hook.waiting() > 0 && self.lightningd_answers().await {
            PATIENCE
        } else {
            Duration::ZERO
        };
        self.hook.stop(patience).await;
        self.stop_roles().await;
    }

    /// Gateway before guardian: it may be served by it. Stopping twice does no harm.
    async fn stop_roles(&self) {
        let all = async {
            if let Ok(gateway) = self.gateway.get() {
                gateway.shutdown().await;
            }
            if let Ok(guardian) = self.guardian.get() {
                guardian.shutdown().await;
            }
        };
        if tokio::time::timeout(LAST_STEPS, all).await.is_err() {
            tracing::info!("guardian and gateway have not ended in time; they resume at the next start");
        }
    }

    /// When lightningd itself is stopping it ignores answers and asks again at its next start: no use in waiting.
    async fn lightningd_answers(&self) -> bool {
        let Some(options) = self.options() else { return false };
        let rpc = Rpc::new(&options.rpc_socket);
        let ping = rpc.call("getinfo", json!({}));
        matches!(tokio::time::timeout(Duration::from_secs(2), ping).await, Ok(Ok(_)))
    }
}

/// stdin, stdout and the hook, wired together; the input is for cln-plugin.
pub struct Wires {
    /// cln-plugin's input.
    pub input: tokio::io::DuplexStream,
    /// cln-plugin's output.
    pub pipe: MessagePipe,
    /// The writer of stdout.
    pub output: Output,
    /// The HTLC hook.
    pub hook: Arc<Hook>,
}

impl Wires {
    /// Starts reading and writing. `methods` and `notifications` are all that cln-plugin will be told to handle.
    pub fn start(methods: BTreeSet<String>, notifications: BTreeSet<String>) -> Self {
        let output = Output::start(tokio::io::stdout());
        logging::init(output.clone());
        let hook = Hook::new(output.clone());
        let known = Known { methods, notifications };
        let input = pump::start(tokio::io::stdin(), known, hook.clone(), output.clone());
        Self { input, pipe: output.pipe(), output, hook }
    }
}

/// Names the hook in the manifest. Its requests never come here: [`pump`] hands them to [`Hook`].
pub async fn answered_elsewhere<S: Clone + Send>(_: Plugin<S>, _: Value) -> anyhow::Result<Value> {
    Ok(json!({ "result": "continue" }))
}

/// Reads the height of a `block_added` notification (with or without the outer object of v25.02).
pub fn block_height(params: &Value) -> Option<u32> {
    let block = params.get("block_added").or_else(|| params.get("block")).unwrap_or(params);
    u32::try_from(block.get("height")?.as_u64()?).ok()
}

/// Runs the plugin until lightningd ends it.
pub async fn run() -> anyhow::Result<()> {
    let methods = rpc::all().iter().map(|command| command.name.to_owned()).collect();
    let wires = Wires::start(methods, ["block_added", "shutdown"].map(str::to_owned).into());
    let output = wires.output.clone();
    let app = App::new(wires.hook, wires.output);

    let builder = Builder::new(wires.input, wires.pipe)
        .with_logging(false)
        .dynamic()
        .hook(HTLC_ACCEPTED, answered_elsewhere)
        .subscribe("block_added", |plugin: Plugin<App>, params| async move {
            if let Some(height) = block_height(&params) {
                plugin.state().hook.block_added(height);
            }
            Ok(())
        })
        .subscribe("shutdown", |plugin: Plugin<App>, _| async move {
            plugin.state().stop().await;
            plugin.shutdown()
        });
    let builder = rpc::register(options::register(builder));
    // lightningd --help asks for the manifest and hangs up.
    let Some(configured) = builder.configure().await? else { return Ok(()) };

    let options = match options::read(&configured) {
        Ok(options) => options,
        Err(error) => return disable(configured, &output, &error.to_string()).await,
    };
    let loaded = tokio::fs::create_dir_all(&options.data_dir).await.map_err(|error| error.to_string());
    let loaded = loaded.and_then(|()| {
        LiveFile::open(&options.data_dir.join(LIVE_FILE), unix_now()).map_err(|error| error.to_string())
    });
    match loaded {
        Ok((file, invoices)) => app.hook.load(file, invoices).await,
        Err(error) => return disable(configured, &output, &format!("fed-data-dir: {error}")).await,
    }

    let plugin = configured.start(app.clone()).await.context("answering init")?;
    // Once: this is the only place that sets them.
    let _ = app.options.set(options.clone());
    app.start_roles(&options);
    let _ = plugin.join().await;
    // stdin is closed, or `shutdown` is done: a lightningd that crashed sends none.
    app.stop_roles().await;
    app.output.drained().await;
    Ok(())
}

/// Tells lightningd, in `init`'s answer, that this plugin does not want to run.
async fn disable<S, I, O>(
    configured: cln_plugin::ConfiguredPlugin<S, I, O>,
    output: &Output,
    reason: &str,
) -> anyhow::Result<()>
where
    S: Send + Clone + Sync + 'static,
    I: tokio::io::AsyncRead + Send + Unpin + 'static,
    O: Send + tokio::io::AsyncWrite + Unpin + 'static,
{
    configured.disable(reason).await?;
    output.drained().await;
    Ok(())
}

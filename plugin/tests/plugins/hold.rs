//! A plugin for the tests: hold invoices of the library as RPC commands, without guardian and gateway.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use cln_federation::app::{Wires, answered_elsewhere, block_height};
use cln_federation::cln::{AskedFile, ClnNode, Rpc};
use cln_federation::hook::live::LiveFile;
use cln_federation::hook::{Hook, unix_now};
use cln_plugin::{Builder, Plugin};
use gateway::node::{HoldInvoiceRequest, LightningNode};
use serde_json::{Value, json};

#[derive(Clone)]
struct State {
    node: Arc<ClnNode>,
    hook: Arc<Hook>,
}

fn arg(params: &Value, at: usize) -> String {
    params.get(at).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn bytes(params: &Value, at: usize) -> anyhow::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(arg(params, at), &mut bytes)?;
    Ok(bytes)
}

async fn invoice(plugin: Plugin<State>, params: Value) -> anyhow::Result<Value> {
    let preimage = bytes(&params, 0)?;
    let request = HoldInvoiceRequest {
        payment_hash: sha256::Hash::hash(&preimage).to_byte_array(),
        amount_msat: arg(&params, 1).parse()?,
        description: "hold".to_owned(),
        expiry: Duration::from_secs(600),
    };
    let invoice = plugin.state().node.hold_invoice(request).await?;
    Ok(json!({ "bolt11": invoice.to_string() }))
}

async fn held(plugin: Plugin<State>, _: Value) -> anyhow::Result<Value> {
    Ok(json!({ "held": plugin.state().node.held_payments().await? }))
}

async fn settle(plugin: Plugin<State>, params: Value) -> anyhow::Result<Value> {
    let preimage = bytes(&params, 0)?;
    plugin.state().node.settle(sha256::Hash::hash(&preimage).to_byte_array(), preimage).await?;
    Ok(json!({}))
}

async fn cancel(plugin: Plugin<State>, params: Value) -> anyhow::Result<Value> {
    let hash = sha256::Hash::hash(&bytes(&params, 0)?).to_byte_array();
    plugin.state().node.cancel(hash).await?;
    Ok(json!({}))
}

async fn run() -> anyhow::Result<()> {
    let methods = ["test-hold-invoice", "test-hold-list", "test-hold-settle", "test-hold-cancel"];
    let wires = Wires::start(
        methods.map(str::to_owned).into(),
        ["block_added", "shutdown"].map(str::to_owned).into(),
    );
    let hook = wires.hook;
    let builder = Builder::new(wires.input, wires.pipe)
        .with_logging(false)
        .dynamic()
        .hook("htlc_accepted", answered_elsewhere)
        .subscribe("block_added", |plugin: Plugin<State>, params| async move {
            if let Some(height) = block_height(&params) {
                plugin.state().hook.block_added(height);
            }
            Ok(())
        })
        .subscribe("shutdown", |plugin: Plugin<State>, _| async move {
            plugin.state().hook.stop(Duration::from_secs(2)).await;
            plugin.shutdown()
        })
        .rpcmethod("test-hold-invoice", "", invoice)
        .rpcmethod("test-hold-list", "", held)
        .rpcmethod("test-hold-settle", "", settle)
        .rpcmethod("test-hold-cancel", "", cancel);
    let Some(configured) = builder.configure().await? else { return Ok(()) };
    let configuration = configured.configuration();
    let folder = Path::new(&configuration.lightning_dir);
    let (file, invoices) = LiveFile::open(&folder.join("live-htlcs"), unix_now())?;
    hook.load(file, invoices).await;
    let asked = AskedFile::open(&folder.join("xpay-asked"), unix_now(), false)?;
    let rpc = Rpc::new(&folder.join(&configuration.rpc_file));
    let node = Arc::new(ClnNode::new(rpc, hook.clone(), Arc::new(asked)));
    let plugin = configured.start(State { node, hook }).await?;
    let _ = plugin.join().await;
    wires.output.drained().await;
    Ok(())
}

fn main() {
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().enable_all().build() else { return };
    let result = runtime.block_on(run());
    std::process::exit(i32::from(result.is_err()));
}

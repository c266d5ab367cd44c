//! The RPC commands: one file each.

use std::panic::AssertUnwindSafe;

use cln_plugin::{Builder, Plugin, RpcMethodBuilder};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::app::App;

mod fed_audit;
mod fed_invite;
mod fed_setup;
mod fed_setup_peer;
mod fed_setup_start;
mod fed_setup_status;
mod fed_status;
mod federation;
mod fedgw_balance;
mod fedgw_connect;
mod fedgw_deposit;
mod fedgw_receive_ecash;
mod fedgw_status;
mod fedgw_withdraw;
pub mod params;

pub use params::Params;

/// A command as lightningd and the operator see it.
pub struct Command {
    /// Its name: prefix and verb.
    pub name: &'static str,
    /// Its parameters in order, those in brackets optional: lightningd shows it, and it is what parameters are read by.
    pub usage: &'static str,
    /// One sentence.
    pub description: &'static str,
    /// What it does.
    pub run: fn(App, Params) -> BoxFuture<'static, Result<Value, Failure>>,
}

/// All commands.
pub fn all() -> Vec<Command> {
    vec![
        fed_setup::command(),
        fed_setup_peer::command(),
        fed_setup_start::command(),
        fed_setup_status::command(),
        fed_status::command(),
        fed_audit::command(),
        fed_invite::command(),
        fedgw_status::command(),
        fedgw_balance::command(),
        fedgw_connect::command(),
        fedgw_deposit::command(),
        fedgw_receive_ecash::command(),
        fedgw_withdraw::command(),
    ]
}

/// Names the commands to lightningd.
pub fn register<I, O>(mut builder: Builder<App, I, O>) -> Builder<App, I, O>
where
    I: AsyncRead + Send + Unpin + 'static,
    O: Send + AsyncWrite + Unpin + 'static,
{
    for command in all() {
        let Command { name, usage, description, run } = command;
        let method = RpcMethodBuilder::new(name, move |plugin: Plugin<App>, params| {
            let app = plugin.state().clone();
            async move { call(app, usage, run, params).await.map_err(Failure::into_error) }
        });
        builder = builder.rpcmethod_from_builder(method.usage(usage).description(description));
    }
    builder
}

/// A panic must not leave the caller without an answer.
async fn call(
    app: App,
    usage: &str,
    run: fn(App, Params) -> BoxFuture<'static, Result<Value, Failure>>,
    params: Value,
) -> Result<Value, Failure> {
    let params = Params::read(usage, params)?;
    let result = AssertUnwindSafe(async move { run(app, params).await }).catch_unwind().await;
    result.unwrap_or_else(|_| Err(Failure::failed("an internal error: see the log")))
}

/// Why a command has no result: a JSON-RPC error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    code: i32,
    message: String,
}

impl Failure {
    /// -32602: the parameters.
    pub fn params(message: impl Into<String>) -> Self {
        Self { code: -32602, message: message.into() }
    }
    /// -32000: it was tried and did not work.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { code: -32000, message: message.into() }
    }
    /// -32001: the role is switched off.
    pub fn off(message: impl Into<String>) -> Self {
        Self { code: -32001, message: message.into() }
    }
    /// -32002: not at this time.
    pub fn not_ready(message: impl Into<String>) -> Self {
        Self { code: -32002, message: message.into() }
    }
    /// The code.
    pub fn code(&self) -> i32 {
        self.code
    }

    /// cln-plugin reads code and message from an error's text if that is such an object; else it answers -32700.
    fn into_error(self) -> anyhow::Error {
        anyhow::anyhow!(json!({ "code": self.code, "message": self.message, "data": null }).to_string())
    }
}

/// A result as JSON.
pub fn to_json(value: impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(value).map_err(|error| Failure::failed(error.to_string()))
}

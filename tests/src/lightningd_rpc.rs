//! JSON-RPC 2.0 on lightningd's socket, one connection a call.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// `params` is an object or an array.
pub(crate) async fn call(socket: &Path, method: &str, params: Value) -> Result<Value> {
    let connection = UnixStream::connect(socket).await;
    let mut connection = connection.with_context(|| format!("can't connect to {}", socket.display()))?;
    let request = json!({ "jsonrpc": "2.0", "id": "harness", "method": method, "params": params });
    connection.write_all(request.to_string().as_bytes()).await?;
    let mut answer = Vec::new();
    // An answer ends with an empty line; JSON as lightningd prints it has none inside.
    while !answer.ends_with(b"\n\n") {
        if connection.read_buf(&mut answer).await? == 0 {
            bail!("lightningd hung up on {method}");
        }
    }
    let mut answer: Value = serde_json::from_slice(&answer)?;
    if let Some(error) = answer.get("error") {
        bail!("lightningd's {method}: {error}");
    }
    Ok(answer.get_mut("result").map(Value::take).unwrap_or_default())
}

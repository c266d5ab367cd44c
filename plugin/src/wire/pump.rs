//! Reads stdin and hands each message to where it belongs.

use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use super::check::{Known, Verdict, check};
use super::frames::Frames;
use super::output::Output;

/// Answers `htlc_accepted`. Must not wait: it runs on the task that reads stdin.
pub trait HookHandler: Send + Sync + 'static {
    /// Takes a hook request. Exactly one answer to `id` must be sent, now or later.
    fn htlc_accepted(&self, id: Vec<u8>, params: Option<Value>);
}

/// Starts reading. What comes back is cln-plugin's input; it ends when lightningd closes stdin.
pub fn start(
    reader: impl AsyncRead + Send + Unpin + 'static,
    known: Known,
    hook: Arc<dyn HookHandler>,
    output: Output,
) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    // Unbounded, so that a busy cln-plugin never keeps a hook waiting behind its own messages.
    let (lines, queue) = mpsc::unbounded_channel();
    tokio::spawn(forward(queue, ours));
    tokio::spawn(read(reader, known, hook, output, lines));
    theirs
}

async fn read(
    mut reader: impl AsyncRead + Unpin,
    known: Known,
    hook: Arc<dyn HookHandler>,
    output: Output,
    lines: mpsc::UnboundedSender<Vec<u8>>,
) {
    let mut frames = Frames::default();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        for frame in frames.push(buffer.get(..count).unwrap_or_default()) {
            match check(&frame, &known) {
                Verdict::Hook { id, params } => hook.htlc_accepted(id, params),
                Verdict::Pass(line) => {
                    let _ = lines.send(line);
                }
                Verdict::Answer(answer) => output.send(answer),
                Verdict::Ignore => {}
            }
        }
    }
}

async fn forward(mut queue: mpsc::UnboundedReceiver<Vec<u8>>, mut pipe: DuplexStream) {
    while let Some(line) = queue.recv().await {
        if pipe.write_all(&line).await.is_err() {
            return;
        }
    }
}

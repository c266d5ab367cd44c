//! The one writer of stdout.
//!
//! The hook, cln-plugin and the log all write to lightningd. Each hands over whole messages; one task writes them in
//! order, as many as are waiting at once. Handing over never waits, so the hook can't be held up by a slow reader.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

/// A handle to the writer; cheap to clone.
#[derive(Debug, Clone)]
pub struct Output {
    queue: mpsc::UnboundedSender<Item>,
}

#[derive(Debug)]
enum Item {
    Bytes(Vec<u8>),
    Drained(oneshot::Sender<()>),
}

impl Output {
    /// Starts the writing task. Must be called within a Tokio runtime.
    pub fn start(writer: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        let (queue, items) = mpsc::unbounded_channel();
        tokio::spawn(write_all(writer, items));
        Self { queue }
    }

    /// Hands over one or more whole messages; they are written together.
    pub fn send(&self, messages: Vec<u8>) {
        // Fails only when stdout is closed: then lightningd is gone, and nobody is left to tell.
        let _ = self.queue.send(Item::Bytes(messages));
    }

    /// Resolves when everything handed over before is written.
    pub async fn drained(&self) {
        let (done, wait) = oneshot::channel();
        if self.queue.send(Item::Drained(done)).is_ok() {
            let _ = wait.await;
        }
    }

    /// A writer for cln-plugin, which ends each of its messages with an empty line.
    pub fn pipe(&self) -> MessagePipe {
        MessagePipe { output: self.clone(), pending: Vec::new() }
    }
}

async fn write_all(mut writer: impl AsyncWrite + Unpin, mut items: mpsc::UnboundedReceiver<Item>) {
    let mut batch = Vec::new();
    while items.recv_many(&mut batch, 64).await > 0 {
        let mut bytes = Vec::new();
        let mut waiting = Vec::new();
        for item in batch.drain(..) {
            match item {
                Item::Bytes(more) => bytes.extend(more),
                Item::Drained(done) => waiting.push(done),
            }
        }
        if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
            return;
        }
        for done in waiting {
            let _ = done.send(());
        }
    }
}

/// Collects what is written to it, and hands it over message by message.
#[derive(Debug)]
pub struct MessagePipe {
    output: Output,
    pending: Vec<u8>,
}

impl AsyncWrite for MessagePipe {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.pending.extend_from_slice(bytes);
        // The last empty line: everything before it is whole.
        if let Some(end) = self.pending.windows(2).rposition(|pair| pair == b"\n\n") {
            let rest = self.pending.split_off(end + 2);
            let whole = std::mem::replace(&mut self.pending, rest);
            self.output.send(whole);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn messages_are_never_mixed() {
        let (mut read, write) = tokio::io::duplex(1 << 16);
        let output = Output::start(write);
        let mut pipe = output.pipe();
        pipe.write_all(b"{\"a\":").await.unwrap();
        output.send(b"{\"b\":2}\n\n".to_vec());
        pipe.write_all(b"1}\n\n{").await.unwrap();
        output.drained().await;
        let mut bytes = vec![0; 64];
        let count = read.read(&mut bytes).await.unwrap();
        assert_eq!(&bytes[..count], b"{\"b\":2}\n\n{\"a\":1}\n\n");
    }
}

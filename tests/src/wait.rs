//! Waiting for a condition, with a deadline.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at: often at first, for what takes an instant.
const FIRST: Duration = Duration::from_millis(10);
const LAST: Duration = Duration::from_millis(200);

/// Asks until the answer is `Some`, and returns that.
///
/// An error of `check` counts as "not yet": a process that is starting refuses connections. The last one is part of the
/// message when the deadline has passed.
pub async fn wait_for<T, F>(what: &str, within: Duration, mut check: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + within;
    let mut pause = FIRST;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // A check that hangs must not outlast the deadline, but gets a moment when it comes at the very end.
        let last = match tokio::time::timeout(left.max(LAST), check()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => Some("no answer".to_owned()),
        };
        if Instant::now() >= deadline {
            let last = last.map(|last| format!(" (last: {last})")).unwrap_or_default();
            bail!("{what}: not within {} s{last}", within.as_secs_f32());
        }
        tokio::time::sleep(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
        pause = (pause * 2).min(LAST);
    }
}

//! Help for guardians that crashed at the end of the setup.

use std::collections::BTreeMap;

use bytes::Bytes;
use federation_consensus::links::{CHANNEL_SETUP, LinkEvent, Links};
use tokio::sync::mpsc;

/// How often a guardian may resume the setup while this one runs. It also ends an exchange of thanks for thanks.
pub(super) const MAX_RESUMED: u8 = 20;

/// Answers guardians that crashed between storing the result and knowing that all have confirmed it: that this one's
/// confirmation was delivered to an earlier life of theirs doesn't mean that it was kept.
pub(super) async fn answer_resuming(links: Links, mut frames: mpsc::Receiver<LinkEvent>, frame: Bytes) {
    let mut answered = BTreeMap::<u16, u8>::new();
    while let Some(event) = frames.recv().await {
        event.accept();
        let count = answered.entry(event.from).or_default();
        // Equal bytes are confirmation enough; anything else is no resuming guardian of this setup.
        if event.frame != frame || *count >= MAX_RESUMED {
            continue;
        }
        *count = count.saturating_add(1);
        if let Err(error) = links.send(event.from, CHANNEL_SETUP, frame.clone()) {
            tracing::debug!("guardian {} resumes its setup, but: {error}", event.from);
        }
    }
}

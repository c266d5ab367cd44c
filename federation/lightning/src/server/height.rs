//! The block height that guardians agree on: the highest that n − f of them have reached.
//!
//! So f liars can't push it beyond what an honest guardian has seen, nor hold it back while n − f honest ones go on. It
//! never falls, whatever the chain does. (Modules can't read each other's state, so this is not the wallet's height, which
//! is also some confirmations behind.)

use federation_core::PeerId;
use federation_core::config::threshold;
use federation_core::db::{DbError, Namespaced, Reader};

use super::tables::{AGREED, HEIGHTS};

/// The agreed height; 0 before there is one.
pub(super) async fn agreed(db: &dyn Reader) -> Result<u32, DbError> {
    Ok(AGREED.get(db, &()).await?.unwrap_or(0))
}

/// What this guardian has said last.
pub(super) async fn voted(db: &dyn Reader, peer: PeerId) -> Result<u32, DbError> {
    Ok(HEIGHTS.get(db, &peer).await?.unwrap_or(0))
}

/// Counts a guardian's vote, one of `n`. A vote below its last one says nothing new: after a restart, or from a node that
/// is catching up.
pub(super) async fn vote(
    db: &mut Namespaced<'_>,
    n: usize,
    peer: PeerId,
    height: u32,
) -> Result<(), DbError> {
    if height <= voted(db, peer).await? {
        return Ok(());
    }
    HEIGHTS.put(db, &peer, &height);
    let mut votes: Vec<u32> = HEIGHTS.all(db).await?.into_iter().map(|(_, height)| height).collect();
    votes.sort_unstable_by(|a, b| b.cmp(a));
    let reached = votes.get(threshold(n).saturating_sub(1)).copied().unwrap_or(0);
    if reached > agreed(db).await? {
        AGREED.put(db, &(), &reached);
    }
    Ok(())
}

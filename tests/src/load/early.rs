//! How a client gets its notes: as the wallet does it (`federation_client`'s `engine/early.rs`), with the same times.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use federation_core::{PeerId, TxId};
use federation_mint::PointBytes;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Holder;

/// When the ordinary way begins if nobody has answered.
const HEAD_START: Duration = Duration::from_secs(1);
/// When the other guardians are asked, and the ordinary way begins, if the first has answered and not enough others.
const OTHERS: Duration = Duration::from_millis(100);

/// What makes notes, in the order of the requests.
pub enum Signed {
    /// Partial signatures of T guardians.
    Shares(Vec<BTreeMap<PeerId, PointBytes>>),
    /// Outcomes, encoded.
    Outcomes(Vec<Vec<u8>>),
}

/// What signs so many outputs: the shares of T of these guardians, or what the first one says that the outcomes are.
pub async fn signed(holder: &Arc<Holder>, urls: &[String], txid: TxId, outputs: usize) -> Result<Signed> {
    let mut others = urls.iter().map(String::as_str);
    let ask = |url| holder.shares(url, txid);
    let mut asked: FuturesUnordered<_> = others.by_ref().take(holder.threshold()).map(ask).collect();
    let mut shares: Vec<BTreeMap<PeerId, PointBytes>> = vec![BTreeMap::new(); outputs];
    let mut patience = Instant::now() + HEAD_START;
    // Not dropped when it is not needed any more: its connection is used again.
    let mut outcomes: Option<JoinHandle<Result<Vec<Vec<u8>>>>> = None;
    let first = urls.first().context("no guardian")?;
    loop {
        let begin_ordinary = tokio::select! {
            Some(answer) = asked.next() => {
                let useful = answer.ok().filter(|answer| {
                    (0..outputs).all(|output| answer.shares.keys().any(|index| usize::from(*index) == output))
                });
                if let Some(answer) = useful {
                    if shares.iter().all(BTreeMap::is_empty) && outcomes.is_none() {
                        patience = Instant::now() + OTHERS;
                    }
                    for (index, share) in answer.shares {
                        if let Some(of) = shares.get_mut(usize::from(index)) {
                            of.insert(answer.guardian, share);
                        }
                    }
                    if shares.iter().all(|shares| shares.len() >= holder.threshold()) {
                        return Ok(Signed::Shares(shares));
                    }
                    false
                } else {
                    asked.extend(others.by_ref().take(1).map(ask));
                    asked.is_empty()
                }
            }
            () = tokio::time::sleep_until(patience), if outcomes.is_none() => {
                if shares.iter().any(|shares| !shares.is_empty()) {
                    asked.extend(others.by_ref().map(ask));
                }
                true
            }
            Some(told) = async { Some(outcomes.as_mut()?.await) } => {
                let told = told??;
                ensure!(told.len() >= outputs, "{} outcomes", told.len());
                return Ok(Signed::Outcomes(told));
            }
        };
        if begin_ordinary && outcomes.is_none() {
            let (holder, url) = (Arc::clone(holder), first.clone());
            outcomes = Some(tokio::spawn(async move { holder.ready(&url, txid).await }));
        }
    }
}

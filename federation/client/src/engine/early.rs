//! The notes of a transaction an epoch before their outcomes.
//!
//! T guardians are asked for their own partial signatures, each once, and hold their answers back until they have accepted the
//! transaction. Any T right ones make the notes, which prove themselves. They also prove that the transaction is accepted: f of
//! the guardians may lie, and T − f, at least f + 1, do not.
//!
//! ```text
//! shares of T guardians ──▶ combine, unblind, check ──▶ notes
//!    │ no use: ask one more     │ wrong: name the liar, ask one more
//!    └──────────┬───────────────┘
//!               ▼ trouble, somebody silent, or nobody has answered for a while
//!            the ordinary way, beside it: whichever comes first
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use federation_core::PeerId;
use federation_mint::client::{Early, Note, NoteRequest, SharesAnswer, finish_early};
use federation_mint::{KIND, PointBytes};
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::drive::WAIT;
use super::finish::{Arrived, arrived};
use crate::api::{CallError, Request};
use crate::client::Client;
use crate::store::TxRecord;
use crate::{ClientError, Result};

/// When the ordinary way begins, if nobody has answered: as long as nothing is accepted it has nothing to tell but a refusal,
/// and it is a request more.
const HEAD_START: Duration = Duration::from_secs(1);
/// How long the others get when f + 1 have given shares: one of these is honest, and gives none before it has accepted the
/// transaction. (What a single one says proves nothing: it may be empty, or signed too early.) Then all are asked, and the ordinary way
/// begins. The outcome is an epoch away then, which takes about as long.
const OTHERS: Duration = Duration::from_millis(100);

/// What has come first.
pub(super) enum First<T> {
    /// The notes.
    Notes(Vec<Arrived>),
    /// What the ordinary way told.
    Told(Result<T>),
}

/// One partial signature a note, by guardian.
type Shares = BTreeMap<PeerId, Vec<PointBytes>>;

impl Client {
    /// The notes of a transaction that is handed in, or what `ordinary` comes to. That goes on to its end by itself, once begun,
    /// so that its connection can be used again.
    pub(super) async fn early_or<T: Send + 'static>(
        &self,
        record: &TxRecord,
        ordinary: impl Future<Output = Result<T>> + Send + 'static,
    ) -> First<T> {
        if record.issues.is_empty() {
            return First::Told(ordinary.await);
        }
        let hurry = Notify::new();
        let mut early = pin!(self.early(record, &hurry));
        let mut told = pin!(async {
            let _ = timeout(HEAD_START, hurry.notified()).await;
            let (tell, told) = oneshot::channel();
            self.spawn(async move {
                let _ = tell.send(ordinary.await);
            });
            told.await.unwrap_or_else(|_| Err(ClientError::Internal("the wallet was closed".to_owned())))
        });
        let mut hoping = true;
        loop {
            tokio::select! {
                notes = &mut early, if hoping => match notes {
                    Some(notes) => return First::Notes(notes),
                    None => {
                        hoping = false;
                        hurry.notify_one();
                    }
                },
                told = &mut told => return First::Told(told),
            }
        }
    }

    /// `None`: not this way. `hurry` is told when it looks as if it might be so.
    async fn early(&self, record: &TxRecord, hurry: &Notify) -> Option<Vec<Arrived>> {
        let api = &self.inner.api;
        let requests = Arc::new(self.requests(&record.issues).await.ok()?);
        let query = [("txid", record.txid.to_string()), ("wait", WAIT.as_secs().to_string())];
        let request = Request::module_get(KIND, "shares", &query);
        let threshold = usize::from(self.inner.mint.config.threshold);
        let ranked = api.ranked();
        let mut others = ranked.iter().copied();
        let request = &request;
        let ask = move |peer| async move { (peer, api.one(peer, request, WAIT).await) };
        let mut running: FuturesUnordered<_> = others.by_ref().take(threshold).map(ask).collect();
        let (mut shares, mut over) = (Shares::new(), 0usize);
        let (mut heard, mut patience) = (BTreeSet::new(), None);
        let mut accepted = false;
        loop {
            let next = match patience {
                Some(end) => timeout_at(end, running.next()).await,
                None => Ok(running.next().await),
            };
            let Ok(next) = next else {
                patience = None;
                hurry.notify_one();
                // Asked last next time: nobody shall have to wait for them again.
                let asked = ranked.len().saturating_sub(others.len());
                let late = ranked.iter().take(asked).filter(|peer| !heard.contains(*peer));
                late.for_each(|peer| api.note(*peer, true));
                running.extend(others.by_ref().map(ask));
                continue;
            };
            // Everybody has answered.
            let (peer, answer) = next?;
            heard.insert(peer);
            api.note(peer, matches!(answer, Err(CallError::Down(_))));
            let answer = answer.ok().and_then(|answer| serde_json::from_value::<SharesAnswer>(answer).ok());
            match answer.as_ref().and_then(|answer| partial_signatures(record, answer)) {
                Some(given) => {
                    shares.insert(peer, given);
                    if shares.len() > api.max_faulty() && !accepted {
                        accepted = true;
                        patience = Instant::now().checked_add(OTHERS);
                    }
                }
                None => {
                    over = over.saturating_add(usize::from(answer.is_some_and(|a| !a.outcomes.is_empty())));
                    // The outcomes are there. (f may lie about that.)
                    if over > api.max_faulty() {
                        return None;
                    }
                    running.extend(others.by_ref().take(1).map(ask));
                }
            }
            if shares.len() < threshold {
                continue;
            }
            match self.combine(&requests, &shares).await? {
                Ok(notes) => return Some(arrived(record, notes)),
                Err(liars) => {
                    hurry.notify_one();
                    for liar in &liars {
                        tracing::warn!(guardian = %liar, txid = %record.txid, "a guardian gave a wrong partial signature");
                        api.note(*liar, true);
                        shares.remove(liar);
                    }
                    if liars.is_empty() {
                        return None;
                    }
                    running.extend(others.by_ref().take(liars.len()).map(ask));
                }
            }
        }
    }

    /// The notes, or whose shares are wrong. `None`: the wallet is being closed.
    async fn combine(
        &self,
        requests: &Arc<Vec<NoteRequest>>,
        shares: &Shares,
    ) -> Option<std::result::Result<Vec<Note>, Vec<PeerId>>> {
        let (inner, requests, shares) = (self.inner.clone(), requests.clone(), shares.clone());
        let work = move || {
            let of = |place: usize| {
                let shares = shares.iter();
                shares.filter_map(|(peer, given)| Some((*peer, *given.get(place)?))).collect()
            };
            let by_note: Vec<BTreeMap<PeerId, PointBytes>> = (0..requests.len()).map(of).collect();
            let asked: Vec<_> = requests.iter().zip(&by_note).collect();
            finish_early(&asked, &inner.mint.config)
        };
        let results = tokio::task::spawn_blocking(work).await.ok()?;
        let mut liars: Vec<PeerId> = results.iter().flat_map(|early| &early.wrong).copied().collect();
        liars.sort_unstable();
        liars.dedup();
        let notes = results.into_iter().map(|Early { note, .. }| note);
        Some(notes.collect::<std::result::Result<Vec<_>, _>>().map_err(|_| liars))
    }
}

/// One for each note, in the order of the issues; `None` if any is missing.
fn partial_signatures(record: &TxRecord, answer: &SharesAnswer) -> Option<Vec<PointBytes>> {
    record.issues.iter().map(|issue| answer.shares.get(&issue.output).copied()).collect()
}

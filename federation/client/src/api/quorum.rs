//! Asking several guardians at once, and when their answers are enough.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use federation_core::PeerId;
use federation_core::config::max_faulty;
use futures::stream::{FuturesUnordered, StreamExt as _};
use rand::Rng as _;
use rand::seq::SliceRandom as _;
use serde_json::Value;

use super::{CallError, Request, Transport};
use crate::{ClientError, Result};

/// How long an answer may take, on top of the time that the request itself asks to be held back.
const ANSWER: Duration = Duration::from_secs(20);
/// After this long without an answer the next guardian is asked as well: one that hangs must not hold a payment up, and a
/// second answer costs little.
const PATIENCE: Duration = Duration::from_secs(3);
/// For how long a guardian in trouble is asked last.
const AVOIDED: Duration = Duration::from_secs(60);

/// The guardians' APIs.
#[derive(Clone)]
pub struct FederationApi {
    transport: Arc<dyn Transport>,
    peers: Arc<Vec<(PeerId, String)>>,
    /// Who is asked first; moves on from one that is down.
    first: Arc<AtomicUsize>,
    /// Who was down or slow, and when: these are asked last for a while.
    slow: Arc<Mutex<BTreeMap<PeerId, Instant>>>,
}

/// One guardian's answer.
pub type Answer = std::result::Result<Value, CallError>;

impl FederationApi {
    /// The APIs at the base URLs. `first` says who is asked first: wallets differ in it, so that the load is spread.
    pub fn new(transport: Arc<dyn Transport>, urls: BTreeMap<PeerId, String>, first: usize) -> Self {
        let first = first.checked_rem(urls.len()).unwrap_or(0);
        Self {
            transport,
            peers: Arc::new(urls.into_iter().collect()),
            first: Arc::new(AtomicUsize::new(first)),
            slow: Arc::default(),
        }
    }

    /// The same guardians over connections of its own, in an order of its own.
    ///
    /// # Errors
    /// See [`Transport::apart`].
    pub fn apart(&self) -> Result<Self> {
        let first = rand::thread_rng().gen_range(0..self.peers.len().max(1));
        Ok(Self::new(self.transport.apart()?, self.peers.iter().cloned().collect(), first))
    }

    /// The guardians in an order drawn anew, those in trouble at the end.
    pub(crate) fn drawn(&self) -> Vec<PeerId> {
        let mut order = self.order();
        order.shuffle(&mut rand::thread_rng());
        order.sort_by_key(|(peer, _)| self.is_slow(*peer));
        order.into_iter().map(|(peer, _)| peer).collect()
    }

    /// The guardians, the best to ask first.
    pub(crate) fn ranked(&self) -> Vec<PeerId> {
        self.order().into_iter().map(|(peer, _)| peer).collect()
    }

    /// Asks one guardian, and remembers whether it was in trouble.
    pub(crate) async fn ask(&self, peer: PeerId, request: &Request) -> Answer {
        let answer = self.one(peer, request, Duration::ZERO).await;
        self.note(peer, matches!(answer, Err(CallError::Down(_))));
        answer
    }

    /// How requests travel, for others than guardians.
    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// How many guardians may lie.
    pub fn max_faulty(&self) -> usize {
        max_faulty(self.peers.len())
    }

    /// How many guardians there are.
    pub fn guardians(&self) -> usize {
        self.peers.len()
    }

    /// Asks one guardian.
    pub async fn one(&self, peer: PeerId, request: &Request, wait: Duration) -> Answer {
        let url = self.peers.iter().find(|(id, _)| *id == peer).map(|(_, url)| url);
        let url = url.ok_or_else(|| CallError::Down(format!("there is no guardian {peer}")))?;
        self.transport.call(url, request, wait.saturating_add(ANSWER)).await
    }

    /// Asks `at_once` guardians, one more for each that fails `useful` or takes its time, until `done` has a result.
    /// `None`: everybody has answered and there is none.
    pub(crate) async fn gather<T>(
        &self,
        request: &Request,
        wait: Duration,
        at_once: usize,
        mut done: impl FnMut(PeerId, Answer) -> Step<T>,
    ) -> Option<T> {
        let mut order = self.order().into_iter();
        let outstanding: Mutex<BTreeSet<PeerId>> = Mutex::default();
        let lock = || outstanding.lock().unwrap_or_else(PoisonError::into_inner);
        let ask = |(peer, url): (PeerId, String)| {
            lock().insert(peer);
            async move { (peer, self.transport.call(&url, request, wait.saturating_add(ANSWER)).await) }
        };
        let mut running: FuturesUnordered<_> = order.by_ref().take(at_once.max(1)).map(&ask).collect();
        while !running.is_empty() {
            match tokio::time::timeout(PATIENCE, running.next()).await {
                Ok(Some((peer, answer))) => {
                    lock().remove(&peer);
                    self.note(peer, matches!(answer, Err(CallError::Down(_))));
                    match done(peer, answer) {
                        Step::Done(value) => return Some(value),
                        Step::More => running.extend(order.next().map(&ask)),
                        Step::Counted => {}
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    // A request that may wait longer is no sign of trouble.
                    if wait.is_zero() {
                        lock().iter().for_each(|peer| self.note(*peer, true));
                    }
                    running.extend(order.next().map(&ask));
                }
            }
            // What was counted may not have been enough after all: then the others decide.
            if running.is_empty() {
                running.extend(order.next().map(&ask));
            }
        }
        None
    }

    /// The guardians, the best to ask first: from the preferred one on, those in trouble at the end.
    fn order(&self) -> Vec<(PeerId, String)> {
        let first = self.first.load(Ordering::Relaxed);
        let mut order: Vec<_> =
            self.peers.iter().cycle().skip(first).take(self.peers.len()).cloned().collect();
        order.sort_by_key(|(peer, _)| self.is_slow(*peer));
        order
    }

    fn is_slow(&self, peer: PeerId) -> bool {
        let slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        slow.get(&peer).is_some_and(|since| since.elapsed() < AVOIDED)
    }

    /// Another guardian is asked first from now on.
    pub(crate) fn move_on(&self) {
        let next = self.first.load(Ordering::Relaxed).saturating_add(1);
        self.first.store(next.checked_rem(self.peers.len()).unwrap_or(0), Ordering::Relaxed);
    }

    /// Remembers who was in trouble, or has lied.
    pub(crate) fn note(&self, peer: PeerId, down: bool) {
        let mut slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        if down {
            slow.insert(peer, Instant::now());
        } else {
            slow.remove(&peer);
        }
    }

    /// The first good answer. A refusal counts only when f + 1 guardians refuse alike.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::Unreachable`].
    pub async fn any(&self, request: &Request, wait: Duration) -> Result<Value> {
        let mut tally = Refusals::new(self.max_faulty());
        let found = self
            .gather(request, wait, 1, |_, answer| match answer {
                Ok(value) => Step::Done(Ok(value)),
                Err(error) => tally.add(error),
            })
            .await;
        found.unwrap_or_else(|| Err(tally.unreachable()))
    }

    /// What f + 1 guardians say alike, after `view` has picked what must be equal; `view` gives `None` for an answer that
    /// makes no sense.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if f + 1 refuse with the same code, [`ClientError::Disagreement`],
    /// [`ClientError::Unreachable`].
    pub async fn agreed<T: PartialEq>(
        &self,
        request: &Request,
        wait: Duration,
        view: impl Fn(Value) -> Option<T>,
    ) -> Result<T> {
        self.agreed_on(request, wait, |answer| match answer {
            Ok(value) => view(value).ok_or_else(|| CallError::Down("an answer cannot be read".to_owned())),
            Err(error) => Err(error),
        })
        .await
    }

    /// Like [`agreed`](Self::agreed), with a view that can also make something of a refusal.
    pub async fn agreed_on<T: PartialEq>(
        &self,
        request: &Request,
        wait: Duration,
        view: impl Fn(Answer) -> std::result::Result<T, CallError>,
    ) -> Result<T> {
        let needed = self.max_faulty().saturating_add(1);
        let mut tally = Refusals::new(self.max_faulty());
        let mut views: Vec<(T, usize)> = Vec::new();
        let found = self
            .gather(request, wait, needed, |_, answer| match view(answer) {
                Ok(value) => match views.iter().position(|(seen, _)| *seen == value) {
                    Some(place)
                        if views.get(place).is_some_and(|(_, count)| count.saturating_add(1) >= needed) =>
                    {
                        Step::Done(Ok(value))
                    }
                    Some(place) => {
                        if let Some((_, count)) = views.get_mut(place) {
                            *count = count.saturating_add(1);
                        }
                        Step::Counted
                    }
                    None if needed == 1 => Step::Done(Ok(value)),
                    None => {
                        let first = views.is_empty();
                        views.push((value, 1));
                        if first { Step::Counted } else { Step::More }
                    }
                },
                Err(error) => tally.add(error),
            })
            .await;
        match found {
            Some(result) => result,
            None if views.len() > 1 => Err(ClientError::Disagreement(request.path.clone())),
            None => Err(tally.unreachable()),
        }
    }

    /// The good answers of `count` guardians; of fewer if the others do not answer.
    ///
    /// # Errors
    /// As [`any`](Self::any), if there is no good answer at all.
    pub async fn some(&self, request: &Request, count: usize) -> Result<Vec<Value>> {
        let mut tally = Refusals::new(self.max_faulty());
        let mut answers = Vec::new();
        let enough = self
            .gather(request, Duration::ZERO, count, |_, answer| match answer {
                Ok(value) => {
                    answers.push(value);
                    if answers.len() >= count { Step::Done(Ok(())) } else { Step::Counted }
                }
                Err(error) => tally.add(error),
            })
            .await;
        match enough {
            _ if !answers.is_empty() => Ok(answers),
            Some(Err(error)) => Err(error),
            _ => Err(tally.unreachable()),
        }
    }

    /// Asks everybody; the answers by guardian.
    pub async fn all(&self, request: &Request, wait: Duration) -> BTreeMap<PeerId, Answer> {
        let asked = self.peers.iter().map(|(peer, url)| async move {
            (*peer, self.transport.call(url, request, wait.saturating_add(ANSWER)).await)
        });
        futures::future::join_all(asked).await.into_iter().collect()
    }
}

/// What an answer means for [`FederationApi::gather`].
pub(crate) enum Step<T> {
    /// Enough.
    Done(T),
    /// It counts, but is not enough yet.
    Counted,
    /// It is of no use: ask another guardian.
    More,
}

/// Counts the answers that are none.
pub(crate) struct Refusals {
    needed: usize,
    codes: BTreeMap<String, usize>,
    reasons: Vec<String>,
}

impl Refusals {
    pub(crate) fn new(max_faulty: usize) -> Self {
        Self { needed: max_faulty.saturating_add(1), codes: BTreeMap::new(), reasons: Vec::new() }
    }

    /// Done when f + 1 guardians refuse with the same code.
    pub(crate) fn add<T>(&mut self, error: CallError) -> Step<Result<T>> {
        let verdict = error.is_verdict();
        match error {
            CallError::Refused { code, detail, .. } if verdict => {
                let count = self.codes.entry(code.clone()).or_default();
                *count = count.saturating_add(1);
                if *count >= self.needed {
                    return Step::Done(Err(ClientError::Refused { code, detail }));
                }
                self.reasons.push(detail);
            }
            other => self.reasons.push(other.to_string()),
        }
        Step::More
    }

    pub(crate) fn unreachable(&self) -> ClientError {
        ClientError::Unreachable(self.reasons.join("; "))
    }
}

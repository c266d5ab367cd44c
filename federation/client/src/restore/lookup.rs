//! Asking the guardians which numbers were issued, and what of their answers is believed.

use std::time::Duration;

use federation_core::{OutPoint, PeerId};
use federation_mint::client::{Note, NoteRequest, finish_all};
use federation_mint::{Denomination, KIND, PointBytes};
use federation_tbs::BlindedSignature;
use serde::Deserialize;
use serde_json::json;

use crate::api::{CallError, FederationApi, Refusals, Request, Step};
use crate::client::Client;
use crate::{ClientError, Result};

/// What became of a number.
pub(crate) enum Fate {
    /// Never issued, as far as n − f guardians know.
    Unknown,
    /// Issued, and not signed yet.
    Pending(Denomination, OutPoint),
    /// Issued, with the federation's signature.
    Issued(OutPoint, Note),
}

/// One guardian's word about a blinded nonce.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Line {
    #[serde(flatten)]
    point: OutPoint,
    denomination: Denomination,
    outcome: Option<PointBytes>,
}

#[derive(Deserialize)]
struct Lines {
    notes: Vec<Option<Line>>,
}

impl Client {
    /// What became of numbers, 512 at most, in their order. `api` carries nothing but these lookups.
    pub(crate) async fn fates(&self, api: &FederationApi, numbers: &[u64]) -> Result<Vec<Fate>> {
        let some = Denomination::new(0).map_err(|error| ClientError::Internal(error.to_string()))?;
        let (inner, wanted) = (self.inner.clone(), numbers.to_vec());
        let derive = move || -> Vec<_> {
            // The denomination is no part of what is looked up.
            wanted.into_iter().map(|number| NoteRequest::new(&inner.deriver, number, some)).collect()
        };
        let requests = blocking(derive).await?;
        let nonces: Vec<_> =
            requests.iter().map(|request| PointBytes(request.blinded_nonce().to_bytes())).collect();
        let request = Request::module_post(KIND, "issued", json!({ "blinded_nonces": nonces }));

        let n_f = api.guardians().saturating_sub(api.max_faulty());
        let (mut answers, enough) = ask(api, &request, n_f, numbers.len()).await;
        enough?;
        let (requests, mut fates) = self.judge(requests, &answers).await?;
        let unproven = |fates: &[Fate]| {
            let mut claimed = fates.iter().enumerate().filter(|(_, fate)| matches!(fate, Fate::Unknown));
            claimed.any(|(place, _)| lines(&answers, place).next().is_some())
        };
        if unproven(&fates) && answers.len() < api.guardians() {
            // Somebody lies, or lags: all who can be reached decide.
            let (all, _) = ask(api, &request, api.guardians(), numbers.len()).await;
            if all.len() > answers.len() {
                answers = all;
                fates = self.judge(requests, &answers).await?.1;
            }
        }
        Ok(fates)
    }

    /// Makes the best of the answers.
    async fn judge(
        &self,
        mut requests: Vec<NoteRequest>,
        answers: &[(PeerId, Vec<Option<Line>>)],
    ) -> Result<(Vec<NoteRequest>, Vec<Fate>)> {
        let mut fates: Vec<Fate> = requests.iter().map(|_| Fate::Unknown).collect();
        // One guardian's signatures after another's, until each note has a right one.
        for (_, lines) in answers {
            let mut tries = Vec::new();
            for (place, (line, fate)) in lines.iter().zip(&fates).enumerate() {
                if let (Some(line), Fate::Unknown) = (line, fate)
                    && let Some(signature) = line.outcome.as_ref().and_then(|point| point.decode().ok())
                {
                    tries.push((place, line.point, line.denomination, signature));
                }
            }
            let inner = self.inner.clone();
            let check = move || {
                let checked = check(&mut requests, tries, &inner.mint.config);
                (requests, checked)
            };
            let (back, checked) = blocking(check).await?;
            requests = back;
            for (place, point, note) in checked {
                if let Some(fate) = fates.get_mut(place) {
                    *fate = Fate::Issued(point, note);
                }
            }
        }
        let needed = self.inner.api.max_faulty().saturating_add(1);
        for (place, fate) in fates.iter_mut().enumerate() {
            if !matches!(fate, Fate::Unknown) {
                continue;
            }
            let said = |line: &Line| {
                let same =
                    |other: &&Line| (other.point, other.denomination) == (line.point, line.denomination);
                lines(answers, place).filter(same).count()
            };
            if let Some(line) = lines(answers, place).find(|line| said(line) >= needed) {
                *fate = Fate::Pending(line.denomination, line.point);
            }
        }
        Ok((requests, fates))
    }
}

/// What the guardians say about one place.
fn lines(answers: &[(PeerId, Vec<Option<Line>>)], place: usize) -> impl Iterator<Item = &Line> {
    answers.iter().filter_map(move |(_, lines)| lines.get(place)?.as_ref())
}

/// Unblinds and checks all at once; those that are right.
fn check(
    requests: &mut [NoteRequest],
    tries: Vec<(usize, OutPoint, Denomination, BlindedSignature)>,
    config: &federation_mint::MintConfig,
) -> Vec<(usize, OutPoint, Note)> {
    for (place, _, denomination, _) in &tries {
        if let Some(request) = requests.get_mut(*place) {
            request.denomination = *denomination;
        }
    }
    let pairs: Vec<_> = tries
        .iter()
        .filter_map(|(place, _, _, signature)| Some((requests.get(*place)?, signature)))
        .collect();
    let notes = finish_all(&pairs, config);
    let right = tries.into_iter().zip(notes);
    right.filter_map(|((place, point, ..), note)| Some((place, point, note.ok()?))).collect()
}

/// The readable answers of `count` guardians; fewer with the reason.
async fn ask(
    api: &FederationApi,
    request: &Request,
    count: usize,
    length: usize,
) -> (Vec<(PeerId, Vec<Option<Line>>)>, Result<()>) {
    let mut answers = Vec::new();
    let mut tally = Refusals::new(api.max_faulty());
    let done = api
        .gather(request, Duration::ZERO, count, |peer, answer| {
            let lines = answer.and_then(|value| {
                let lines = serde_json::from_value::<Lines>(value).ok().map(|lines| lines.notes);
                lines
                    .filter(|lines| lines.len() == length)
                    .ok_or_else(|| CallError::Down(format!("guardian {peer}: an answer cannot be read")))
            });
            match lines {
                Ok(lines) => {
                    answers.push((peer, lines));
                    if answers.len() >= count { Step::Done(Ok(())) } else { Step::Counted }
                }
                Err(error) => tally.add(error),
            }
        })
        .await;
    let result = done.unwrap_or_else(|| Err(tally.unreachable()));
    (answers, result)
}

/// Curve arithmetic, away from the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ClientError::Internal(error.to_string()))
}

//! Which notes are spent: by the buckets that their nonces fall into.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use federation_core::PeerId;
use federation_mint::KIND;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use rand::seq::SliceRandom as _;
use serde::Deserialize;

use crate::api::{CallError, FederationApi, Request};
use crate::{ClientError, Result};

/// How many spent notes a bucket holds at most, on average: so much has to be read for a note of ours.
const BUCKET: u64 = 64;
/// Buckets that are asked for at once.
const AT_ONCE: usize = 8;
/// The most pages of one bucket: more than an honest guardian has.
const MAX_PAGES: usize = 64;

type Nonce = [u8; 32];

/// How a wallet asks for spent notes; carries nothing else.
pub(super) struct Spent {
    api: FederationApi,
    /// How many bytes of a nonce name its bucket.
    prefix: usize,
}

#[derive(Deserialize)]
struct Books {
    denominations: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    spent: u64,
}

#[derive(Deserialize)]
struct Page {
    nonces: Vec<String>,
    more: bool,
}

impl Spent {
    /// Over connections of its own; the size of the buckets comes from how much was spent in all.
    pub async fn new(api: &FederationApi) -> Result<Self> {
        let api = api.apart()?;
        let request = Request::module_get(KIND, "audit", &[]);
        let answers = api.some(&request, api.guardians().saturating_sub(api.max_faulty())).await?;
        let mut totals: Vec<u64> = answers
            .into_iter()
            .filter_map(|answer| serde_json::from_value::<Books>(answer).ok())
            .map(|books| books.denominations.iter().fold(0u64, |sum, line| sum.saturating_add(line.spent)))
            .collect();
        totals.sort_unstable();
        // The middle one is no higher and no lower than an honest one.
        let total = totals.get(totals.len() / 2).copied().unwrap_or_default();
        Ok(Self { api, prefix: prefix_of(total) })
    }

    /// Those of the nonces that f + 1 guardians say are spent.
    pub async fn among(&self, nonces: &[Nonce]) -> Result<BTreeSet<Nonce>> {
        let mut buckets: BTreeMap<String, Vec<Nonce>> = BTreeMap::new();
        for nonce in nonces {
            let prefix = hex::encode(nonce.get(..self.prefix).unwrap_or_default());
            buckets.entry(prefix).or_default().push(*nonce);
        }
        let mut buckets: Vec<_> = buckets.into_iter().collect();
        buckets.shuffle(&mut rand::thread_rng());
        stream::iter(buckets.into_iter().map(|(prefix, wanted)| self.bucket(prefix, wanted)))
            .buffer_unordered(AT_ONCE)
            .try_fold(BTreeSet::new(), |mut all, some| async move {
                all.extend(some);
                Ok(all)
            })
            .await
    }

    /// The spent ones of one bucket. Each time other guardians come first, so that none sees all of a wallet's buckets.
    async fn bucket(&self, prefix: String, wanted: Vec<Nonce>) -> Result<Vec<Nonce>> {
        let needed = self.api.max_faulty().saturating_add(1);
        let mut order = self.api.drawn().into_iter();
        let mut answers: Vec<BTreeSet<Nonce>> = Vec::new();
        let mut reasons = Vec::new();
        loop {
            let votes = |nonce: &Nonce| answers.iter().filter(|spent| spent.contains(nonce)).count();
            let decided = |nonce: &Nonce| {
                let votes = votes(nonce);
                votes >= needed || answers.len().saturating_sub(votes) >= needed
            };
            let settled = wanted.iter().all(decided);
            let missing = needed.saturating_sub(answers.len()).max(usize::from(!settled));
            let next: Vec<_> = order.by_ref().take(missing).collect();
            if settled || next.is_empty() {
                if answers.len() < needed {
                    return Err(ClientError::Unreachable(reasons.join("; ")));
                }
                // In doubt it is kept: a spent one shows when it is used.
                return Ok(wanted.iter().copied().filter(|nonce| votes(nonce) >= needed).collect());
            }
            let asked = next.into_iter().map(|peer| self.pages(peer, &prefix));
            for answer in futures::future::join_all(asked).await {
                match answer {
                    Ok(spent) => answers.push(spent),
                    Err(error) => reasons.push(error.to_string()),
                }
            }
        }
    }

    /// All of a bucket, as one guardian has it.
    async fn pages(&self, peer: PeerId, prefix: &str) -> Result<BTreeSet<Nonce>, CallError> {
        let senseless = || CallError::Down(format!("guardian {peer}: an answer cannot be read"));
        let mut spent: BTreeSet<Nonce> = BTreeSet::new();
        for _ in 0..MAX_PAGES {
            let mut query = vec![("prefix", prefix.to_owned())];
            query.extend(spent.last().map(|last| ("after", hex::encode(last))));
            let request = Request::module_get(KIND, "spent", &query);
            let page: Page =
                serde_json::from_value(self.api.ask(peer, &request).await?).map_err(|_| senseless())?;
            let before = spent.len();
            for text in &page.nonces {
                let mut nonce = [0; 32];
                let readable = text.starts_with(prefix) && hex::decode_to_slice(text, &mut nonce).is_ok();
                if !readable {
                    return Err(senseless());
                }
                spent.insert(nonce);
            }
            if !page.more {
                return Ok(spent);
            }
            if spent.len() == before {
                return Err(senseless());
            }
        }
        Err(senseless())
    }
}

/// How many bytes make buckets of at most [`BUCKET`] of `total` nonces, and no longer than a guardian takes.
fn prefix_of(total: u64) -> usize {
    (1..4usize).find(|bytes| total >> (8 * bytes) < BUCKET).unwrap_or(4)
}

/// How long a wallet waits before it asks again for what is not signed yet.
pub(super) const AGAIN: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_stay_small_and_crowded() {
        for (total, bytes) in
            [(0, 1), (16_383, 1), (16_384, 2), (4_194_303, 2), (4_194_304, 3), (u64::MAX, 4)]
        {
            assert_eq!(prefix_of(total), bytes, "{total}");
        }
    }
}

//! Withdrawals whose transaction was lost with the wallet, and which came back with a backup.
//!
//! Whoever was handed the transaction may hand it in at any time, so that nobody knows it today proves nothing: if the withdrawal were
//! given up, and made again with other notes, both could be paid. It can never be accepted once one of its notes is spent by another
//! transaction. So the wallet, which has set these notes aside, spends them itself: it reissues them. If the federation accepts
//! that, the withdrawal is over, and its money back; if the notes are spent, the withdrawal was accepted, or somebody else has
//! ended it before.
//!
//! ```text
//! on its way? ── wait a while
//!    │ no, or too long
//! reissue its notes ──▶ done: failed, the money is back
//!    │ they are spent
//! by it? ──▶ yes: accepted, its change is looked for
//!    └─────▶ no: failed
//! ```

use std::time::Duration;

use bitcoin::secp256k1::SECP256K1;
use federation_core::rest::{TransactionResponse, TransactionStatus};
use federation_mint::KIND;

use super::now;
use super::take::Taken;
use super::withdraw::State;
use crate::api::{CallError, Request};
use crate::client::Client;
use crate::store::{OpId, RESERVED, RESTORED, Remembered};
use crate::{ClientError, Result};

/// How long after its beginning a transaction is waited for if somebody says that it is on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 60 });

impl Client {
    /// What became of the transaction of a withdrawal that came back with a backup. `None`: not decided.
    pub(super) async fn lost_decision(&self, op: &OpId) -> Result<Option<State>> {
        let failed =
            |code: &str, reason: &str| State::Failed { code: code.to_owned(), reason: reason.to_owned() };
        let Some(lost) = RESTORED.get(self.db(), op).await? else {
            return Ok(Some(failed("not_made", "the wallet was lost before the withdrawal was handed in")));
        };
        let mut over = failed("not_made", "the wallet was lost before the withdrawal was accepted");
        match self.inner.api.decision(lost.txid, Duration::ZERO).await {
            Ok(TransactionStatus::Accepted { .. }) => return self.accepted(&lost).await,
            // Handed in again it may be accepted all the same.
            Ok(TransactionStatus::Rejected { code, reason }) => over = failed(&code, &reason),
            Ok(TransactionStatus::Proposed) | Err(ClientError::Disagreement(_)) => {
                if self.is_awaited(op, &lost).await? {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error),
        }
        let held = RESERVED.all_under(self.db(), op).await?;
        let notes: Vec<_> = held.iter().map(|(_, held)| self.note(held)).collect();
        if !notes.is_empty() {
            self.begin_take(op, &notes, |_, _| Ok(())).await?;
            match self.finish_take(op, &notes).await? {
                Taken::Notes { .. } => return Ok(Some(over)),
                Taken::Refused { code, reason } => {
                    tracing::warn!(
                        "the notes of a lost withdrawal cannot be reissued now: {reason} ({code})"
                    );
                    return Ok(None);
                }
                Taken::Spent => {}
            }
        }
        match self.was_spent_by(&lost).await {
            Some(true) => self.accepted(&lost).await,
            Some(false) => Ok(Some(over)),
            None => Ok(None),
        }
    }

    async fn accepted(&self, lost: &Remembered) -> Result<Option<State>> {
        Ok(self.find_issued(lost.txid, &lost.asks).await?.then_some(State::Accepted))
    }

    /// Whether it is worth waiting for. Whatever is said: to end it is safe.
    async fn is_awaited(&self, op: &OpId, lost: &Remembered) -> Result<bool> {
        let begun = Duration::from_millis(self.operation(op).await?.created);
        if now().checked_sub(begun).is_none_or(|age| age > ON_ITS_WAY) {
            return Ok(false);
        }
        Ok(!self.is_unknown(&Request::get(format!("/v1/transactions/{}", lost.txid))).await)
    }

    /// Whether the notes of a transaction were spent by it, or by another one. A guardian that shows one of them as spent, and asked
    /// after that does not show the transaction as accepted, says that it was another one, since both are one commit; f + 1 that say
    /// the same are believed. `None`: nothing is proven (yet).
    async fn was_spent_by(&self, lost: &Remembered) -> Option<bool> {
        let api = &self.inner.api;
        let key = self.inner.deriver.note(*lost.spends.first()?).key;
        let nonce = hex::encode(key.x_only_public_key(SECP256K1).0.serialize());
        let prefix = nonce.get(..8)?.to_owned();
        let spent = Request::module_get(KIND, "spent", &[("prefix", prefix)]);
        let status = Request::get(format!("/v1/transactions/{}", lost.txid));
        let (spent, status, nonce) = (&spent, &status, &nonce);
        let asked = api.ranked().into_iter().map(|peer| async move {
            let answer = api.ask(peer, spent).await.ok()?;
            let nonces = answer.get("nonces")?.as_array()?;
            nonces.iter().find(|found| found.as_str() == Some(nonce))?;
            match api.ask(peer, status).await.map(serde_json::from_value::<TransactionResponse>) {
                Ok(Ok(response)) => match response.status {
                    TransactionStatus::Accepted { .. } => Some(true),
                    TransactionStatus::Rejected { .. } => Some(false),
                    TransactionStatus::Proposed => None,
                },
                Err(CallError::Refused { status: 404, .. }) => Some(false),
                _ => None,
            }
        });
        let said = futures::future::join_all(asked).await;
        let enough =
            |by_it: bool| said.iter().filter(|said| **said == Some(by_it)).count() > api.max_faulty();
        [true, false].into_iter().find(|by_it| enough(*by_it))
    }
}

//! Keeps notes handy: fewer of one denomination, and some of each.
//!
//! What is reissued is an ordinary transaction of own notes into own notes, written down before it is handed in, and driven to its end
//! whatever happens. While it is under way these notes can't be spent; whoever needs them waits for what becomes of them, as
//! for any change ([`begin`](super::begin)).

use federation_mint::client::{DEFAULT_SPREAD, Held, consolidate};

use super::Plan;
use super::begin::Reissue;
use crate::client::Client;
use crate::ops::fresh_id;
use crate::store::{NOTES, UNFINISHED};
use crate::{ClientError, Result};

/// A single note is broken in the background only if it is worth at most one part in so many of what can be spent.
const PART: u128 = 2;

impl Client {
    /// Begins to reissue notes if there are too many small ones, or none of many denominations, and if it is worth the fees. Says
    /// whether it did; [`settle_all`](Self::settle_all) waits for the end. Does nothing while any transaction is under way: what is on
    /// its way may make it superfluous. Call it when nobody waits for the wallet.
    ///
    /// # Errors
    /// [`ClientError::Db`].
    pub async fn tidy(&self) -> Result<bool> {
        if !UNFINISHED.scan(self.db(), &(), None, 1).await?.is_empty() {
            return Ok(false);
        }
        let held = self.held().await?;
        let Some(spend) = consolidate::consolidation(&held, &self.inner.mint.config) else {
            return Ok(false);
        };
        if worth(&spend) * PART > worth(&held) && spend.values().sum::<usize>() == 1 {
            // The largest note of all, only to have change for it: better when there is something to be changed.
            return Ok(false);
        }
        self.reissue(Reissue { spend, spread: DEFAULT_SPREAD }).await
    }

    /// Makes fewer notes of the largest ones, and waits for them; `false` if that is of no use. For a transaction that would have too
    /// many.
    pub(super) async fn merge_notes(&self) -> Result<bool> {
        let Some(spend) = consolidate::merge(&self.held().await?, &self.inner.mint.config) else {
            return Ok(false);
        };
        self.reissue(Reissue { spend, spread: 0 }).await
    }

    async fn reissue(&self, reissue: Reissue) -> Result<bool> {
        let plan = Plan { reissue: Some(reissue), ..Plan::new(fresh_id(), Vec::new(), Vec::new()) };
        match Box::pin(self.begin(plan, |_, _| Ok(()))).await {
            Ok(_) => Ok(true),
            Err(ClientError::BelowFees(_) | ClientError::TooManyPending) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn held(&self) -> Result<Held> {
        let mut held = Held::new();
        for (_, note) in NOTES.all(self.db()).await? {
            let count = held.entry(note.denomination).or_default();
            *count = count.saturating_add(1);
        }
        Ok(held)
    }
}

fn worth(notes: &Held) -> u128 {
    let worth = |(denomination, count): (&federation_mint::Denomination, &usize)| {
        u128::from(denomination.amount().msat()) * (*count as u128)
    };
    notes.iter().map(worth).sum()
}

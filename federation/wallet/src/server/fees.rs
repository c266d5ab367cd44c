//! The fee rate that the federation agrees on: the median of the guardians' last votes, between floor and ceiling.
//!
//! The lowest rate while each of the last final blocks was the newest is kept: so a quote stays good for as many blocks,
//! without any guardian remembering whom it quoted what.

use bitcoin::Network;
use federation_core::PeerId;
use federation_core::db::{DbError, Namespaced, Reader};
use federation_core::module::ModuleError;

use super::Wallet;
use super::tables::{FEE_VOTES, FINAL, RATES};
use crate::body::Item;

impl Wallet {
    /// Our vote, if there is none yet or the rate moved by more than a tenth.
    pub(super) async fn propose_fee(&self, db: &dyn Reader) -> Result<Option<Item>, DbError> {
        let params = &self.config.params;
        let seen = match self.view().fee_rate {
            Some(rate) => rate,
            // No blocks, no market, no estimate.
            None if self.config.network == Network::Regtest => params.fee_floor_sat_per_kvb,
            None => return Ok(None),
        };
        let rate = seen.clamp(params.fee_floor_sat_per_kvb, params.fee_ceiling_sat_per_kvb);
        let voted = FEE_VOTES.get(db, &self.us).await?;
        let moved = voted.is_none_or(|voted| rate.abs_diff(voted) > voted / 10);
        Ok(moved.then_some(Item::FeeRate(rate)))
    }

    /// Records a guardian's vote.
    pub(super) fn apply_fee(
        &self,
        db: &mut Namespaced<'_>,
        from: PeerId,
        rate: u64,
    ) -> Result<(), ModuleError> {
        let params = &self.config.params;
        if !(params.fee_floor_sat_per_kvb..=params.fee_ceiling_sat_per_kvb).contains(&rate) {
            return Err(ModuleError::refused("bad_vote", "a fee rate outside floor and ceiling"));
        }
        FEE_VOTES.put(db, &from, &rate);
        Ok(())
    }

    /// The agreed rate; `None` until n − f guardians voted.
    pub(super) async fn agreed_rate(&self, db: &dyn Reader) -> Result<Option<u64>, DbError> {
        let mut votes: Vec<u64> = FEE_VOTES.all(db).await?.into_iter().map(|(_, rate)| rate).collect();
        if votes.len() < usize::from(self.config.threshold) {
            return Ok(None);
        }
        votes.sort_unstable();
        Ok(votes.get(votes.len() / 2).copied())
    }

    /// The lowest rate that quotes which are still valid were made with.
    pub(super) async fn lowest_rate(&self, db: &dyn Reader) -> Result<Option<u64>, DbError> {
        let Some(current) = self.agreed_rate(db).await? else { return Ok(None) };
        let kept = RATES.all(db).await?;
        Ok(Some(kept.into_iter().map(|(_, rate)| rate).fold(current, u64::min)))
    }

    /// Remembers the rate at the final height, and forgets what is too old.
    pub(super) async fn keep_rate(&self, db: &mut Namespaced<'_>) -> Result<(), DbError> {
        let (Some(height), Some(rate)) = (FINAL.get(db, &()).await?, self.agreed_rate(db).await?) else {
            return Ok(());
        };
        let kept = RATES.all(db).await?;
        let mut lowest = rate;
        for (at, old) in kept {
            if at == height {
                lowest = lowest.min(old);
            } else if at.saturating_add(self.config.params.quote_blocks) < height {
                RATES.delete(db, &at);
            }
        }
        RATES.put(db, &height, &lowest);
        Ok(())
    }
}

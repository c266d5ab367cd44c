//! Fees that change while the gateway runs.
//!
//! A user who believes an announcement of an hour ago has a right to the fees in it: a payment is good if it fits any of the
//! fees that may still be announced.

use federation_core::db::DbError;
use federation_lightning::GatewayFees;
use federation_lightning::gateway::{CLOCK_SKEW, LIFETIME};

use super::Swaps;
use crate::config::Fees;
use crate::store::{FEES, FeeHistory, now};

impl Swaps {
    /// At a start: the configuration's fees count if they are not those of the last start; else what was set at run time.
    pub(super) async fn configure_fees(&self, configured: Fees) -> Result<(), DbError> {
        match FEES.get(self.store.reader(), &()).await? {
            Some(history) if history.configured == configured => Ok(()),
            _ => self.change_fees(Some(configured), configured).await,
        }
    }

    /// Sets the fees; the earlier ones are honoured as long as an announcement of them may last.
    pub async fn set_fees(&self, fees: Fees) -> Result<(), DbError> {
        self.change_fees(None, fees).await
    }

    async fn change_fees(&self, configured: Option<Fees>, fees: Fees) -> Result<(), DbError> {
        let now = now().as_secs();
        let mut change = self.store.change().await;
        let mut history = FEES.get(&change.batch, &()).await?.unwrap_or_else(|| FeeHistory {
            configured: fees,
            current: fees,
            earlier: Vec::new(),
        });
        if history.current != fees {
            history.earlier.push((history.current, now));
        }
        history.current = fees;
        history.configured = configured.unwrap_or(history.configured);
        history.earlier.retain(|(_, until)| until.saturating_add(LIFETIME + CLOCK_SKEW) > now);
        FEES.put(&mut change.batch, &(), &history);
        change.commit().await
    }

    /// The fees of now.
    pub async fn fees(&self) -> Result<Fees, DbError> {
        Ok(self.history().await?.current)
    }

    /// All fees for paying that a user may rely on, those of now first.
    pub(super) async fn send_fees(&self) -> Result<Vec<GatewayFees>, DbError> {
        Ok(self.believed().await?.iter().map(Fees::send).collect())
    }

    /// All fees for being paid that a user may rely on, those of now first.
    pub(super) async fn receive_fees(&self) -> Result<Vec<GatewayFees>, DbError> {
        Ok(self.believed().await?.iter().map(Fees::receive).collect())
    }

    async fn believed(&self) -> Result<Vec<Fees>, DbError> {
        let now = now().as_secs();
        let history = self.history().await?;
        let earlier = history
            .earlier
            .iter()
            .filter(|(_, until)| until.saturating_add(LIFETIME + CLOCK_SKEW) > now)
            .map(|(fees, _)| *fees);
        Ok(std::iter::once(history.current).chain(earlier).collect())
    }

    async fn history(&self) -> Result<FeeHistory, DbError> {
        let history = FEES.get(self.store.reader(), &()).await?;
        // Written when the tables were opened.
        history.ok_or_else(|| DbError::Corrupt { table: "fees".to_owned(), reason: "it is empty".to_owned() })
    }
}

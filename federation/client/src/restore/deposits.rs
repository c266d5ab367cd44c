//! Finding the wallet's deposit addresses again.

use std::time::Duration;

use federation_store::WriteBatch;
use federation_wallet::KIND;
use federation_wallet::body::DepositsStatus;
use serde_json::json;
use std::collections::BTreeMap;

use super::DEPOSIT_GAP;
use crate::Result;
use crate::api::Request;
use crate::client::Client;
use crate::store::ADDRESSES;

/// Addresses that are asked for at once.
const AT_ONCE: u32 = 10;

impl Client {
    /// Has the guardians watch the wallet's addresses again and remembers them: all up to the last one that was ever paid to,
    /// and the gap after it, since one of those may be with somebody who is about to pay. One past the highest that was paid.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`](crate::ClientError::Unreachable).
    pub(super) async fn find_addresses(&self) -> Result<u32> {
        let (mut next, mut paid) = (0u32, 0u32);
        let mut found = Vec::new();
        while next.saturating_sub(paid) < DEPOSIT_GAP {
            let keys = next..next.saturating_add(AT_ONCE);
            next = keys.end;
            for answer in futures::future::join_all(keys.map(|key| self.was_paid(key))).await {
                let (key, address, was_paid) = answer?;
                found.push((key, address));
                if was_paid {
                    paid = key.saturating_add(1);
                }
            }
        }
        let _guard = self.inner.money.lock().await;
        let mut batch = WriteBatch::new(self.inner.db.clone());
        for (key, address) in found {
            if key < paid.saturating_add(DEPOSIT_GAP) {
                ADDRESSES.put(&mut batch, &key, &address);
            }
        }
        batch.commit().await?;
        Ok(paid)
    }

    /// Whether f + 1 guardians have seen the same deposit to an address.
    async fn was_paid(&self, key: u32) -> Result<(u32, String, bool)> {
        let (public, address) = self.deposit_place(key)?;
        let register = Request::module_post(KIND, "register", json!({ "key": public }));
        self.inner.api.all(&register, Duration::ZERO).await;
        let request = Request::module_get(KIND, "deposits", &[("key", public.to_string())]);
        let answers = self.inner.api.some(&request, self.inner.api.guardians()).await?;
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for answer in answers {
            let Ok(answer) = serde_json::from_value::<DepositsStatus>(answer) else { continue };
            let outpoints: std::collections::BTreeSet<_> =
                answer.deposits.into_iter().map(|deposit| deposit.outpoint).collect();
            for outpoint in outpoints {
                let count = seen.entry(outpoint).or_default();
                *count = count.saturating_add(1);
            }
        }
        let was_paid = seen.values().any(|count| *count > self.inner.api.max_faulty());
        Ok((key, address, was_paid))
    }
}

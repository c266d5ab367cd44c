//! From found to held.

use std::time::Duration;

use federation_core::encoding::tagged_hash;
use federation_store::WriteBatch;
use rand::seq::SliceRandom as _;

use super::Found;
use super::lookup::Fate;
use super::scan::BATCH;
use super::spent::{AGAIN, Spent};
use crate::Result;
use crate::client::Client;
use crate::store::{FOUND, Held, NOTES, OpId};

/// Notes whose spent state is looked up between two commits.
const CHUNK: usize = 256;
/// How long one question for a signature is held back.
const WAIT: Duration = Duration::from_secs(5);
/// The pause after a failure, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

impl Client {
    /// Gets what signatures there are, and moves what is signed and not spent into the balance. What is not signed yet stays.
    pub(super) async fn settle_found(&self, mut progress: impl FnMut(usize) + Send) -> Result<()> {
        self.sign_found().await?;
        let found = FOUND.all(self.db()).await?.into_iter();
        let mut signed: Vec<_> = found
            .filter_map(|(number, found)| Some((number, found.denomination, found.signature?)))
            .collect();
        if signed.is_empty() {
            return Ok(());
        }
        // In another order than the one in which their numbers were looked up.
        signed.shuffle(&mut rand::thread_rng());
        let lookup = Spent::new(&self.inner.api).await?;
        let mut left = signed.len();
        for chunk in signed.chunks(CHUNK) {
            progress(left);
            let held: Vec<_> = chunk
                .iter()
                .map(|(index, denomination, signature)| {
                    let (index, denomination) = (*index, *denomination);
                    let held = Held { index, denomination, signature: signature.clone() };
                    (self.note(&held).nonce().serialize(), held)
                })
                .collect();
            let nonces: Vec<_> = held.iter().map(|(nonce, _)| *nonce).collect();
            let spent = lookup.among(&nonces).await?;
            let _guard = self.inner.money.lock().await;
            let mut batch = WriteBatch::new(self.inner.db.clone());
            for (nonce, held) in &held {
                FOUND.delete(&mut batch, &held.index);
                if !spent.contains(nonce) {
                    NOTES.put(&mut batch, nonce, held);
                }
            }
            batch.commit().await?;
            self.touch();
            left = left.saturating_sub(chunk.len());
        }
        Ok(())
    }

    /// Looks again for what was not signed.
    async fn sign_found(&self) -> Result<()> {
        let unsigned = FOUND.all(self.db()).await?.into_iter();
        let unsigned: Vec<u64> =
            unsigned.filter(|(_, found)| found.signature.is_none()).map(|(number, _)| number).collect();
        if unsigned.is_empty() {
            return Ok(());
        }
        let api = self.inner.api.apart()?;
        for numbers in unsigned.chunks(usize::try_from(BATCH).unwrap_or(1)) {
            let fates = self.fates(&api, numbers).await?;
            let _guard = self.inner.money.lock().await;
            let mut batch = WriteBatch::new(self.inner.db.clone());
            for (number, fate) in numbers.iter().zip(fates) {
                let Fate::Issued(point, note) = fate else { continue };
                let signature = Some(note.signature.clone());
                FOUND.put(&mut batch, number, &Found { denomination: note.denomination, point, signature });
            }
            batch.commit().await?;
        }
        Ok(())
    }

    /// Waits a moment for something that is not signed.
    pub(super) async fn await_signature(&self) -> Result<()> {
        let found = FOUND.all(self.db()).await?;
        if let Some((_, found)) = found.iter().find(|(_, found)| found.signature.is_none()) {
            self.inner.api.apart()?.wait_ready(found.point, WAIT).await?;
        }
        // One guardian may have it before the others, or say so.
        tokio::time::sleep(AGAIN).await;
        Ok(())
    }

    /// Brings in what was found, in the background, until nothing is left.
    pub(crate) fn spawn_found(&self) {
        let name = task();
        if !self.inner.flows.enter(name) {
            return;
        }
        let client = self.for_task();
        self.spawn(async move {
            let (mut pause, longest) = PAUSE;
            loop {
                let step = match client.settle_found(|_| {}).await {
                    Ok(()) => match FOUND.scan(client.db(), &(), None, 1).await {
                        Ok(left) if left.is_empty() => break,
                        Ok(_) => client.await_signature().await,
                        Err(error) => Err(error.into()),
                    },
                    Err(error) => Err(error),
                };
                if let Err(error) = step {
                    tracing::debug!("found notes: {error}");
                    client.rest(pause).await;
                    pause = pause.saturating_mul(2).min(longest);
                }
            }
            client.inner.flows.leave(&name);
            // What came between the last look and now.
            if FOUND.scan(client.db(), &(), None, 1).await.is_ok_and(|left| !left.is_empty()) {
                client.spawn_found();
            }
        });
    }
}

/// The name of the task, among operations.
fn task() -> OpId {
    tagged_hash("cln-federation/client/found", &[])
}
